// The address is the state: what one sees can be sent as a link, and back and forward work.

let onMove = () => {};

export function read() {
  return { path: location.pathname, query: new URLSearchParams(location.search), hash: location.hash.slice(1) };
}

// Goes to another place, or to another view of this one.
export function go(address, { replace = false } = {}) {
  if (replace) history.replaceState(null, "", address);
  else history.pushState(null, "", address);
  onMove();
}

// Notes a change of this view in the address without redrawing it.
export function note(query, { push = false } = {}) {
  const text = query.toString();
  const address = location.pathname + (text ? `?${text}` : "");
  if (address === location.pathname + location.search && !location.hash) return;
  history[push ? "pushState" : "replaceState"](null, "", address);
}

// Whether an address is a document of its own that this script does not draw.
const elsewhere = (path) => path === "/inside" || path.startsWith("/path/") || path.startsWith("/ui/");

export function start(move) {
  onMove = move;
  addEventListener("popstate", move);
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='/']");
    if (!link || link.target || link.hasAttribute("download") || event.defaultPrevented || elsewhere(link.pathname)) return;
    if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(link.getAttribute("href"));
  });
}
