// Light or dark: the reader's choice before anything is drawn, if there is one; and the switch in the bar.
(() => {
  const root = document.documentElement;
  const words = { system: "auto", light: "light", dark: "dark" };
  const themes = Object.keys(words);

  function remembered() {
    try {
      return localStorage.getItem("underhood-theme");
    } catch {
      return null; // A browser that forbids storage follows the system.
    }
  }

  function choose(theme) {
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
    try {
      if (theme === "system") localStorage.removeItem("underhood-theme");
      else localStorage.setItem("underhood-theme", theme);
    } catch {
      // Without storage the choice holds as long as the page is open.
    }
  }

  const theme = remembered();
  if (theme === "light" || theme === "dark") root.dataset.theme = theme;
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector(".switch");
    const now = () => root.dataset.theme ?? "system";
    const show = () => (button.querySelector(".now").textContent = words[now()]);
    button.addEventListener("click", () => {
      choose(themes[(themes.indexOf(now()) + 1) % themes.length]);
      show();
    });
    show();
  });
})();
