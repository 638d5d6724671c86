// Two answers to one question: which words of each the other lacks.

import { h } from "./dom.js";
import { whole } from "./numbers.js";

const MOST = 2_000_000; // cells of the table below; longer answers are compared at their beginnings and ends only

// Which places of each row of words are in no longest common subsequence: [Set, Set].
export function differing(first, second) {
  let begin = 0;
  while (begin < Math.min(first.length, second.length) && first[begin] === second[begin]) begin += 1;
  let end = 0;
  while (end < Math.min(first.length, second.length) - begin && first.at(-1 - end) === second.at(-1 - end)) end += 1;
  const left = first.slice(begin, first.length - end);
  const right = second.slice(begin, second.length - end);
  const unmatched = [new Set(left.keys()), new Set(right.keys())];
  if (left.length * right.length <= MOST) {
    // length[i * width + j]: of the longest common subsequence of what follows from places i and j on.
    const width = right.length + 1;
    const length = new Uint16Array((left.length + 1) * width);
    for (let i = left.length - 1; i >= 0; i -= 1) {
      for (let j = right.length - 1; j >= 0; j -= 1) {
        length[i * width + j] = left[i] === right[j] ? length[(i + 1) * width + j + 1] + 1
          : Math.max(length[(i + 1) * width + j], length[i * width + j + 1]);
      }
    }
    for (let i = 0, j = 0; i < left.length && j < right.length;) {
      if (left[i] === right[j]) {
        unmatched[0].delete(i);
        unmatched[1].delete(j);
        i += 1;
        j += 1;
      } else if (length[(i + 1) * width + j] >= length[i * width + j + 1]) i += 1;
      else j += 1;
    }
  }
  return unmatched.map((places) => new Set([...places].map((index) => index + begin)));
}

// Marks the words that differ in the answers of two views, and says how many they are, whenever one is drawn anew.
export function markDifferences(views, wanted) {
  const draw = () => {
    for (const { body, foot } of views) {
      foot.querySelector(".differs-note")?.remove();
      for (const mark of body.querySelectorAll("mark.differs")) mark.replaceWith(...mark.childNodes);
      body.normalize();
    }
    if (!wanted() || !views.every((view) => view.readable)) return;
    const texts = views.map(({ body }) => textNodes(body));
    const words = texts.map((nodes) => nodes.flatMap((node) => node.data.match(/\S+/g) ?? []));
    const places = differing(...words);
    views.forEach(({ foot }, side) => {
      mark(texts[side], places[side]);
      const count = places[side].size;
      foot.append(h("span", { class: "meta differs-note" }, count ? `${whole(count)} of ${whole(words[side].length)} words differ` : "the same words"));
    });
  };
  for (const view of views) view.drawn = draw;
  draw();
}

function textNodes(body) {
  const walker = document.createTreeWalker(body, NodeFilter.SHOW_TEXT, (node) =>
    (node.parentElement.closest("button, figcaption") ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT));
  const nodes = [];
  while (walker.nextNode()) nodes.push(walker.currentNode);
  return nodes;
}

// Neighbours that differ share a mark, with the space between them.
function mark(nodes, places) {
  let at = 0;
  for (const node of nodes) {
    const parts = [];
    for (const [piece, space, word] of node.data.matchAll(/(\s*)(\S*)/g)) {
      if (!piece) continue;
      const differs = word && places.has(at);
      at += word ? 1 : 0;
      const last = parts.at(-1);
      if (differs && last instanceof Element) last.append(piece);
      else parts.push(space, differs ? h("mark", { class: "differs" }, word) : word);
    }
    if (parts.some((element) => element instanceof Element)) node.replaceWith(...parts.filter((element) => element !== ""));
  }
}
