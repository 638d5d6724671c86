// Parts of a score: what the embedding and every sublayer add to the score of a token, as bars from the first layer up.

import { h } from "../dom.js";
import { decimal } from "../numbers.js";
import { select, selected } from "./selection.js";

const SHOWN = 12;

export const partsPanel = {
  id: "parts",
  title: "Parts of the score",
  words: "The last residual stream is a sum, and with the final norm's scale held the score of a token is one as well (direct logit attribution): what each part of the model adds to the score of the likeliest next token after the selected one.",
  needs: ["token", "answer", "other", "model"],
  open({ source, subject }) {
    const score = h("p", { class: "formula" });
    const bars = h("div", { class: "bars" });
    const note = h("p", { class: "small soft" });
    const all = h("label", { class: "field-inline" }, h("input", { type: "checkbox", onchange: () => fill() }), " All parts, in the order of the pass");
    const fields = source.live ? tokenFields(["answer", "Score of"], ["other", "minus that of"]) : null;
    const element = h("div", {}, fields, score, all, bars, note);
    let rows = [];

    function fill() {
      const everything = all.firstChild.checked;
      const largest = Math.max(...rows.map(({ value }) => Math.abs(value)), 1e-9);
      const chosen = everything ? rows : [...rows].sort((a, b) => Math.abs(b.value) - Math.abs(a.value)).slice(0, SHOWN);
      bars.replaceChildren(...chosen.map(({ name, value, layer }) => h("button", { type: "button", class: "signed-bar", "aria-label": `${name} ${decimal(value, 2)}`, onclick: () => layer !== null && select({ layer }) },
        h("span", { class: "name" }, name),
        h("span", { class: "axis", "aria-hidden": "true" }, h("span", { class: value < 0 ? "fill below" : "fill", style: { width: `${(50 * Math.abs(value)) / largest}%`, [value < 0 ? "right" : "left"]: "50%" } })),
        h("span", { class: "number" }, (value > 0 ? "+" : "") + decimal(value, 2)))));
    }

    async function update(current) {
      const { token, answer = "", other = "" } = selected();
      const params = { position: token, ...(answer ? { answer } : {}), ...(other ? { other } : {}) };
      const { facts, arrays } = await source.view(subject(), "parts", params);
      if (!current()) return;
      rows = facts.names.map((name, index) => ({ name: name.replace(".", " "), value: arrays.values.data[index], layer: name.includes(".") ? Number(name.split(".")[1]) : null }));
      const against = facts.against ? ` minus that of ${facts.against.shown}` : "";
      score.textContent = `Score of ${facts.token.shown}${against}: ${decimal(facts.score, 2)}${facts.constant ? `, of which ${decimal(facts.constant, 2)} is the norm's bias` : ""}`;
      note.textContent = `All ${rows.length} parts together miss the score by ${Math.abs(facts.error).toExponential(0)}.`;
      fill();
    }

    return { element, update };
  },
};

// Fields that name tokens; they take effect with Enter.
export function tokenFields(...fields) {
  return h("form", { class: "fields", onsubmit: (event) => {
    event.preventDefault();
    select(Object.fromEntries(new FormData(event.target)));
  } }, fields.map(([name, label]) => h("label", { class: "field-inline" }, `${label} `, h("input", { type: "text", name, value: selected()[name] ?? "", placeholder: name === "answer" ? "the likeliest" : "nothing", size: 12 }))),
  h("button", { class: "quiet", type: "submit" }, "Show"));
}
