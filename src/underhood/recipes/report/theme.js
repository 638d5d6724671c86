// Before anything is drawn: the reader's choice of light or dark, if there is one.
(() => {
  try {
    const theme = localStorage.getItem("underhood-theme");
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  } catch {
    // A browser that forbids storage follows the system.
  }
})();
