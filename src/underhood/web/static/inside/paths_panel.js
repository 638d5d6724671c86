// Paths: the residual stream of each token on its way through the layers, in the plane of the principal components; and
// how alike the layers are.

import { h, s } from "../dom.js";
import { decimal, percent } from "../numbers.js";
import { magnitude } from "./colours.js";
import { heatMap } from "./heat.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";

export const pathsPanel = {
  id: "paths",
  title: "Paths through the layers",
  words: "Every token's residual stream in the plane of the two principal components, normalised as the final norm does; the selected token's path is drawn strong, its start open, its end full. Beside it: how alike the streams before any two layers are (linear CKA over the prompt's tokens).",
  needs: ["token", "layer", "model"],
  open({ source, subject, overview }) {
    const { layers, tokens } = overview();
    let values = null;
    const plane = h("div", { class: "plane" });
    const told = h("p", { class: "heat-read" });
    const map = heatMap({
      name: "Similarity of layers", rows: layers + 1, columns: layers + 1, width: 8, height: 12, fit: true, widest: 30, most: 420, head: 40, top: 34,
      rowName: (row) => (row === layers ? "end" : String(row)), columnName: (column) => (column === layers ? "end" : String(column)),
      paint: (row, column) => (values ? magnitude(pick(values, row)[column]) : null),
      read: (row, column) => (values ? `Layers ${row} and ${column}: ${decimal(pick(values, row)[column], 2)}` : ""),
      selected: () => ({ row: selected().layer, column: Math.min(selected().layer + 1, layers) }),
      onPick: (row) => select({ layer: Math.min(row, layers - 1) }),
    });
    const element = h("div", { class: "two-sides" }, h("div", {}, plane, told), map.element);

    function draw({ facts, arrays }) {
      const { points } = arrays;
      const all = Array.from({ length: points.data.length / 2 }, (_, index) => [points.data[2 * index], points.data[2 * index + 1]]);
      const [low, high] = [0, 1].map((axis) => all.map((point) => point[axis])).reduce(([lows, highs], list) => [[...lows, Math.min(...list)], [...highs, Math.max(...list)]], [[], []]);
      const put = ([x, y]) => [4 + (92 * (x - low[0])) / (high[0] - low[0] || 1), 96 - (92 * (y - low[1])) / (high[1] - low[1] || 1)];
      const path = (token) => Array.from({ length: layers + 1 }, (_, layer) => put(Array.from(pick(points, token, layer))));
      const line = (route) => `M${route.map((point) => point.map((each) => each.toFixed(2)).join(" ")).join("L")}`;
      const { token, layer } = selected();
      const own = path(token);
      const picture = s("svg", { viewBox: "0 0 100 100", role: "img", "aria-label": `Path of ${tokens[token].shown} through ${layers} layers` },
        tokens.map((_, index) => (index === token ? null : s("path", { class: "faint", d: line(path(index)) }))),
        s("path", { class: "strong", d: line(own) }),
        s("circle", { class: "start", r: 1.6, cx: own[0][0], cy: own[0][1] }), s("circle", { class: "stop", r: 1.6, cx: own.at(-1)[0], cy: own.at(-1)[1] }),
        s("circle", { class: "at", r: 2.4, cx: own[layer][0], cy: own[layer][1] }));
      plane.replaceChildren(picture);
      const [x, y] = Array.from(pick(points, token, layer));
      told.textContent = `${tokens[token].shown} before layer ${layer}: (${decimal(x, 2)}, ${decimal(y, 2)}); the plane holds ${percent(facts.explained[0] + facts.explained[1])} of the variance.`;
    }

    async function update(current) {
      const got = await source.view(subject(), "paths");
      if (!current()) return;
      draw(got);
      const alike = await source.view(subject(), "similarity", {}, { later: true });
      if (!current()) return;
      values = alike.arrays.values;
      map.update();
    }

    return { element, update };
  },
};
