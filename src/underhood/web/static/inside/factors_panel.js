// Factors of neurons: groups of hidden units that are on together, and where in the prompt they are.

import { h } from "../dom.js";
import { decimal, percent } from "../numbers.js";
import { magnitude } from "./colours.js";
import { heatMap } from "./heat.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";

const START = 6;

export const factorsPanel = {
  id: "factors",
  title: "Factors of neurons",
  words: "The feed-forwards' hidden units over the prompt, factorised without negative numbers (NMF): groups of units that are on together. A factor that other random starts do not find again (agreement below about 0.9) means little.",
  needs: ["token", "model"],
  lacks: ({ tokens, units }) => (!units ? "This model has no hidden units that every token passes: its feed-forwards are experts." : tokens.length < 3 ? "The prompt is too short to be factorised." : null),
  open({ source, subject, overview }) {
    const { tokens } = overview();
    let view = null;
    let chosen = 0;
    let update = () => {};
    const most = Math.min(16, tokens.length - 1);
    const output = h("output", { class: "number" });
    const slider = h("input", { type: "range", min: 2, max: Math.max(2, most), step: 1, value: Math.min(START, most), "aria-label": "Number of factors", oninput: () => (output.textContent = slider.value), onchange: () => update(() => true) });
    const map = heatMap({
      name: "Factors by token", rows: 0, columns: tokens.length, width: 20, height: 22, fit: true, widest: 56, head: 96, top: 84,
      rowName: (row) => `${row} (${decimal(view.facts.agreement[row], 2)})`, columnName: (column) => tokens[column].shown,
      paint: (row, column) => (view ? magnitude(pick(view.arrays.strengths, column)[row]) : null),
      read: (row, column) => (view ? `Factor ${row}, ${tokens[column].shown}: ${decimal(pick(view.arrays.strengths, column)[row], 2)}; agreement between starts ${decimal(view.facts.agreement[row], 2)}` : ""),
      selected: () => ({ row: chosen, column: selected().token }),
      onPick: (row, column) => {
        chosen = row;
        if (column === selected().token) show();
        select({ token: column });
      },
    });
    const told = h("p", { class: "formula" });
    const element = h("div", {}, source.live ? h("label", { class: "slider" }, h("span", {}, "Factors"), slider, output) : null, map.element, told);

    function show() {
      chosen = Math.min(chosen, view.facts.agreement.length - 1);
      map.update({ rows: view.facts.agreement.length });
      told.textContent = `Factor ${chosen} is strongest at ${view.facts.tokens[chosen].filter(([, strength], number) => !number || strength >= 0.005).map(([at, strength]) => `${tokens[at].shown} ${decimal(strength, 2)}`).join(", ")}; its largest units: ${view.facts.units[chosen].map(([layer, unit]) => `layer ${layer} unit ${unit}`).join(", ")}. All together account for ${percent(view.facts.explained)} of the units' sum of squares.`;
    }

    update = async (current) => {
      output.textContent = slider.value;
      const got = await source.view(subject(), "factors", { count: Number(slider.value) });
      if (!current()) return;
      view = got;
      show();
    };

    return { element, update: (current) => update(current) };
  },
};
