// Attention: all heads at a glance, the heads of a layer as small pictures, one head in full, and the weights of the
// selected token on the tokens themselves.

import { h } from "../dom.js";
import { chance, decimal } from "../numbers.js";
import { magnitude, onTheme } from "./colours.js";
import { cutView } from "./cut.js";
import { heatMap } from "./heat.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";
import { NotHere } from "./source.js";
import { whyView } from "./why.js";

const MEASURES = [["on the token before", 1], ["on itself", 1], ["on the first token", 1], ["tokens looked at", null]];

export const attends = (overview) => overview.heads.some((count) => count > 0);
export const noAttention = (overview) => (attends(overview) ? null : `No layer of this model attends: its mixers are ${[...new Set(overview.mixers)].join(" and ")}.`);

export const attentionPanel = {
  id: "attention",
  title: "Attention",
  words: "Where the heads look. First all heads, each by a number of its pattern over the prompt; then the patterns of the selected layer; then one head, row by row: what each token takes from those before it; click a weight, and see why it is there and what the prediction would be without it.",
  lacks: noAttention,
  needs: ["token", "layer", "head", "key", "cut", "measured", "words", "model"],
  open({ source, subject, overview, line }) {
    const { layers, tokens, heads, mixers, windows } = overview();
    const most = Math.max(...heads);
    let measure = 0;
    let measures = null;
    let full = null;
    const value = (layer, head) => pick(measures, layer, head)[measure];
    const top = () => (measure === 3 ? tokens.length : 1);
    const grid = heatMap({
      name: "Heads", rows: layers, columns: most, width: 22, height: 16, fit: true, widest: 44, most: 540, head: 40, top: 24,
      rowName: (row) => String(layers - 1 - row), columnName: String,
      paint: (row, column) => (measures && column < heads[layers - 1 - row] ? magnitude(value(layers - 1 - row, column) / top()) : null),
      read: (row, column) => `Layer ${layers - 1 - row}, head ${column}: ${measures && heads[layers - 1 - row] ? MEASURES.map(([words], number) => `${decimal(pick(measures, layers - 1 - row, column)[number], 2)} ${words}`).join(", ") : "no attention"}`,
      selected: () => ({ row: layers - 1 - selected().layer, column: selected().head }),
      onPick: (row, column) => select({ layer: layers - 1 - row, head: column }),
    });
    const choice = h("label", { class: "field-inline" }, "Colour: weight ", h("select", { onchange: (event) => { measure = event.target.selectedIndex; grid.update(); } },
      MEASURES.map(([words]) => h("option", {}, words))));
    const small = thumbnails();
    const weight = (row, column) => (full && column <= row ? full[row * tokens.length + column] : NaN);
    const map = heatMap({
      name: "Pattern of the head", rows: tokens.length, columns: tokens.length, width: 14, height: 14, fit: true, widest: 22, most: 480, head: 84, top: 84,
      rowName: (row) => tokens[row].shown, columnName: (column) => tokens[column].shown,
      paint: (row, column) => (column <= row && full ? magnitude(Math.sqrt(weight(row, column))) : null),
      read: (row, column) => `${tokens[row].shown} (${row}) takes ${column <= row ? chance(weight(row, column) || 0) : "nothing"} from ${tokens[column].shown} (${column})`,
      selected: () => ({ row: selected().token, column: selected().key ?? selected().token }),
      onPick: (row, column) => select({ token: row, key: Math.min(column, row) }),
    });
    const title = h("h3", { class: "below" });
    const why = whyView({ source, subject, overview });
    const cut = cutView({ source, subject, overview });
    const element = h("div", {}, h("div", { class: "two-sides" }, h("div", {}, choice, grid.element), h("div", {}, small.element)), title, map.element, why.element, cut.element);

    async function update(current) {
      const now = subject();
      measures = (await source.view(now, "heads")).arrays.measures;
      if (!current()) return;
      const { layer, head, token } = selected();
      grid.update();
      if (!heads[layer]) {
        title.textContent = `Layer ${layer} does not attend: its mixer is ${mixers[layer]}.`;
        [map.element, why.element, cut.element, small.element].forEach((each) => (each.hidden = true));
        line.colour(null);
        return;
      }
      [map.element, why.element, cut.element, small.element].forEach((each) => (each.hidden = false));
      const at = Math.min(head, heads[layer] - 1);
      const { arrays: { weights }, facts: { factor } } = await source.view(now, "patterns", { layer });
      if (!current()) return;
      small.update(weights, layer, at);
      full = factor === 1 ? pick(weights, at) : (await source.view(now, "head", { layer, head: at })).arrays.weights.data;
      if (!current()) return;
      title.textContent = `Layer ${layer}, head ${at}${windows[layer] ? `, which looks at the last ${windows[layer]} tokens` : ""}`;
      map.update();
      line.colour(await rowOf(now, layer, at, token));
      const key = await why.update(current, at);
      if (current()) await cut.update(current, at, key);
    }

    // The exact weights of the selected token; a file has them for some tokens, and those of the picture for all.
    async function rowOf(now, layer, head, token) {
      try {
        return pick((await source.view(now, "row", { layer, position: token })).arrays.weights, head);
      } catch (error) {
        if (!(error instanceof NotHere)) throw error;
        return Array.from({ length: token + 1 }, (_, key) => weight(token, key));
      }
    }

    return { element, update };
  },
};

// The patterns of a layer's heads as small pictures.
function thumbnails() {
  const element = h("div", { class: "thumbnails", role: "group", "aria-label": "Heads of the layer" });
  let drawn = null;

  function update(weights, layer, head) {
    drawn = { weights, layer, head };
    const [count, size] = weights.shape;
    if (element.children.length !== count) {
      element.replaceChildren(...Array.from({ length: count }, (_, number) => h("button", { type: "button", class: "thumbnail", onclick: () => select({ head: number }) },
        h("canvas", { "aria-hidden": "true" }), h("span", {}, String(number)))));
    }
    for (let number = 0; number < count; number++) {
      const button = element.children[number];
      button.setAttribute("aria-label", `Head ${number} of layer ${layer}`);
      button.setAttribute("aria-pressed", String(number === head));
      const canvas = button.firstChild;
      canvas.width = canvas.height = size;
      const pen = canvas.getContext("2d");
      const pattern = pick(weights, number);
      for (let row = 0; row < size; row++) {
        for (let column = 0; column <= row; column++) {
          pen.fillStyle = magnitude(Math.sqrt(pattern[row * size + column])).fill;
          pen.fillRect(column, row, 1, 1);
        }
      }
    }
  }

  const forget = onTheme(() => (element.isConnected && drawn ? update(drawn.weights, drawn.layer, drawn.head) : element.isConnected || forget()));
  return { element, update };
}
