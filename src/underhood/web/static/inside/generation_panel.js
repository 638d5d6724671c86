// Generation: the distribution of the next token with the settings that bend it, and a continuation in which every token
// can be exchanged for another: the text goes on from there.

import { h } from "../dom.js";
import { chance, plain } from "../numbers.js";
import { alternatives, tokenStrip } from "../tokens.js";
import { selected, select } from "./selection.js";

const SETTINGS = [["temperature", "Temperature", 0, 2, 0.05, 1], ["top_k", "Top-k (0: all)", 0, 100, 1, 0], ["top_p", "Top-p", 0.05, 1, 0.05, 1]];
const WRITE = 16;

export const generationPanel = {
  id: "generation",
  title: "What comes next",
  words: "The likeliest next tokens: outlined the model's own probability, filled that of drawing them with these settings. Click a token to add it, or let the model write; click a written token to exchange it.",
  needs: ["model", "extra"],
  lacks: () => (document.getElementById("payload") ? "Only the served page writes on: underhood inspect MODEL PROMPT." : null),
  open({ source, subject }) {
    const values = Object.fromEntries(SETTINGS.map(([name, , , , , start]) => [name, start]));
    let seed = 1;
    let written = [];
    let update = () => {};
    const sliders = SETTINGS.map(([name, label, min, max, step, start]) => {
      const output = h("output", { class: "number" }, plain(start));
      return h("label", { class: "slider" }, h("span", {}, label), h("input", { type: "range", min, max, step, value: start, "aria-label": label, oninput: (event) => {
        values[name] = Number(event.target.value);
        output.textContent = plain(values[name]);
        again();
      } }), output);
    });
    const list = h("ol", { class: "next", "aria-label": "Next tokens" });
    const text = h("div", { class: "written" });
    const write = h("button", { type: "button", class: "primary", onclick: () => go() }, `Write ${WRITE} tokens`);
    const back = h("button", { type: "button", class: "quiet", onclick: () => take([]) }, "Back to the prompt");
    const element = h("div", {}, h("div", { class: "sliders" }, sliders), h("div", { class: "two-sides" }, list, h("div", {}, h("p", { class: "row" }, write, back), text)));
    const ids = () => (selected().extra ?? "").split(",").filter(Boolean).map(Number);
    const take = (chosen) => select({ extra: chosen.join(",") }, { push: true });
    let timer = null;

    function again() {
      clearTimeout(timer);
      timer = setTimeout(() => update(() => true), 60);
    }

    async function go() {
      write.disabled = true;
      seed += 1;
      try {
        const { facts } = await source.view(subject(), "generation", { ...values, extra: ids().join(","), write: WRITE, seed });
        take(facts.tokens.map(({ id }) => id));
      } finally {
        write.disabled = false;
      }
    }

    update = async (current) => {
      const { facts } = await source.view(subject(), "generation", { ...values, extra: ids().join(","), seed: 1 });
      if (!current()) return;
      written = facts.tokens;
      const most = Math.max(...facts.next.map(({ logprob, drawn }) => Math.max(Math.exp(logprob), drawn)), 1e-9);
      list.replaceChildren(...facts.next.map((token) => {
        const own = Math.exp(token.logprob);
        return h("li", {}, h("button", { type: "button", onclick: () => take([...ids(), token.id]), "aria-label": `${token.shown}: ${chance(own)}, drawn with ${chance(token.drawn)}` }, h("code", {}, token.shown),
          h("span", { class: "axis", "aria-hidden": "true" }, h("i", { class: "own", style: { width: `${(100 * own) / most}%` } }), h("i", { class: "drawn", style: { width: `${(100 * token.drawn) / most}%` } })),
          h("span", { class: "number" }, chance(token.drawn))));
      }));
      back.disabled = !written.length;
      text.replaceChildren(written.length ? tokenStrip(written, { name: "What was written", onPick: (index, chip) => alternatives(written[index], chip, (other) => take([...ids().slice(0, index), other.id])) })
        : h("p", { class: "soft" }, "Nothing is written yet."));
    };

    return { element, update: (current) => update(current) };
  },
};
