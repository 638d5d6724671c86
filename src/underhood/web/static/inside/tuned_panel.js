// The tuned lens: each layer is read through a translator of its own, beside the plain lens.

import { h } from "../dom.js";
import { decimal, whole } from "../numbers.js";
import { fitting } from "./fitting.js";
import { layerName, lensGrid, lensOf } from "./lens_panel.js";
import { lineChart } from "./line.js";
import { select, selected } from "./selection.js";

const NAMES = ["tuned", "plain"];

export const tunedPanel = {
  id: "tuned",
  title: "Tuned lens",
  words: "The lens again, with a translator for each layer: an affine map, trained on text to bring the layer's prediction as close to the model's own as it gets. The plain lens misses what a layer knows but writes in other terms than the model's end reads.",
  needs: ["token", "layer", "model"],
  open({ source, subject, overview, redraw }) {
    const { layers, tokens } = overview();
    let lens = null;
    let plain = null;
    let of = null;
    const gate = fitting({ source, subject, kind: "tuned", redraw });
    const map = lensGrid("Likeliest next token by layer and position, by the tuned lens", layers, tokens, () => lens);
    const [ranks, distance] = [lineChart("Rank of the final choice by both lenses", "layer"), lineChart("Divergence from the model by both lenses", "layer")];
    const shown = h("div", { hidden: true }, map.element, h("div", { class: "two-sides" },
      h("div", {}, h("h3", { class: "below" }, "Rank of the final choice"), ranks.element),
      h("div", {}, h("h3", { class: "below" }, "Divergence from the model"), distance.element, h("p", { class: "small soft" }, "Mean over text that was not trained on, in nats."))));
    const element = h("div", {}, gate.element, shown);
    const name = (at) => layerName(at, layers);
    const onPick = (at) => select({ layer: Math.min(at, layers - 1) });

    async function update(current) {
      const trained = await gate.ready(current);
      if (!current()) return;
      shown.hidden = !trained;
      if (!trained) return;
      const now = subject();
      if (of !== now) [lens, plain, of] = [lensOf(source, now, tokens.length, "tuned"), lensOf(source, now, tokens.length), now];
      const { token, layer } = selected();
      const [mine, other] = [lens, plain];
      await Promise.all([mine, other].map((each) => each.load(each.chunkOf(token))));
      const { arrays } = await source.view(now, "divergences");
      if (!current()) return;
      map.update();
      const series = [mine, other].map((each) => Array.from({ length: layers + 1 }, (_, at) => each.at(at, token).rank));
      ranks.update(series, { log: true, inverted: true, names: NAMES, name, at: layer, onPick,
        read: (at) => `layer ${name(at)}: ${mine.at(layers, token).tokens[0].piece} at rank ${whole(series[0][at])}, by the plain lens ${whole(series[1][at])}` });
      const nats = [arrays.tuned, arrays.plain].map(({ data }) => Array.from(data));
      distance.update(nats, { low: 0, names: NAMES, name, at: layer, onPick,
        read: (at) => `layer ${name(at)}: ${decimal(nats[0][at], 2)} nats, by the plain lens ${decimal(nats[1][at], 2)}` });
      for (let number = 0; number < mine.chunks; number++) {
        await mine.load(number, { later: true });
        if (!current()) return;
        map.update({}, { follow: false });
      }
    }

    return { element, update };
  },
};
