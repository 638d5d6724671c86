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

// Questions that the model answers, as the run's evaluation saw; of a run without them, questions of every kind that it
// was asked.
async function suggest(card, list, send) {
  const { samples, examples } = await ask(`/ui/runs/${encodeURIComponent(card.run)}`).catch(() => ({ samples: [], examples: [] }));
  const kinds = [...Map.groupBy(samples, (sample) => sample.kind).values()];
  const mixed = [0, 1, 2, 3].flatMap((number) => kinds.map((kind) => kind[number]?.prompt).filter(Boolean));
  const answered = card.chats ? examples.map((example) => example.question) : [];
  const prompts = answered.length ? answered : mixed;
  list.replaceChildren(...prompts.slice(0, 4).map((prompt) => h("li", {},
    h("button", { type: "button", class: "suggestion", onclick: () => send(prompt) }, prompt))));
}
