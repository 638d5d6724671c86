// Pieces that several places are made of.

import { h } from "./dom.js";

// A part of a page under its heading, with words about it if there are any.
export function section(title, element, words = null) {
  const id = title.toLowerCase();
  return h("section", { class: "part", id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title),
    words ? h("p", { class: "small soft" }, words) : null, element);
}

// A table that scrolls inside itself, by keyboard too.
export function scrolling(name, table) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": name }, table);
}
