// What is shown where a conversation has not begun: who is there to be asked, and questions to try.

import { ask } from "./api.js";
import { h } from "./dom.js";
import { count, whole } from "./numbers.js";
import { corpusLine } from "./sources.js";

// `reads` says whether answers come from documents; `trouble` is what went wrong on the way here, or null; `send` asks
// a question.
export function welcome(card, lanes, reads, trouble, send) {
  const suggestions = h("ul", { class: "suggestions" });
  suggest(card, suggestions, send);
  const facts = `${count(card.parameters)} parameters, reads ${whole(card.context)} tokens at a time` + (card.step ? `, after ${whole(card.step)} steps` : "") +
    (card.documents && reads ? `. Answers from ${corpusLine(card.documents)}` : "");
  const alone = card.chats ? `Ask ${card.run}` : `Let ${card.run} go on`;
  return h("div", { class: "welcome" },
    trouble ? h("p", { class: "trouble", role: "alert" }, trouble) : null,
    h("h1", {}, lanes.b ? "Ask two models the same" : alone),
    h("p", { class: "soft" }, lanes.b ? `${lanes.a} beside ${lanes.b}: one prompt, two answers, the same settings.` : facts),
    suggestions);
}

// What to try: questions that the model answered right when it was checked, and an invented name that it should refuse;
// for a model that does not chat, texts to continue.
async function suggest(card, list, send) {
  const { suggestions } = await ask(`/ui/suggestions?model=${encodeURIComponent(card.id)}`).catch(() => ({ suggestions: [] }));
  list.replaceChildren(...suggestions.map(({ prompt, note }) => h("li", {},
    h("button", { type: "button", class: "suggestion", onclick: () => send(prompt) }, h("span", {}, prompt), note ? h("small", { class: "soft" }, note) : null))));
}
