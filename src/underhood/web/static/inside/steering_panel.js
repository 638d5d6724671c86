// Steering: the direction between two texts, added to the residual stream while the model writes on.

import { h } from "../dom.js";
import { decimal, plain } from "../numbers.js";
import { signed } from "./colours.js";
import { heatMap } from "./heat.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";
import { NotHere } from "./source.js";

const START = 1;
const MOST = 12;

export const steeringPanel = {
  id: "steering",
  title: "Steering",
  words: "Two texts that differ in one respect: the difference of their residual streams before the selected layer, at their last tokens, is a direction. Added to every token while the model writes, it leads the text toward the first one; a negative strength leads the other way.",
  needs: ["token", "layer", "toward", "away", "strength", "model"],
  open({ source, subject, overview }) {
    const { layers, tokens } = overview();
    const given = source.start.steering ?? {};
    let cosine = null;
    let largest = 1;
    const fields = [["toward", "Text to lead toward"], ["away", "Text to lead away from"]].map(([name, label]) => h("input", { type: "text", name, "aria-label": label, placeholder: label, autocomplete: "off" }));
    const middle = h("button", { type: "button", class: "quiet", onclick: () => select({ layer: Math.floor(layers / 2) }) }, `Go to layer ${Math.floor(layers / 2)}, the middle`);
    const form = h("form", { class: "fields", onsubmit: (event) => {
      event.preventDefault();
      select(Object.fromEntries(fields.map(({ name, value }) => [name, value])), { push: true });
    } }, fields, h("button", { class: "primary", type: "submit" }, "Steer"), middle);
    const output = h("output", { class: "number" });
    const slider = h("input", { type: "range", min: -MOST, max: MOST, step: 0.5, "aria-label": "Strength", oninput: () => (output.textContent = plain(Number(slider.value))), onchange: () => select({ strength: slider.value }) });
    const told = h("p", { class: "formula", role: "status" });
    const texts = ["As it is", "With the vector"].map((name) => ({ name, text: h("p", { class: "continuation" }) }));
    const map = heatMap({
      name: "Cosine with the vector by layer and token", rows: layers + 1, columns: tokens.length, width: 14, height: 14, fit: true, widest: 128, most: 560, head: 40, top: 84,
      rowName: (row) => (row === 0 ? "end" : String(layers - row)), columnName: (column) => tokens[column].shown,
      paint: (row, column) => (cosine ? signed(pick(cosine, layers - row)[column] / largest) : null),
      read: (row, column) => (cosine ? `Layer ${row === 0 ? "end" : layers - row}, ${tokens[column].shown} (${column}): cosine ${decimal(pick(cosine, layers - row)[column], 2)}` : ""),
      selected: () => ({ row: layers - selected().layer, column: selected().token }),
      onPick: (row, column) => select({ token: column, layer: Math.min(layers - row, layers - 1) }),
    });
    const note = h("p", { class: "small soft" });
    const shown = h("div", { hidden: true }, h("label", { class: "slider scrubber" }, h("span", {}, "Strength"), slider, output), told,
      h("div", { class: "two-sides continuations" }, texts.map(({ name, text }) => h("div", {}, h("h3", {}, name), text))),
      h("h3", { class: "below" }, "Where the prompt points that way"), note, map.element);
    const element = h("div", {}, source.live ? form : null, shown);

    async function update(current) {
      const { layer, toward = given.toward, away = given.away } = selected();
      const strength = Number(selected().strength ?? given.strength ?? START);
      if (!source.live && !given.toward) throw new NotHere("This file holds no steered text: --toward TEXT and --against TEXT put one in, and the served page steers with any.");
      middle.hidden = layer === Math.floor(layers / 2);
      for (const [field, value] of [[fields[0], toward], [fields[1], away]]) if (document.activeElement !== field) field.value = value ?? "";
      slider.disabled = !source.live;
      [slider.value, output.textContent] = [strength, plain(strength)];
      shown.hidden = !toward || !away;
      if (shown.hidden) throw new NotHere("No texts yet. Good pairs differ in one respect: “I love this”, “I hate this”. The middle layers steer best.");
      told.textContent = "Writing…";
      const { facts, arrays } = await source.view(subject(), "steering", { toward, away, layer, strength }).catch((error) => {
        shown.hidden = true;
        throw error;
      });
      if (!current()) return;
      ({ cosine } = arrays);
      largest = Math.max(...cosine.data.map(Math.abs)) || 1;
      note.textContent = `The cosine between the vector and each token's residual stream: blue points toward the first text, orange toward the second; the strongest colour is ${decimal(largest, 2)}.`;
      told.textContent = `Toward “${toward}”, away from “${away}”: a vector of length ${decimal(facts.norm, 1)} before layer ${layer}, where a token's stream has length ${decimal(facts.stream_norm, 1)}.`;
      const shared = sharedStart(facts.plain, facts.steered);
      texts[0].text.replaceChildren(written(facts.plain));
      texts[1].text.replaceChildren(facts.steered.slice(0, shared), h("mark", {}, facts.steered.slice(shared)));
      map.update();
    }

    return { element, update };
  },
};

const written = (text) => text || h("span", { class: "soft" }, "It ends here.");

function sharedStart(first, second) {
  let length = 0;
  while (length < Math.min(first.length, second.length) && first[length] === second[length]) length += 1;
  return length;
}
