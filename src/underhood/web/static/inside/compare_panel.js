// Comparison: the same prompt in another model, stage or checkpoint, or another prompt in the same one: lenses side by
// side on one scale, and what the two find likeliest at the end.

import { Refused } from "../api.js";
import { h } from "../dom.js";
import { chance, decimal } from "../numbers.js";
import { magnitude } from "./colours.js";
import { heatMap } from "./heat.js";
import { lensOf } from "./lens_panel.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";
import { NotHere } from "./source.js";

export const comparePanel = {
  id: "compare",
  title: "Beside another",
  words: "The lens of this subject and of another one, on the same scale: choose another stage, checkpoint or model, or give another prompt.",
  needs: ["token", "layer", "beside", "against", "model"],
  open({ source, subject, models }) {
    const choice = h("select", { name: "beside", "aria-label": "Other model" }, h("option", { value: "" }, "this model"), models.map(({ id }) => h("option", { value: id }, id)));
    const prompt = h("input", { type: "text", name: "against", "aria-label": "Prompt beside", placeholder: "this prompt" });
    const form = h("form", { class: "fields", onsubmit: (event) => {
      event.preventDefault();
      select({ beside: choice.value, against: prompt.value }, { push: true });
    } }, choice, prompt, h("button", { class: "primary", type: "submit" }, "Compare"));
    choice.addEventListener("change", () => select({ beside: choice.value }, { push: true }));
    const told = h("p", { class: "formula" });
    const sides = h("div", { class: "two-sides" });
    const apart = h("div", {});
    const element = h("div", {}, form, told, sides, apart);

    async function update(current) {
      const { beside, against, token } = selected();
      choice.value = beside ?? "";
      if (document.activeElement !== prompt) prompt.value = against ?? "";
      const own = subject();
      if (!(beside && beside !== own.model) && !against) {
        sides.replaceChildren();
        apart.replaceChildren();
        told.textContent = models.length > 1 ? "Nothing beside it yet." : "This is the only model here. Give another prompt, or start with --beside MODEL.";
        return;
      }
      const other = { model: beside || own.model, prompt: against || own.prompt };
      const views = await Promise.all([own, other].map((each) => source.view(each, "overview")));
      if (!current()) return;
      const lenses = views.map(({ facts }, side) => lensOf(source, [own, other][side], facts.tokens.length));
      const ends = views.map(({ facts }) => facts.next.slice(0, 3).map(({ shown, logprob }) => `${shown} ${chance(Math.exp(logprob))}`).join("   "));
      told.textContent = `Next after the whole prompt: ${ends[0]}  beside  ${ends[1]}`;
      const maps = views.map(({ facts }, side) => lensMap(lenses[side], facts, side ? `${other.model}${against ? `: “${other.prompt}”` : ""}` : own.model));
      sides.replaceChildren(...maps.map(({ element: map, name }) => h("figure", {}, h("figcaption", {}, name), map)));
      for (const [side, map] of maps.entries()) {
        const count = views[side].facts.tokens.length;
        await lenses[side].load(lenses[side].chunkOf(Math.min(token, count - 1)));
        if (!current()) return;
        map.update();
      }
      for (const [side, map] of maps.entries()) {
        for (let number = 0; number < lenses[side].chunks; number++) await lenses[side].load(number, { later: true });
        if (!current()) return;
        map.update();
      }
      await showDifference(current, own, other, views[0].facts);
    }

    // How far the two are apart, where layers and tokens have their counterparts.
    async function showDifference(current, own, other, { layers, tokens }) {
      try {
        const { arrays } = await source.view(own, "difference", { beside: other.model, ...(other.prompt === own.prompt ? {} : { against: other.prompt }) });
        if (!current()) return;
        const map = differenceMap(arrays, layers, tokens);
        apart.replaceChildren(h("h3", { class: "below" }, "How far they are apart"), map.element);
        map.update();
      } catch (error) {
        if (!(error instanceof Refused || error instanceof NotHere)) throw error;
        if (current()) apart.replaceChildren(h("p", { class: "soft small" }, error.message));
      }
    }

    return { element, update };
  },
};

function differenceMap({ divergence, cosine }, layers, tokens) {
  const largest = Math.max(...divergence.data) || 1;
  const at = (array, row, column) => pick(array, layers - row)[column];
  return heatMap({
    name: "Divergence of the two lenses", rows: layers + 1, columns: tokens.length, width: 14, height: 14, fit: true, most: 520, head: 36, top: 60,
    rowName: (row) => (row ? String(layers - row) : "end"), columnName: (column) => tokens[column].shown,
    paint: (row, column) => magnitude(at(divergence, row, column) / largest),
    read: (row, column) => `Layer ${row ? layers - row : "end"}, after ${tokens[column].shown}: lenses ${decimal(at(divergence, row, column), 2)} bits apart, cosine of the streams ${decimal(at(cosine, row, column), 3)}`,
    selected: () => ({ row: layers - Math.min(selected().layer, layers), column: Math.min(selected().token, tokens.length - 1) }),
    onPick: (row, column) => select({ token: column, layer: Math.min(layers - row, layers - 1) }),
  });
}

function lensMap(lens, { layers, tokens }, name) {
  const cell = (row, column) => lens.at(layers - row, column);
  const map = heatMap({
    name: `Lens of ${name}`, rows: layers + 1, columns: tokens.length, width: 56, height: 18, fit: true, most: 620, head: 36, top: 60,
    rowName: (row) => (row ? String(layers - row) : "end"), columnName: (column) => tokens[column].shown,
    paint: (row, column) => (cell(row, column) ? magnitude(cell(row, column).tokens[0].share) : null),
    text: (row, column) => cell(row, column).tokens[0].piece,
    read: (row, column) => (cell(row, column) ? `Layer ${row ? layers - row : "end"}, after ${tokens[column].shown}: ${cell(row, column).tokens.slice(0, 3).map(({ piece, share }) => `${piece} ${chance(share)}`).join("   ")} · ${decimal(cell(row, column).bits, 1)} bits` : ""),
    selected: () => ({ row: layers - Math.min(selected().layer, layers), column: Math.min(selected().token, tokens.length - 1) }),
    onPick: (row, column) => select({ token: column, layer: Math.min(layers - row, layers - 1) }),
  });
  return { ...map, name };
}
