// The whole page: which page the address names, the bar, the keys.

import { chat } from "./chat.js";
import { box, h, typing } from "./dom.js";
import { compareRuns } from "./compare.js";
import { runPage } from "./run.js";
import { runsPage } from "./runs.js";
import { loadStages } from "./stages.js";
import { go, read, start } from "./state.js";

document.documentElement.classList.add("js");

const PLACES = [
  { key: "c", name: "Chat", address: "/", is: (path) => path === "/", open: chat },
  { key: "r", name: "Runs", address: "/runs", is: (path) => path === "/runs", open: runsPage },
  { key: "i", name: "Inside", address: "/inside", is: () => false }, // has a document of its own
  { key: "p", name: "Path", address: "/path/", is: () => false }, // has pages of its own
  { name: null, is: (path) => /^\/runs\/[^/]+$/.test(path), open: runPage, under: "Runs" },
  { name: null, is: (path) => path === "/compare", open: compareRuns, under: "Runs" },
];

const main = document.getElementById("main");
let here = null; // { page, view }

function move() {
  const address = read();
  const page = PLACES.find((candidate) => candidate.is(address.path)) ?? PLACES[0];
  if (here?.page === page && here.view.moved?.(address)) return;
  here?.view.leave?.();
  const first = here === null;
  main.replaceChildren();
  main.className = "";
  document.title = `${page.name ?? page.under} · Underhood`;
  here = { page, view: page.open(main, address) };
  for (const link of document.querySelectorAll(".bar nav a")) {
    if (link.textContent === (page.name ?? page.under)) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!first) main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

// Keys -----------------------------------------------------------------------------------------------------------

const KEYS = [
  ["g c, g r, g i, g p", "Chat, Runs, Inside, Path"],
  ["/", "Search the conversations or runs"],
  ["Enter", "Send; Shift+Enter makes a new line"],
  ["Esc", "Stop the answer"],
  ["n", "New conversation"],
  ["r", "Ask again"],
  ["t", "Tokens of the last answer"],
  ["e", "Edit the last question"],
  ["s", "Settings"],
  ["← → ↑ ↓", "Move within tokens, curves and alternatives; Enter chooses"],
  ["?", "This help"],
];
let going = 0;

function help() {
  box("Keys", () => h("dl", { class: "facts keys" }, KEYS.map(([keys, what]) => [h("dt", {}, h("kbd", {}, keys)), h("dd", {}, what)])));
}

document.addEventListener("keydown", (event) => {
  if (event.metaKey || event.ctrlKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (event.key === "Escape" || !typing(event)) {
    if (Date.now() - going < 1500) {
      going = 0;
      const page = PLACES.find((candidate) => candidate.key === event.key);
      if (page) {
        event.preventDefault();
        if (page.open) go(page.address);
        else location.href = page.address;
        return;
      }
    }
    if (event.key === "g") going = Date.now();
    else if (event.key === "?") help();
    else if (here?.view.key?.(event) !== true) return;
    event.preventDefault();
  }
});

document.querySelector(".help").addEventListener("click", help);

document.querySelector(".bar nav").append(...PLACES.filter((page) => page.name).map((page) => h("a", { href: page.address }, page.name)));
start(move);
await loadStages().catch(() => {}); // a server that does not answer says so in the place that is drawn
move();
