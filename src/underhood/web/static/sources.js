// The passages that an answer was written from: a list below it, and each [1] in its text as a link into the list.

import { h } from "./dom.js";
import { whole } from "./numbers.js";

const CITATION = /\[(\d{1,2})\]/g;

// What a model answers from, in words: "6,123 passages of pydocs".
export const corpusLine = ({ passages, name }) => `${whole(passages)} ${passages === 1 ? "passage" : "passages"} of ${name}`;

// The numbers of the sources that a text cites.
export function citedIn(text, sources) {
  const numbers = [...text.matchAll(CITATION)].map((match) => Number(match[1]));
  return new Set(numbers.filter((number) => sources.some((source) => source.number === number)));
}

// The list for one answer. `update` is told which sources are cited, and whether the answer is still being written.
export class SourceList {
  constructor(sources) {
    this.items = new Map(sources.map((source) => [source.number, sourceItem(source)]));
    this.title = h("p", { class: "sources-title small soft" });
    this.element = h("section", { class: "sources", "aria-label": "Sources" }, this.title,
      sources.length ? h("ul", { class: "plain-list" }, [...this.items.values()]) : null);
  }

  update(cited, live) {
    if (!this.items.size) this.title.textContent = "No passage of the documents matched.";
    else if (live) this.title.textContent = `Reading ${this.items.size === 1 ? "a passage" : `${whole(this.items.size)} passages`}`;
    else this.title.textContent = cited.size ? "Sources" : "Read, but not cited";
    for (const [number, item] of this.items) item.classList.toggle("uncited", !live && cited.size > 0 && !cited.has(number));
  }

  // Opens a source and moves to it.
  open(number) {
    const details = this.items.get(number).querySelector("details");
    details.open = true;
    details.scrollIntoView({ block: "nearest" });
    details.querySelector("summary").focus({ preventScroll: true });
  }
}

function sourceItem({ number, title, text, source, line, marks }) {
  return h("li", {}, h("details", {}, h("summary", {},
    h("span", { class: "source-number number" }, `[${number}]`),
    title ? h("strong", { class: "source-title" }, title) : null,
    h("span", { class: "source-origin" }, line > 1 ? `${source}, line ${whole(line)}` : source)),
  h("blockquote", { class: "source-text" }, marked(text, marks))));
}

// A text with some of it marked; `marks` count characters as Python does, not UTF-16 units.
function marked(text, marks) {
  const letters = Array.from(text);
  const between = (begin, end) => letters.slice(begin, end).join("");
  let last = 0;
  const pieces = marks.flatMap(([begin, end]) => {
    const before = between(last, begin);
    last = end;
    return [before, h("mark", { class: "matched" }, between(begin, end))];
  });
  return [...pieces, between(last)];
}

// Makes the citations in some elements links; `open` is given the number of the one that is followed.
export function linkCitations(elements, sources, open) {
  const known = new Map(sources.map((source) => [source.number, source]));
  for (const element of elements) {
    const walker = document.createTreeWalker(element, NodeFilter.SHOW_TEXT, (node) =>
      (node.parentElement.closest("code, pre, a, button") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT));
    const nodes = [];
    while (walker.nextNode()) nodes.push(walker.currentNode);
    for (const node of nodes) {
      const pieces = [];
      let last = 0;
      for (const match of node.data.matchAll(CITATION)) {
        const source = known.get(Number(match[1]));
        if (!source) continue;
        pieces.push(node.data.slice(last, match.index), h("a", { class: "citation", href: `#source-${source.number}`,
          title: source.title || source.source, onclick: (event) => {
            event.preventDefault();
            open(source.number);
          } }, match[0]));
        last = match.index + match[0].length;
      }
      if (pieces.length) node.replaceWith(...[...pieces, node.data.slice(last)].filter((piece) => piece !== ""));
    }
  }
}
