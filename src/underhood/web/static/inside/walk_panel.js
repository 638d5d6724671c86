// The forward walk: the model's own operations as a diagram; a click shows what one makes of the prompt: its formula,
// its shape, its values, and three of them worked out.

import { h } from "../dom.js";
import { decimal, whole } from "../numbers.js";
import { signed } from "./colours.js";
import { heatMap } from "./heat.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";
import { sums } from "./sums.js";

const SIDE_BY_SIDE = [["query", "key", "value"], ["query_norm", "key_norm"], ["query_rotary", "key_rotary"], ["gate", "up"]];
const NAMES = { embed: "embedding", position_embed: "positions", unembed: "unembedding", norm: "final norm", mixer_norm: "norm", feedforward_norm: "norm",
  mixer_post_norm: "norm after", feedforward_post_norm: "norm after", mixer_residual: "+ stream", feedforward_residual: "+ stream", units: "units",
  query_rotary: "turn query", key_rotary: "turn key", query_norm: "query norm", key_norm: "key norm" };
const CLIP = 0.99;

const shortName = (name) => name.split(".").slice(3).join(" ") || name.split(".").at(-1);
const label = (name) => NAMES[shortName(name)] ?? NAMES[name.split(".").slice(2).join(".")] ?? shortName(name);

export const walkPanel = {
  id: "walk",
  title: "Forward walk",
  words: "What the model computes, in order. Each box is an operation of its own code; click it for its formula and its numbers.",
  needs: ["token", "layer", "operation", "model"],
  open({ source, subject, overview }) {
    const { tokens } = overview();
    const diagram = h("div", { class: "diagram" });
    const facts = h("dl", { class: "facts" });
    const title = h("h3", { class: "below" });
    const worked = h("div", { class: "sums" });
    const details = h("div", { class: "details" });
    let operations = null;
    let values = null;
    let view = null;
    let scale = 1;
    const map = heatMap({
      name: "Values", rows: 0, columns: 0, width: 2, height: 14, fit: true, widest: 24, most: 380, head: 84, top: 44,
      rowName: (row) => tokens[values.shape[0] === 1 ? selected().token : row].shown,
      columnName: (column) => String(column * view.facts.columns_per_cell),
      paint: (row, column) => (values ? signed(pick(values, row)[column] / scale) : null),
      read: (row, column) => (values ? `${tokens[values.shape[0] === 1 ? selected().token : row].shown}, dimension ${column * view.facts.columns_per_cell}: ${decimal(pick(values, row)[column], 3)}` : ""),
      selected: () => ({ row: values?.shape[0] === 1 ? 0 : selected().token, column: Math.floor((view?.facts.examples[0]?.index ?? 0) / (view?.facts.columns_per_cell ?? 1)) }),
      onPick: (row) => values.shape[0] > 1 && select({ token: row }),
    });
    details.append(title, facts, worked, map.element);
    const element = h("div", {}, diagram, details);

    function chosen() {
      const { operation, layer } = selected();
      const wanted = operation?.replace(/^blocks\.\d+/, `blocks.${layer}`);
      return operations.find(({ name }) => name === wanted) ?? operations.find(({ name, weights }) => name.startsWith(`blocks.${layer}.`) && weights?.length === 2) ?? operations[0];
    }

    function box(operation, now) {
      return h("button", { type: "button", class: `operation ${kindOf(operation)}`, "aria-pressed": String(operation.name === now.name), title: operation.formula,
        onclick: () => select({ operation: operation.name }) }, h("span", {}, label(operation.name)), h("span", { class: "small number" }, whole(operation.outputs)));
    }

    function draw(now) {
      const { layer } = selected();
      const lane = (name, steps) => h("div", { class: "lane" }, h("span", { class: "lane-name soft small" }, name),
        h("div", { class: "steps" }, steps.map((group, index) => [index ? h("span", { class: "arrow", "aria-hidden": "true" }, "→") : null, h("div", { class: "together" }, group.map((operation) => box(operation, now)))])));
      const own = operations.filter((operation) => operation.layer === layer);
      const sublayers = [...new Set(own.map(({ sublayer }) => sublayer))];
      const last = Math.max(...operations.map((operation) => operation.layer ?? -1));
      const before = operations.findIndex((operation) => operation.layer !== null);
      diagram.replaceChildren(
        lane("start", grouped(operations.slice(0, before))),
        ...sublayers.map((name) => lane(`layer ${layer} of 0…${last}: ${name}`, grouped(own.filter(({ sublayer }) => sublayer === name)))),
        lane("end", grouped(operations.filter((operation, index) => operation.layer === null && index > before))));
    }

    async function update(current) {
      const now = subject();
      operations = (await source.view(now, "operations")).facts.operations;
      if (!current()) return;
      const operation = chosen();
      draw(operation);
      const { token } = selected();
      details.setAttribute("aria-busy", "true");
      view = null;
      values = null;
      title.textContent = `${operation.layer === null ? "" : `Layer ${operation.layer}, `}${label(operation.name)}`;
      facts.replaceChildren(...Object.entries({ Computes: operation.formula, Module: `${operation.name} (${operation.kind})`,
        "Per token": `${whole(operation.inputs)} numbers in, ${whole(operation.outputs)} out`, ...(operation.weights ? { Weights: operation.weights.map(whole).join(" × ") } : {}) })
        .map(([name, words]) => [h("dt", {}, name), h("dd", {}, words)]).flat());
      worked.replaceChildren();
      map.element.hidden = true;
      const got = await source.view(now, "operation", { name: operation.name, position: token, rows: source.live ? "all" : "one" });
      if (!current()) return;
      view = got;
      values = got.arrays.values;
      const sizes = Float32Array.from(values.data, Math.abs).sort();
      scale = sizes[Math.floor(CLIP * (sizes.length - 1))] || sizes.at(-1) || 1;
      worked.replaceChildren(sums(operation, got.facts, tokens, token));
      map.element.hidden = false;
      map.update({ rows: values.shape[0], columns: values.shape[1] });
      details.setAttribute("aria-busy", "false");
    }

    return { element, update };
  },
};

function kindOf({ name, sublayer }) {
  if (name.includes("norm")) return "norm";
  if (name.includes("embed")) return name === "unembed" ? "unembedding" : "embedding";
  return sublayer ?? "";
}

// Operations in order, those that work side by side together.
function grouped(operations) {
  const groups = [];
  for (const operation of operations) {
    const name = operation.name.split(".").at(-1);
    const team = SIDE_BY_SIDE.find((names) => names.includes(name));
    const last = groups.at(-1);
    if (team && last && team.includes(last[0].name.split(".").at(-1))) last.push(operation);
    else groups.push([operation]);
  }
  return groups;
}
