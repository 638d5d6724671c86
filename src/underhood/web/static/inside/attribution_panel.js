// Attribution: which tokens count for a prediction, by several methods, each with the curves that judge it: the score
// while the tokens that it ranks first are replaced, and while they are put back, beside random orders.

import { h } from "../dom.js";
import { decimal, whole } from "../numbers.js";
import { signed } from "./colours.js";
import { heatMap } from "./heat.js";
import { lineChart } from "./line.js";
import { tokenFields } from "./parts_panel.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";

// The two curves of a method, and where the payload has them.
const deletion = {
  heading: "Deletion: lower is better", title: "Score while tokens are replaced", unit: "tokens replaced", done: "replaced",
  read: (method, { facts, arrays }, row) => ({ values: Array.from(pick(arrays.curves, row)), random: Array.from(arrays.random.data), area: method.area, gain: method.gain, chance: facts.random_area, deviation: facts.random_deviation }),
};
const insertion = {
  heading: "Insertion: higher is better", title: "Score while tokens are put back", unit: "tokens put back", done: "put back",
  read: (method, { facts, arrays }, row) => ({ values: Array.from(pick(arrays.insertion, row)), random: Array.from(arrays.insertion_random.data), area: method.insertion_area, gain: method.insertion_gain, chance: facts.insertion_random_area, deviation: facts.insertion_random_deviation }),
};

export const attributionPanel = {
  id: "attribution",
  title: "Attribution",
  words: "How much each token counts for the next one after the selected token. The methods disagree; the curves below say which ranking to believe. Deletion replaces the tokens, the highest ranked first: the score should fall faster than in random orders. Insertion begins with all replaced and puts them back: it should rise faster.",
  needs: ["token", "answer", "other", "model"],
  open({ source, subject, overview }) {
    const { tokens } = overview();
    let view = null;
    let method = 0;
    const size = (row) => Math.max(...pick(view.arrays.values, row).map(Math.abs)) || 1;
    const map = heatMap({
      name: "Attribution by method and token", rows: 0, columns: 0, width: 22, height: 24, fit: true, widest: 64, head: 156, top: 84,
      rowName: (row) => view.facts.methods[row].name.replace("gradient ×", "grad ×"), columnName: (column) => tokens[column].shown,
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
    const curves = [deletion, insertion].map((kind) => ({ ...kind, chart: lineChart(kind.title, kind.unit), judged: h("p", { class: "small soft" }) }));
    const about = h("p", { class: "small soft" });
    const element = h("div", {}, source.live ? tokenFields(["answer", "Score of"], ["other", "minus that of"]) : null, told, map.element, about,
      h("div", { class: "two-sides curves" }, curves.map(({ heading, chart, judged }) => h("div", {}, h("h3", { class: "below" }, heading), chart.element, judged))));

    function show() {
      const { facts, arrays } = view;
      const chosen = facts.methods[method];
      map.update({ rows: facts.methods.length, columns: arrays.values.shape[1] });
      about.textContent = `${chosen.name}.` + (chosen.error === null ? "" : ` Completeness error ${chosen.error.toExponential(0)}.`) + (chosen.baseline ? ` Baseline: ${chosen.baseline}.` : "") + ` In the curves ${facts.replacement} replaces tokens.`;
      for (const { chart, judged, done, read } of curves) {
        const { values, random, area, gain, chance, deviation } = read(chosen, view, method);
        chart.update([values, random], { name: (at) => whole(facts.counts[at]), names: ["", "random"], at: values.length - 1,
          read: (at) => `${whole(facts.counts[at])} ${done}: ${decimal(values[at], 2)}, in random order ${decimal(random[at], 2)}` });
        judged.textContent = `Area ${decimal(area, 3)}, random orders ${decimal(chance, 3)} ± ${decimal(deviation, 3)}: ${gain > 2 * deviation ? "a better ranking than chance" : "not clearly better than chance"}.`;
      }
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
