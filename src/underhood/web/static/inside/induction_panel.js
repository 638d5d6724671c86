// Induction: heads that look from a token to what came after its earlier occurrence, found on repeated random tokens.

import { h } from "../dom.js";
import { decimal } from "../numbers.js";
import { noAttention } from "./attention_panel.js";
import { magnitude } from "./colours.js";
import { heatMap } from "./heat.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";

const KINDS = [["induction", "the token after the earlier occurrence"], ["previous", "the token before"], ["duplicate", "the earlier occurrence"]];

export const inductionPanel = {
  id: "induction",
  title: "Induction heads",
  words: "Random tokens, read twice: in the second half, the mean weight of every head on the token that followed the same token in the first half. The prompt plays no part here.",
  lacks: noAttention,
  needs: ["layer", "head", "model"],
  open({ source, subject }) {
    let view = null;
    let kind = 0;
    const scores = () => view.arrays[KINDS[kind][0]];
    const layerOf = (row) => view.facts.layers[view.facts.layers.length - 1 - row];
    const score = (row, column) => pick(scores(), view.facts.layers.length - 1 - row)[column];
    const map = heatMap({
      name: "Induction scores by head", rows: 0, columns: 0, width: 22, height: 16, fit: true, widest: 56, most: 540, head: 40, top: 24,
      rowName: (row) => String(layerOf(row)), columnName: String,
      paint: (row, column) => (view ? magnitude(score(row, column)) : null),
      read: (row, column) => (view ? `Layer ${layerOf(row)}, head ${column}: ${decimal(score(row, column), 3)} on ${KINDS[kind][1]}` : ""),
      selected: () => ({ row: view ? Math.max(0, view.facts.layers.length - 1 - Math.max(0, view.facts.layers.indexOf(selected().layer))) : 0, column: selected().head }),
      onPick: (row, column) => select({ layer: layerOf(row), head: column }),
    });
    const choice = h("label", { class: "field-inline" }, "Weight on ", h("select", { onchange: (event) => {
      kind = event.target.selectedIndex;
      map.update();
    } }, KINDS.map(([, words]) => h("option", {}, words))));
    const told = h("p", { class: "formula" });
    const element = h("div", {}, choice, map.element, told);

    async function update(current) {
      const got = await source.view(subject(), "induction");
      if (!current()) return;
      view = got;
      told.textContent = `Loss of the first half ${decimal(view.facts.first_loss, 2)} nats, of the second ${decimal(view.facts.second_loss, 2)}. Strongest: ${view.facts.strongest.map(([layer, head, value]) => `layer ${layer} head ${head} (${decimal(value, 2)})`).join(", ")}.`;
      map.update({ rows: view.facts.layers.length, columns: scores().shape[1] });
    }

    return { element, update };
  },
};
