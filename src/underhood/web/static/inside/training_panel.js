// Through training: the same prompt at every checkpoint. The slider moves the whole page; the curve shows what the model
// makes of the selected token at each of them.

import { h } from "../dom.js";
import { chance } from "../numbers.js";
import { lineChart } from "./line.js";
import { select, selected } from "./selection.js";

export const trainingPanel = {
  id: "training",
  title: "Through training",
  words: "The probability of the prompt's next token (of the likeliest one, at the end), checkpoint by checkpoint. Move the slider, and every panel shows that checkpoint.",
  needs: ["token", "model"],
  lacks: () => null,
  open({ source, subject, models, overview }) {
    const slider = h("input", { type: "range", min: 0, max: models.length - 1, step: 1, "aria-label": "Checkpoint", onchange: () => select({ model: models[slider.value].id }), oninput: () => (name.textContent = models[slider.value].id) });
    const name = h("output", {});
    const chart = lineChart("Probability through training", "checkpoint");
    const told = h("p", { class: "small soft", role: "status" });
    const element = h("div", {}, h("label", { class: "slider scrubber" }, h("span", {}, "Checkpoint"), slider, name), chart.element, told);

    async function update(current) {
      const own = subject();
      const index = models.findIndex(({ id }) => id === own.model);
      [slider.value, name.textContent] = [index, own.model];
      if (models.length < 2) {
        told.textContent = "There is a single model here: checkpoints come from a run of underhood build.";
        chart.element.hidden = true;
        return;
      }
      const { token } = selected();
      const { tokens } = overview();
      const shares = models.map(() => NaN);
      const words = models.map(() => "");
      for (const at of [index, ...models.keys()]) {
        if (!Number.isNaN(shares[at])) continue;
        const { facts } = await source.view({ model: models[at].id, prompt: own.prompt }, "overview", {}, { later: true });
        if (!current()) return;
        const next = facts.tokens[token + 1];
        const best = facts.next[0];
        shares[at] = next ? Math.exp(next.logprob) : Math.exp(best.logprob);
        words[at] = next ? `${next.shown} ${chance(shares[at])}` : `${best.shown} ${chance(shares[at])}`;
        chart.update(shares, { name: (each) => models[each].id, low: 0, at: index, read: (each) => `${models[each].id}: ${words[each] || "not worked out yet"}`, onPick: (each) => select({ model: models[each].id }) });
      }
      told.textContent = `After ${tokens[token].shown}; ${models.length} checkpoints.`;
    }

    return { element, update };
  },
};
