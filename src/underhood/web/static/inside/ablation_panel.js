// Ablation: how the score of the next token changes when a head is silenced, for every head.

import { h } from "../dom.js";
import { decimal } from "../numbers.js";
import { noAttention } from "./attention_panel.js";
import { signed } from "./colours.js";
import { heatMap } from "./heat.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";

export const ablationPanel = {
  id: "ablation",
  title: "Ablation",
  words: "Every head by itself, set to its mean over the prompt (so that only what varies is lost) or to zero: what that does to the score of the likeliest next token after the selected one.",
  lacks: noAttention,
  needs: ["token", "layer", "head", "answer", "other", "model"],
  open({ source, subject, overview }) {
    const { layers, heads } = overview();
    let changes = null;
    let largest = 1;
    const change = (row, column) => pick(changes, layers - 1 - row)[column];
    const map = heatMap({
      name: "Change of the score by head", rows: layers, columns: Math.max(...heads), width: 22, height: 16, fit: true, widest: 56, most: 540, head: 40, top: 24,
      rowName: (row) => String(layers - 1 - row), columnName: String,
      paint: (row, column) => (changes && column < heads[layers - 1 - row] ? signed(change(row, column) / largest) : null),
      read: (row, column) => (changes ? `Without layer ${layers - 1 - row}, head ${column}: ${Number.isFinite(change(row, column)) ? decimal(change(row, column), 3) : "no attention"}` : ""),
      selected: () => ({ row: layers - 1 - selected().layer, column: selected().head }),
      onPick: (row, column) => select({ layer: layers - 1 - row, head: column }),
    });
    let mode = "mean";
    let again = () => {};
    const choice = source.live ? h("label", { class: "field-inline" }, "Heads set to ", h("select", { onchange: (event) => {
      mode = event.target.value;
      again(() => true);
    } }, h("option", { value: "mean" }, "their mean"), h("option", { value: "zero" }, "zero"))) : null;
    const told = h("p", { class: "formula" });
    const list = h("div", { class: "choices" });
    const element = h("div", {}, choice, told, list, map.element);

    async function update(current) {
      const { token, answer = "", other = "" } = selected();
      const { facts, arrays } = await source.view(subject(), "ablation", { position: token, ...(answer ? { answer } : {}), ...(other ? { other } : {}), ...(mode === "zero" ? { mode } : {}) });
      if (!current()) return;
      changes = arrays.changes;
      largest = Math.max(...changes.data.filter(Number.isFinite).map(Math.abs)) || 1;
      told.textContent = `The ${facts.target} is ${decimal(facts.score, 2)} with all heads. The largest changes:`;
      list.replaceChildren(...facts.largest.map(({ layer, head, change: by }) => h("button", { type: "button", class: "choice", onclick: () => select({ layer, head }) }, `layer ${layer} head ${head}  ${by > 0 ? "+" : ""}${decimal(by, 2)}`)));
      map.update();
    }

    again = update;
    return { element, update };
  },
};
