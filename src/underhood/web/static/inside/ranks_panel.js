// Ranks of chosen words: how far from the top each is, layer by layer.

import { h } from "../dom.js";
import { chance, whole } from "../numbers.js";
import { lineChart } from "./line.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";

export const ranksPanel = {
  id: "ranks",
  title: "Ranks of words",
  words: "Words that one has in mind, however unlikely: at which rank each layer has them after the selected token.",
  needs: ["token", "layer", "words", "model"],
  open({ source, subject, overview }) {
    const { layers } = overview();
    const field = h("input", { type: "text", name: "words", "aria-label": "Words, with bars between them", placeholder: " Paris| London", value: selected().words ?? "" });
    const form = h("form", { class: "fields", onsubmit: (event) => {
      event.preventDefault();
      select({ words: field.value });
    } }, field, h("button", { class: "quiet", type: "submit" }, "Follow"));
    const chart = lineChart("Rank by layer", "layer");
    const told = h("p", { class: "formula" });
    const element = h("div", {}, source.live ? form : null, chart.element, told);
    const name = (layer) => (layer === layers ? "end" : String(layer));

    async function update(current) {
      const { token, words = "" } = selected();
      const { facts, arrays } = await source.view(subject(), "ranks", { position: token, ...(words ? { words } : {}) });
      if (!current()) return;
      const series = facts.pieces.map((_, word) => Array.from({ length: layers + 1 }, (_, layer) => pick(arrays.ranks, layer)[word]));
      chart.update(series, { log: true, inverted: true, low: 1, name, names: facts.pieces.length > 1 ? facts.pieces : [], at: selected().layer,
        read: (layer) => `layer ${name(layer)}: ${facts.pieces.map((piece, word) => `${piece} ${whole(series[word][layer])} (${chance(pick(arrays.probabilities, layer)[word])})`).join(", ")}`,
        onPick: (layer) => select({ layer: Math.min(layer, layers - 1) }) });
      told.textContent = facts.pieces.map((piece, word) => `${piece}: ${facts.settled[word] === null ? "never settles on top" : facts.settled[word] === layers ? "on top only at the end" : `on top from layer ${name(facts.settled[word])} on`}`).join("; ");
    }

    return { element, update };
  },
};
