// Patching: the residual stream of one token at one layer, taken from another prompt; where that brings the other
// prompt's answer back, the value carries the difference.

import { h } from "../dom.js";
import { decimal, percent } from "../numbers.js";
import { signed } from "./colours.js";
import { heatMap } from "./heat.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";

export const patchPanel = {
  id: "patching",
  title: "Patching",
  words: "Another prompt of as many tokens is run, and a single value of its residual stream put into this prompt's run. The colour is the share of the way from this prompt's answer to the other's that this value alone makes.",
  needs: ["token", "layer", "against", "answer", "other", "model"],
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
    const form = h("form", { class: "fields", onsubmit: (event) => {
      event.preventDefault();
      select(Object.fromEntries(new FormData(event.target)), { push: true });
    } }, prompt, scores, h("button", { class: "primary", type: "submit" }, "Patch"));
    const told = h("p", { class: "formula" });
    const element = h("div", {}, source.live ? form : null, told, map.element);

    async function update(current) {
      const { against, answer = "", other = "" } = selected();
      if (document.activeElement !== prompt) prompt.value = against ?? "";
      [scores[0].value, scores[1].value] = [answer, other];
      map.element.hidden = true;
      told.textContent = against ? "" : "No other prompt yet. Good pairs differ in one word: “The capital of France is”, “The capital of Italy is”.";
      if (!against) return;
      const params = { against, ...(answer ? { answer } : {}), ...(other ? { other } : {}) };
      const { facts, arrays } = await source.view(subject(), "patch", params);
      if (!current()) return;
      shares = arrays.restored;
      pieces = [facts.source_pieces, facts.pieces];
      told.textContent = `Score of ${facts.answer.shown} minus that of ${facts.other.shown}: ${decimal(facts.target, 2)} here, ${decimal(facts.source, 2)} after “${against}”.`;
      map.element.hidden = false;
      map.update();
    }

    return { element, update };
  },
};
