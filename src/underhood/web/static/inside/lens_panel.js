// The lens: what each layer would say, were it the last one; below, how the model's final choice rises through the
// layers.

import { h } from "../dom.js";
import { chance, decimal, whole } from "../numbers.js";
import { magnitude } from "./colours.js";
import { heatMap } from "./heat.js";
import { lineChart } from "./line.js";
import { select, selected } from "./selection.js";

export const CHUNK = 32;

// The lens of all tokens, chunk by chunk: `part(position)` is null until its chunk has come.
export function lensOf(source, subject, count, view = "lens") {
  const chunks = [];
  const bounds = (number) => ({ start: number * CHUNK, stop: Math.min((number + 1) * CHUNK, count) });

  async function load(number, options) {
    chunks[number] ??= await source.view(subject, view, bounds(number), options);
    return chunks[number];
  }

  function at(layer, position) {
    const chunk = chunks[Math.floor(position / CHUNK)];
    if (!chunk) return null;
    const { ids, probabilities, ranks, entropy } = chunk.arrays;
    const [, positions, k] = ids.shape;
    const slot = layer * positions + (position % CHUNK);
    const tokens = Array.from({ length: k }, (_, rank) => ({
      piece: chunk.facts.pieces[ids.data[slot * k + rank]], share: probabilities.data[slot * k + rank] }));
    return { tokens, rank: ranks.data[slot], bits: entropy.data[slot] };
  }

  return { at, load, chunks: Math.ceil(count / CHUNK), chunkOf: (position) => Math.floor(position / CHUNK) };
}

export const layerName = (row, layers) => (row === layers ? "end" : String(row));

// A heat map of the likeliest tokens, the end of the model on top; `lens()` is null as long as there is none.
export function lensGrid(name, layers, tokens, lens) {
  return heatMap({
    name, rows: layers + 1, columns: tokens.length, width: 72, height: 20, fit: true, widest: 144, most: 700,
    rowName: (row) => layerName(layers - row, layers),
    columnName: (column) => tokens[column].shown,
    paint: (row, column) => (lens()?.at(layers - row, column) ? magnitude(lens().at(layers - row, column).tokens[0].share) : null),
    text: (row, column) => lens().at(layers - row, column).tokens[0].piece,
    read(row, column) {
      const cell = lens()?.at(layers - row, column);
      if (!cell) return "";
      const words = cell.tokens.map(({ piece, share }) => `${piece} ${chance(share)}`).join("   ");
      return `Layer ${layerName(layers - row, layers)}, after ${tokens[column].shown}:   ${words}   ·   ${decimal(cell.bits, 1)} bits, final choice at rank ${whole(cell.rank)}`;
    },
    selected: () => ({ row: layers - Math.min(selected().layer, layers), column: selected().token }),
    onPick: (row, column) => select({ token: column, layer: Math.min(layers - row, layers - 1) }),
  });
}

export const lensPanel = {
  id: "lens",
  title: "Lens",
  words: "The residual stream before each layer, read by the model's own end: the likeliest next token, as if the layers above were left out. The colour is its probability.",
  needs: ["token", "layer", "model"],
  open({ source, subject, overview }) {
    const { layers, tokens } = overview();
    let lens = null;
    let of = null;
    const map = lensGrid("Likeliest next token by layer and position", layers, tokens, () => lens);
    const chart = lineChart("Rank of the final choice", "layer");
    const element = h("div", {}, map.element, h("h3", { class: "below" }, "How the final choice rises"), chart.element);

    async function update(current) {
      const now = subject();
      if (of !== now) [lens, of] = [lensOf(source, now, tokens.length), now];
      const mine = lens;
      const { token } = selected();
      await mine.load(mine.chunkOf(token));
      if (!current()) return;
      map.update();
      const rows = Array.from({ length: layers + 1 }, (_, layer) => mine.at(layer, token));
      chart.update(rows.map(({ rank }) => rank), {
        log: true, inverted: true, name: (at) => layerName(at, layers), at: selected().layer,
        read: (at) => `layer ${layerName(at, layers)}: ${mine.at(layers, token).tokens[0].piece} at rank ${whole(rows[at].rank)}`,
        onPick: (at) => select({ layer: Math.min(at, layers - 1) }),
      });
      for (let number = 0; number < mine.chunks; number++) {
        await mine.load(number, { later: true });
        if (!current()) return;
        map.update({}, { follow: false });
      }
    }

    return { element, update };
  },
};
