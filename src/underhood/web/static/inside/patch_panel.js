// Patching: the residual stream of one token at one layer, taken from another prompt's run; where that brings the other
// prompt's answer, the value carries the difference. Both directions: what is enough to bring it, and what to lose it.

import { h } from "../dom.js";
import { decimal, percent } from "../numbers.js";
import { signed } from "./colours.js";
import { heatMap } from "./heat.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";

export const patchPanel = {
  id: "patching",
  title: "Patching",
  words: "Another prompt of as many tokens is run, and a single value of one run's residual stream is put into the other's. The colour is the share of the way from the one answer to the other that this value alone makes.",
  needs: ["token", "layer", "against", "answer", "other", "direction", "model"],
  open({ source, subject, overview }) {
    const { layers, tokens } = overview();
    let shares = null;
    let pieces = null;
    const map = heatMap({
      name: "What each patched value restores", rows: layers + 1, columns: tokens.length, width: 14, height: 14, fit: true, widest: 128, most: 560, head: 40, top: 84,
      rowName: (row) => (row === 0 ? "end" : String(layers - row)),
      columnName: (column) => (pieces && pieces[0][column] !== pieces[1][column] ? `${pieces[1][column]}→${pieces[0][column]}` : tokens[column].shown),
      paint: (row, column) => (shares ? signed(pick(shares, layers - row)[column]) : null),
      read: (row, column) => (shares ? `Layer ${row === 0 ? "end" : layers - row}, ${tokens[column].shown} (${column}): ${percent(pick(shares, layers - row)[column])} of the way` : ""),
      selected: () => ({ row: layers - selected().layer, column: selected().token }),
      onPick: (row, column) => select({ token: column, layer: Math.min(layers - row, layers - 1) }),
    });
    const prompt = h("input", { type: "text", name: "against", "aria-label": "Other prompt", placeholder: "Another prompt of as many tokens" });
    const scores = ["answer", "other"].map((name) => h("input", { type: "text", name, size: 10, "aria-label": name === "answer" ? "Answer to the other prompt" : "Answer to this prompt", placeholder: name === "answer" ? "its answer" : "this one's" }));
    const way = h("select", { name: "direction", "aria-label": "Direction", onchange: (event) => select({ direction: event.target.value }, { push: true }) }, h("option", { value: "" }, "its values into this run"), h("option", { value: "out" }, "this run's values into its"));
    const form = h("form", { class: "fields", onsubmit: (event) => {
      event.preventDefault();
      select(Object.fromEntries(new FormData(event.target)), { push: true });
    } }, prompt, scores, way, h("button", { class: "primary", type: "submit" }, "Patch"));
    const told = h("p", { class: "formula" });
    const element = h("div", {}, source.live ? form : h("p", { class: "fields" }, way), told, map.element);

    async function update(current) {
      const { against, answer = "", other = "", direction = "" } = selected();
      way.value = direction;
      if (document.activeElement !== prompt) prompt.value = against ?? "";
      [scores[0].value, scores[1].value] = [answer, other];
      map.element.hidden = true;
      told.textContent = against ? "" : "No other prompt yet. Good pairs differ in one word: “The capital of France is”, “The capital of Italy is”.";
      if (!against) return;
      const params = { against, ...(answer ? { answer } : {}), ...(other ? { other } : {}), ...(direction ? { direction } : {}) };
      const { facts, arrays } = await source.view(subject(), "patch", params);
      if (!current()) return;
      shares = arrays.restored;
      pieces = [facts.source_pieces, facts.pieces];
      told.textContent = `Score of ${facts.answer.shown} minus that of ${facts.other.shown}: ${decimal(direction ? facts.source : facts.target, 2)} here, ${decimal(direction ? facts.target : facts.source, 2)} after “${against}”. ${direction ? "Its run gets single values of this one: which of them are needed for its answer." : "This run gets single values of its run: which of them are enough for its answer."}`;
      map.element.hidden = false;
      map.update();
    }

    return { element, update };
  },
};
