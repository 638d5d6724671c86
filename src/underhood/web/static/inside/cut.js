// Ablation of a head, of a weight, or of a token that the head sees: the log-probabilities of the likeliest and of chosen
// next tokens, before and after.

import { h } from "../dom.js";
import { chance, decimal } from "../numbers.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";
import { NotHere } from "./source.js";

const CUTS = ["", "zero", "mean", "edge", "key"];
const OF_EDGES = new Set(["edge", "key"]);

export function cutView({ source, subject, overview }) {
  const { tokens } = overview();
  const buttons = CUTS.map((what) => h("button", { type: "button", class: "choice", data: { cut: what || "nothing" }, onclick: () => select({ cut: what }) }, what || "nothing"));
  const choices = h("div", { class: "choices", role: "group", "aria-label": "What is taken away" }, buttons);
  const measured = h("select", { onchange: (event) => select({ measured: event.target.value }) },
    h("option", { value: "" }, "the selected token"), h("option", { value: "end" }, "the last token"));
  const after = h("label", { class: "field-inline" }, "Prediction after ", measured);
  const field = h("input", { type: "text", name: "words", "aria-label": "Next tokens to follow, with bars between them", placeholder: " Paris| London" });
  const form = h("form", { class: "fields", onsubmit: (event) => {
    event.preventDefault();
    select({ words: field.value });
  } }, after, source.live ? [field, h("button", { class: "quiet", type: "submit" }, "Follow")] : null);
  const told = h("p", { class: "formula", role: "status" });
  const rows = h("tbody", {});
  const table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Next tokens before and after" }, h("table", { class: "grid changes" },
    h("thead", {}, h("tr", {}, ["Next token", "Before", "After", "Change"].map((name, number) => h("th", { scope: "col", class: number ? "number" : null }, name)))), rows));
  const note = h("p", { class: "small soft" }, "Natural logarithms of probabilities, with the probabilities beside them. A mean keeps what the head writes for every token alike, zero does not; where a weight is masked, the others of its row grow so that they sum to 1.");
  const element = h("div", { class: "cut" }, h("h3", { class: "below" }, "Without it"), h("p", { class: "small soft panel-words" }, "Take the head away, or only a part of what it sees, and the model is run again."), choices, form, told, table, note);

  // What each choice is called, and why it can't be made.
  function offered(token, key) {
    const [query, seen] = [tokens[token].shown, tokens[key].shown];
    return [["nothing"], ["the head, set to zero"], ["the head, set to its mean"],
      [`the weight ${query} → ${seen}`, token === 0 ? "The first token sees only itself." : undefined],
      [`${seen} for all later tokens`, key === tokens.length - 1 ? "No token comes after it." : undefined]];
  }

  async function update(current, head, key) {
    const { layer, token, measured: where = "", words = "" } = selected();
    const cut = CUTS.includes(selected().cut) ? selected().cut : "";
    const names = offered(token, key);
    buttons.forEach((button, number) => {
      [button.textContent, button.title] = [names[number][0], names[number][1] ?? ""];
      button.setAttribute("aria-pressed", String(CUTS[number] === cut));
      button.disabled = Boolean(names[number][1]) && CUTS[number] !== cut;
    });
    measured.value = where;
    if (document.activeElement !== field) field.value = words;
    const [name, why] = names[CUTS.indexOf(cut)];
    [form, table, note].forEach((each) => (each.hidden = !cut || Boolean(why)));
    told.textContent = why && cut ? why : "";
    if (!cut || why) return;
    const position = where === "end" ? tokens.length - 1 : token;
    const params = { layer, head, position, what: cut, ...(OF_EDGES.has(cut) ? { key } : {}), ...(cut === "edge" ? { query: token } : {}), ...(words ? { words } : {}) };
    if (cut === "key" && position <= key) {
      table.hidden = note.hidden = true;
      told.textContent = `The prediction after ${tokens[position].shown} (${position}) does not change: only tokens after ${tokens[key].shown} (${key}) are kept from seeing it. Choose the last token above.`;
      return;
    }
    try {
      const { facts, arrays } = await source.view(subject(), "cut", params);
      if (!current()) return;
      fill(facts, arrays.logprobs);
      told.textContent = `Without ${name} (layer ${layer}, head ${head}), the prediction after ${tokens[position].shown} (${position}) changes by ${decimal(facts.divergence, 3)} bits (divergence).`;
    } catch (error) {
      if (!(error instanceof NotHere) || !current()) throw error;
      table.hidden = note.hidden = true;
      told.textContent = error.message;
    }
  }

  function fill(facts, logprobs) {
    const [before, later] = [pick(logprobs, 0), pick(logprobs, 1)];
    rows.replaceChildren(...facts.tokens.map(({ shown }, at) => {
      const change = later[at] - before[at];
      const sign = change >= 0.005 ? "+" : "";
      return h("tr", {}, h("th", { scope: "row", class: "plain-head" }, h("code", {}, shown), at < facts.chosen ? h("small", {}, " chosen") : ""),
        [before, later].map((each) => h("td", { class: "number" }, decimal(each[at], 2), h("small", {}, ` ${chance(Math.exp(each[at]))}`))),
        h("td", { class: `number ${change < -0.005 ? "fell" : change > 0.005 ? "rose" : ""}` }, sign + decimal(change, 2)));
    }));
  }

  return { element, update };
}
