// Asks again and again while the page is looked at; stops when told to.

export function poll(act, seconds) {
  let timer = null;
  let stopped = false;
  async function round() {
    if (stopped) return;
    if (document.visibilityState === "visible") await act().catch(() => {});
    if (!stopped) timer = setTimeout(round, seconds() * 1000);
  }
  const wake = () => {
    if (document.visibilityState !== "visible" || stopped) return;
    clearTimeout(timer);
    round();
  };
  document.addEventListener("visibilitychange", wake);
  round();
  return () => {
    stopped = true;
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", wake);
  };
}
