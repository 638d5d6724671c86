// Why this weight: query times key, dimension by dimension, for the selected token and the token that it looks at.

import { h } from "../dom.js";
import { chance, decimal } from "../numbers.js";
import { signed } from "./colours.js";
import { heatMap } from "./heat.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";

export function whyView({ source, subject, overview }) {
  const { tokens } = overview();
  let shown = null;
  let largest = 1;
  const names = ["query", "key", "q · k"];
  const number = (row, column) => [shown.query[column], shown.key[column], shown.query[column] * shown.key[column]][row];
  const sizes = [1, 1, 1];
  const map = heatMap({
    name: "Query times key by dimension", rows: 3, columns: 0, width: 8, height: 22, fit: true, widest: 18, most: 200, head: 52, top: 34,
    rowName: (row) => names[row], columnName: String,
    paint: (row, column) => (shown ? signed(number(row, column) / sizes[row]) : null),
    read: (row, column) => (shown ? `Dimension ${column}: ${decimal(shown.query[column], 3)} × ${decimal(shown.key[column], 3)} = ${decimal(number(2, column), 3)}` : ""),
    selected: () => ({ row: 2, column: largest }),
    onPick: (row, column) => {
      largest = column;
      map.update();
    },
  });
  const list = h("div", { class: "choices", role: "group", "aria-label": "Tokens that it weighs most" });
  const sum = h("p", { class: "formula" });
  const title = h("h3", { class: "below" }, "Why this weight");
  const element = h("div", { class: "why" }, title, list, sum, map.element);

  // Gives the token whose weight is explained.
  async function update(current, head) {
    const { layer, token, key } = selected();
    const params = { layer, head, position: token };
    let view = await source.view(subject(), "why", params);
    if (key !== undefined && !view.facts.keys.includes(key)) view = await source.view(subject(), "why", { ...params, key });
    if (!current()) return undefined;
    const { facts, arrays } = view;
    const chosen = Math.max(0, facts.keys.indexOf(key));
    const at = facts.keys[chosen];
    list.replaceChildren(...facts.keys.map((each, index) => h("button", { type: "button", class: "choice", "aria-pressed": String(index === chosen), onclick: () => select({ key: each }) },
      h("code", {}, tokens[each].shown), ` ${chance(arrays.weight.data[index])}`)));
    shown = { query: arrays.query.data, key: pick(arrays.key, chosen) };
    for (const row of [0, 1, 2]) sizes[row] = Math.max(...Array.from(shown.query, (_, column) => Math.abs(number(row, column)))) || 1;
    largest = shown.query.reduce((best, _, column) => (Math.abs(number(2, column)) > Math.abs(number(2, best)) ? column : best), 0);
    const cap = facts.softcap ? `, softly capped at ±${facts.softcap}` : "";
    sum.textContent = `${tokens[token].shown} looking at ${tokens[at].shown}: q · k = ${decimal(arrays.dot.data[chosen], 2)}, times ${decimal(facts.scale, 4)}${cap} = ${decimal(arrays.score.data[chosen], 2)}; softmax over the tokens that it sees: ${chance(arrays.weight.data[chosen])}.`;
    map.update({ columns: shown.query.length });
    return at;
  }

  return { element, update };
}
