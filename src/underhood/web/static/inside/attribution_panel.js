// Attribution: which tokens count for a prediction, by several methods, each with the curve that judges it: the score
// while the tokens that it ranks first are replaced, beside random orders.

import { h } from "../dom.js";
import { decimal, whole } from "../numbers.js";
import { signed } from "./colours.js";
import { heatMap } from "./heat.js";
import { lineChart } from "./line.js";
import { tokenFields } from "./parts_panel.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";

export const attributionPanel = {
  id: "attribution",
  title: "Attribution",
  words: "How much each token counts for the next one after the selected token. The methods disagree; the curves below say which ranking to believe: a good one makes the score fall faster than random orders do.",
  needs: ["token", "answer", "other", "model"],
  open({ source, subject, overview }) {
    const { tokens } = overview();
    let view = null;
    let method = 0;
    const size = (row) => Math.max(...pick(view.arrays.values, row).map(Math.abs)) || 1;
    const map = heatMap({
      name: "Attribution by method and token", rows: 0, columns: 0, width: 22, height: 24, fit: true, widest: 64, head: 168, top: 84,
      rowName: (row) => view.facts.methods[row].name, columnName: (column) => tokens[column].shown,
      paint: (row, column) => (view ? signed(pick(view.arrays.values, row)[column] / size(row)) : null),
      read: (row, column) => (view ? `${view.facts.methods[row].name}, ${tokens[column].shown}: ${decimal(pick(view.arrays.values, row)[column], 3)}` : ""),
      selected: () => ({ row: method, column: view ? strongest() : 0 }),
      onPick: (row) => {
        method = row;
        show();
      },
    });
    const strongest = () => pick(view.arrays.values, method).reduce((best, value, at, all) => (Math.abs(value) > Math.abs(all[best]) ? at : best), 0);
    const told = h("p", { class: "formula" });
    const chart = lineChart("Score while tokens are replaced", "tokens replaced");
    const judged = h("p", { class: "small soft" });
    const element = h("div", {}, source.live ? tokenFields(["answer", "Score of"], ["other", "minus that of"]) : null, told, map.element, h("h3", { class: "below" }, "Deletion curve"), chart.element, judged);

    function show() {
      const { facts, arrays } = view;
      const chosen = facts.methods[method];
      map.update({ rows: facts.methods.length, columns: arrays.values.shape[1] });
      const [own, random] = [Array.from(pick(arrays.curves, method)), Array.from(arrays.random.data)];
      chart.update([own, random], { name: (at) => whole(facts.counts[at]), names: ["", "random"], at: own.length - 1,
        read: (at) => `${whole(facts.counts[at])} replaced: ${decimal(own[at], 2)}, in random order ${decimal(random[at], 2)}` });
      judged.textContent = `${chosen.name}: area ${decimal(chosen.area, 3)}, random orders ${decimal(facts.random_area, 3)} ± ${decimal(facts.random_deviation, 3)}; ${chosen.gain > 2 * facts.random_deviation ? "a better ranking than chance" : "not clearly better than chance"}.`
        + (chosen.error === null ? "" : ` Completeness error ${chosen.error.toExponential(0)}.`) + (chosen.baseline ? ` Baseline: ${chosen.baseline}.` : "");
    }

    async function update(current) {
      const { token, answer = "", other = "" } = selected();
      const got = await source.view(subject(), "attribution", { position: token, ...(answer ? { answer } : {}), ...(other ? { other } : {}) });
      if (!current()) return;
      view = got;
      told.textContent = `The ${view.facts.target} is ${decimal(view.facts.score, 2)}.`;
      show();
    }

    return { element, update };
  },
};
