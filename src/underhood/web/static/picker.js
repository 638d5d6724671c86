// Which model answers, and which second one beside it.

import { h, iconButton, stageName } from "./dom.js";
import { modelTitle } from "./stages.js";

// `lanes` maps "a" and "b" to ids of models; `onPick(lane, id)` is told when another is picked, or null for b.
export function modelPicker(cards, lanes, onPick) {
  const element = h("div", { class: "picker" });
  const cardOf = (lane) => cards.find((card) => card.id === lanes[lane]);
  const runs = Map.groupBy(cards, (card) => card.run);

  function pick(lane, name) {
    const label = (card) => (card.hue === "imported" ? card.id : `${modelTitle(card.stage)} · ${card.run}`);
    return h("span", { class: "pick" }, stageName("", cardOf(lane).hue),
      h("select", { "aria-label": name, onchange: (event) => onPick(lane, event.target.value) },
        [...runs].map(([run, own]) => h("optgroup", { label: run },
          own.map((card) => h("option", { value: card.id, selected: card.id === lanes[lane] }, label(card)))))),
      lane === "b" ? iconButton("close", "End the comparison", () => onPick("b", null)) : null);
  }

  function compare() {
    const others = cards.filter((card) => card.id !== lanes.a);
    onPick("b", (others.find((card) => card.run === cardOf("a").run) ?? others[0]).id);
    element.querySelector('[aria-label="Second model"]').focus();
  }

  function draw() {
    element.replaceChildren(...[
      pick("a", "Model"),
      lanes.b ? pick("b", "Second model") : null,
      lanes.b || cards.length < 2 ? null : h("button", { type: "button", class: "quiet compare", onclick: compare }, "Compare"),
    ].filter(Boolean));
  }

  return { element, draw };
}
