// SAE features: what a sparse autoencoder has learnt to tell apart in a layer, by the tokens on which each is strong.

import { h } from "../dom.js";
import { decimal, percent, whole } from "../numbers.js";
import { magnitude, onTheme } from "./colours.js";
import { fitting } from "./fitting.js";
import { heatMap } from "./heat.js";
import { pick } from "./payload.js";
import { select, selected } from "./selection.js";
import { NotHere } from "./source.js";

const FIRST = 1; // the first token that features are shown of

export const featuresPanel = {
  id: "features",
  title: "SAE features",
  words: "A sparse autoencoder writes the selected layer's residual stream as a sum of a few out of many directions. The rows are the strongest of these features at the selected token; choose one to see where in the text it is strongest: what these examples have in common is its meaning.",
  needs: ["token", "layer", "model", "feature"],
  open({ source, subject, overview, redraw }) {
    const { tokens } = overview();
    let view = null;
    let drawExamples = () => {};
    let layerShown = "";
    const gate = fitting({ source, subject, kind: "features", redraw });
    const strength = (row, column) => pick(view.arrays.strengths, row)[column];
    const chosen = () => (selected().feature === undefined ? view.facts.features[0]?.feature : Number(selected().feature));
    const rowOf = () => view.facts.features.findIndex(({ feature }) => feature === chosen());
    let largest = 1;
    const map = heatMap({
      name: "Features by token", rows: 0, columns: tokens.length, width: 20, height: 22, fit: true, widest: 72, head: 116, top: 84,
      rowName: (row) => `${view.facts.features[row].tokens[0] ?? ""} ${view.facts.features[row].feature}`, columnName: (column) => tokens[column].shown,
      paint: (row, column) => (view ? magnitude(strength(row, column) / largest) : null),
      read(row, column) {
        if (!view) return "";
        const { feature, density, tokens: names } = view.facts.features[row];
        return `Feature ${feature} at ${tokens[column].shown}: ${decimal(strength(row, column), 2)}; in use on ${percent(density, 1)} of the text's tokens, strongest on ${names.join(" ")}`;
      },
      selected: () => ({ row: view ? Math.max(0, rowOf()) : 0, column: selected().token }),
      // The rows belong to the selected token: a click on another row chooses the feature and leaves them in place.
      onPick(row, column) {
        const { feature } = view.facts.features[row];
        if (feature !== chosen()) select({ feature: String(feature) });
        else select({ token: column, feature: String(feature) });
      },
    });
    const told = h("p", { class: "formula" });
    const heading = h("h3", { class: "below" });
    const number = h("input", { type: "number", min: 0, step: 1, "aria-label": "Feature", onchange: () => number.value !== "" && select({ feature: String(Number(number.value)) }) });
    const examples = h("ol", { class: "examples", "aria-label": "Strongest examples" });
    const shown = h("div", { hidden: true }, told, map.element, h("div", { class: "examples-head" }, heading, source.live ? h("label", { class: "field-inline" }, "Feature ", number) : null), examples);
    const element = h("div", {}, gate.element, shown);
    const forget = onTheme(() => (element.isConnected ? drawExamples() : forget()));

    function example({ pieces, at, strengths }, most) {
      return h("li", {}, h("span", { class: "number small soft" }, decimal(strengths[at], 1)), h("p", { class: "example" }, pieces.map((piece, index) => {
        const paint = strengths[index] > 0 ? magnitude(strengths[index] / most) : null;
        return h(index === at ? "b" : "span", paint ? { style: { background: paint.fill, color: paint.ink } } : {}, piece);
      })));
    }

    async function showExamples(current) {
      const { layer } = selected();
      const wanted = chosen();
      const { facts } = await source.view(subject(), "feature", { layer, number: wanted });
      if (!current()) return;
      heading.textContent = facts.examples.length ? `Feature ${wanted}, where it is strongest` : `Feature ${wanted} is never in use on this text`;
      number.value = wanted;
      const most = facts.examples[0] ? Math.max(...facts.examples[0].strengths) : 1;
      drawExamples = () => examples.replaceChildren(...facts.examples.map((each) => example(each, most)));
      drawExamples();
    }

    async function update(current) {
      const { token, layer } = selected();
      const trained = await gate.ready(current, String(layer));
      if (!current()) return;
      shown.hidden = !trained || token < FIRST;
      if (!trained) return;
      if (token < FIRST) throw new NotHere("The first token is left out: attention rests on it, and its values are unlike all others. Select a later token.");
      const own = `${subject().model} ${layer}`;
      if (layerShown && own !== layerShown && selected().feature !== undefined) {
        layerShown = own;
        select({ feature: undefined }); // another autoencoder has other features
        return;
      }
      layerShown = own;
      const got = await source.view(subject(), "features", { layer, position: token });
      if (!current()) return;
      view = got;
      number.max = view.facts.total - 1;
      largest = Math.max(...view.arrays.strengths.data) || 1;
      const { total, used, explained, losses, tokens: read } = view.facts;
      told.textContent = `${whole(total)} features of the residual stream before layer ${layer}, ${used} in use at once, learnt from ${whole(read)} tokens. They explain ${percent(explained)} of its variance on other text; in its place they make the loss ${decimal(losses.spliced, 2)} instead of ${decimal(losses.plain, 2)} nats (${decimal(losses.zeroed, 2)} without it).`;
      map.update({ rows: view.facts.features.length });
      if (chosen() !== undefined) await showExamples(current);
    }

    return { element, update };
  },
};
