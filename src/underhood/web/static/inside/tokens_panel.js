// Tokens: how likely each was to the model that read those before it, and the merges of bytes that made them.

import { h } from "../dom.js";
import { whole } from "../numbers.js";
import { facts as factsOf, tokenStrip } from "../tokens.js";
import { select } from "./selection.js";

export const tokensPanel = {
  id: "tokens",
  title: "Tokens",
  words: "The prompt as the model reads it. The colour is the probability that the model gave each token after those before it.",
  needs: ["model"],
  open({ source, subject, overview }) {
    const strip = h("div", {});
    const slider = h("input", { type: "range", min: 0, step: 1, "aria-label": "Merges" });
    const told = h("p", { class: "small number", role: "status" });
    const pieces = h("div", { class: "strip merging" });
    const note = h("p", { class: "small soft", hidden: true });
    const merging = h("div", { hidden: true }, h("h3", { class: "below" }, "How bytes became tokens"), slider, told, pieces);
    let facts = null;
    let lengths = null;

    function show() {
      const at = Number(slider.value);
      const first = facts.counts.slice(0, at).reduce((sum, count) => sum + count, 0);
      const decoder = new TextDecoder();
      let start = 0;
      pieces.replaceChildren(...Array.from({ length: facts.counts[at] }, (_, index) => {
        const bytes = Uint8Array.from(facts.text.slice(start, start + lengths[first + index]));
        start += bytes.length;
        return [h("span", { class: `token l${index % 2}` }, visible(decoder.decode(bytes), bytes)), h("wbr", {})];
      }).flat());
      const step = facts.steps[at - 1];
      const words = at === 0 ? `${whole(facts.counts[0])} bytes; nothing is merged yet` : `merge ${at} of ${facts.steps.length}: ${step.left} + ${step.right}, number ${whole(step.rank + 1)} of the list; ${whole(facts.counts[at])} pieces`;
      told.textContent = words;
      slider.setAttribute("aria-valuetext", words);
    }

    slider.addEventListener("input", show);
    const element = h("div", {}, strip, merging, note);

    async function update(current) {
      const { tokens } = overview();
      const rest = tokens.map((token) => (token.logprob === null ? { ...token, logprob: 0, first: true } : token));
      const view = tokenStrip(rest.slice(1).length ? rest.slice(1) : rest, { name: "Tokens of the prompt by probability", onPick: (index) => select({ token: rest.length > 1 ? index + 1 : index }) });
      strip.replaceChildren(h("p", { class: "small soft" }, `The first token, ${factsOf({ ...rest[0], logprob: 0 }).split("  ·  ").slice(0, 2).join(", ")}, follows nothing and has no probability.`), view);
      try {
        const got = await source.view(subject(), "merges");
        if (!current()) return;
        [facts, lengths] = [got.facts, got.arrays.lengths.data];
        slider.max = facts.steps.length;
        slider.value = facts.steps.length;
        merging.hidden = false;
        note.hidden = true;
        show();
      } catch (error) {
        if (!error.message) throw error;
        note.textContent = error.message;
        note.hidden = false;
        merging.hidden = true;
      }
    }

    return { element, update };
  },
};

// Bytes as text: blanks visible, what is not a whole character as its numbers.
function visible(text, bytes) {
  if (text.includes("\ufffd")) return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join(" ");
  return text.replaceAll(" ", "·").replaceAll("\n", "⏎").replaceAll("\t", "⇥");
}
