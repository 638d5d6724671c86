// Experts: which experts of a mixture each token used, layer by layer.

import { h } from "../dom.js";
import { chance } from "../numbers.js";
import { magnitude } from "./colours.js";
import { heatMap } from "./heat.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";

export const expertsPanel = {
  id: "experts",
  title: "Experts",
  words: "The router's probability of each expert for the prompt's tokens at the selected layer; chosen experts carry their rank.",
  lacks: (overview) => (overview.experts ? null : "This model has no experts: each of its feed-forwards sees every token."),
  needs: ["token", "layer", "model"],
  open({ source, subject, overview }) {
    const { tokens } = overview();
    let view = null;
    let at = 0;
    const rank = (token, expert) => pick(view.arrays.chosen, at, token).indexOf(expert);
    const share = (token, expert) => pick(view.arrays.shares, at, token)[expert];
    const map = heatMap({
      name: "Experts by token", rows: 0, columns: tokens.length, width: 40, height: 20, fit: true, head: 40, top: 84,
      rowName: String, columnName: (column) => tokens[column].shown,
      paint: (row, column) => (view ? magnitude(share(column, row)) : null),
      text: (row, column) => (rank(column, row) < 0 ? "" : String(rank(column, row) + 1)),
      read: (row, column) => (view ? `${tokens[column].shown}: expert ${row}, ${chance(share(column, row))}${rank(column, row) < 0 ? "" : ", chosen"}` : ""),
      selected: () => ({ row: view ? pick(view.arrays.chosen, at, selected().token)[0] : 0, column: selected().token }),
      onPick: (_, column) => select({ token: column }),
    });
    const title = h("h3", {});
    const element = h("div", {}, title, map.element);

    async function update(current) {
      view = await source.view(subject(), "experts");
      if (!current()) return;
      const layers = view.facts.layers;
      at = Math.max(0, layers.indexOf(selected().layer));
      title.textContent = `Layer ${layers[at]}`;
      map.update({ rows: view.arrays.shares.shape[2] });
    }

    return { element, update };
  },
};
