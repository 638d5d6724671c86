// Through training: the same prompt at every checkpoint. The slider moves the whole page; the curves show the next token
// becoming likely, in the whole model and in the lens of a layer, and heads becoming induction heads.

import { Refused } from "../api.js";
import { h } from "../dom.js";
import { chance, decimal, whole } from "../numbers.js";
import { lineChart } from "./line.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";
import { NotHere } from "./source.js";

export const trainingPanel = {
  id: "training",
  title: "Through training",
  words: "The same prompt at every checkpoint of the run. Move the slider or click a curve, and every panel shows that checkpoint.",
  needs: ["token", "layer", "head", "model"],
  open({ source, subject, models }) {
    const slider = h("input", { type: "range", min: 0, step: 1, "aria-label": "Checkpoint", onchange: () => select({ model: shown[slider.value].id }), oninput: () => (name.textContent = shown[slider.value].id) });
    const name = h("output", {});
    const scrubber = h("label", { class: "slider scrubber" }, h("span", {}, "Checkpoint"), slider, name);
    const told = h("p", { class: "small soft", role: "status" });
    const sure = lineChart("Probability of the token through training", "checkpoint");
    const sureTitle = h("h3", { class: "below" });
    const heads = lineChart("Induction scores through training", "checkpoint");
    const headsTold = h("p", { class: "small soft" });
    const strongest = h("div", { class: "choices", role: "group", "aria-label": "Strongest induction heads at the end" });
    const curves = h("div", { class: "two-sides curves" }, h("div", {}, sureTitle, sure.element), h("div", {}, h("h3", { class: "below" }, "Heads becoming induction heads"), heads.element, strongest, headsTold));
    const element = h("div", {}, scrubber, told, curves);
    let shown = [];

    async function update(current) {
      const own = subject();
      const { run } = models.find(({ id }) => id === own.model);
      shown = run === null ? [] : models.filter((model) => model.run === run);
      const index = shown.findIndex(({ id }) => id === own.model);
      scrubber.hidden = curves.hidden = shown.length < 2;
      if (shown.length < 2) {
        told.textContent = "There is a single model here: checkpoints come from a run of underhood build.";
        return;
      }
      [slider.max, slider.value, name.textContent] = [shown.length - 1, index, own.model];
      if (!sureTitle.textContent) told.textContent = `Reading ${whole(shown.length)} checkpoints…`;
      // All checkpoints have the same curves, so they are requested as those of one subject.
      const ofRun = { model: (shown.find(({ id }) => id === source.start.first) ?? shown.at(-1)).id, prompt: own.prompt };
      await showToken(current, ofRun);
      if (!current()) return;
      told.textContent = `${whole(shown.length)} checkpoints of this run, in the order of training.`;
      await showHeads(current, ofRun);
    }

    async function showToken(current, ofRun) {
      const { token, layer } = selected();
      const view = await historyOf(ofRun, token);
      if (!current()) return;
      const { facts, arrays } = view;
      const row = facts.ids.map((_, at) => at);
      const word = facts.followed[token];
      const sureness = row.map((at) => pick(arrays.probabilities, at)[token]);
      const withLens = facts.position === token;
      const lens = row.map((at) => pick(arrays.lens, at)[layer]);
      const rank = (at) => pick(arrays.ranks, at)[layer];
      sureTitle.textContent = `How likely ${word} becomes`;
      sure.update(withLens ? [sureness, lens] : sureness, { ...common(facts.ids), low: 0, names: withLens ? ["model", `lens L${layer}`] : [],
        read: (at) => `${facts.ids[at]}: ${word} ${chance(sureness[at])}${withLens ? `; lens before layer ${layer} ${chance(lens[at])}, rank ${whole(rank(at))}; likeliest ${facts.best[at]}` : ""}` });
    }

    // A file has the lens of one token, and the probabilities of all.
    async function historyOf(ofRun, token) {
      try {
        return await source.view(ofRun, "training", { position: token });
      } catch (error) {
        if (!(error instanceof NotHere)) throw error;
        const { tokens } = (await source.view(ofRun, "overview")).facts;
        return source.view(ofRun, "training", { position: tokens.length - 1 });
      }
    }

    async function showHeads(current, ofRun) {
      try {
        const { facts, arrays } = await source.view(ofRun, "training_induction", {}, { later: true });
        if (!current()) return;
        const { layer, head } = selected();
        const [[topLayer, topHead]] = facts.strongest;
        const curve = (ofLayer, ofHead) => facts.ids.map((_, at) => pick(arrays.scores, at, facts.layers.indexOf(ofLayer))[ofHead]);
        const other = facts.layers.includes(layer) && head < arrays.scores.shape[2] && (layer !== topLayer || head !== topHead);
        const series = [[topLayer, topHead], ...(other ? [[layer, head]] : [])];
        const lines = series.map(([ofLayer, ofHead]) => curve(ofLayer, ofHead));
        heads.update(lines, { ...common(facts.ids), low: 0, high: 1, names: series.map(([ofLayer, ofHead]) => `L${ofLayer} H${ofHead}`),
          read: (at) => `${facts.ids[at]}: ${series.map(([ofLayer, ofHead], number) => `layer ${ofLayer} head ${ofHead} ${decimal(lines[number][at], 2)}`).join(", ")}; repetition saves ${decimal(facts.saved[at], 2)} nats` });
        strongest.replaceChildren(...facts.strongest.map(([ofLayer, ofHead, score]) => h("button", { type: "button", class: "choice", "aria-pressed": String(ofLayer === layer && ofHead === head), onclick: () => select({ layer: ofLayer, head: ofHead }) }, `layer ${ofLayer} head ${ofHead}  ${decimal(score, 2)}`)));
        headsTold.textContent = "The weight on the token after the earlier occurrence, in random tokens that are read twice: the strongest head of the last checkpoint, and the selected one.";
      } catch (error) {
        if (!(error instanceof Refused || error instanceof NotHere)) throw error;
        if (current()) [headsTold.textContent, heads.element.hidden] = [error.message, true];
      }
    }

    const common = (ids) => ({ name: (at) => ids[at], at: ids.indexOf(subject().model), onPick: (at) => ids[at] && select({ model: ids[at] }) });

    return { element, update };
  },
};
