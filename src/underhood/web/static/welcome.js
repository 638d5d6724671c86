// What is shown where a conversation has not begun: who is there to be asked, and questions to try.

import { ask } from "./api.js";
import { h } from "./dom.js";
import { count, whole } from "./numbers.js";

// `trouble` is what went wrong on the way here, or null; `send` asks a question.
export function welcome(card, lanes, trouble, send) {
  const suggestions = h("ul", { class: "suggestions" });
  suggest(card.run, suggestions, send);
  const facts = `${count(card.parameters)} parameters, reads ${whole(card.context_length)} tokens at a time` + (card.step ? `, after ${whole(card.step)} steps` : "");
  const alone = card.chats ? `Ask ${card.run}` : `Let ${card.run} go on`;
  return h("div", { class: "welcome" },
    trouble ? h("p", { class: "trouble", role: "alert" }, trouble) : null,
    h("h1", {}, lanes.b ? "Ask two models the same" : alone),
    h("p", { class: "soft" }, lanes.b ? `${lanes.a} beside ${lanes.b}: one prompt, two answers, the same settings.` : facts),
    suggestions);
}

// Questions that the run's own evaluation asked, of every kind.
async function suggest(run, list, send) {
  const details = await ask(`/ui/runs/${encodeURIComponent(run)}`).catch(() => ({ samples: [] }));
  const kinds = [...Map.groupBy(details.samples, (sample) => sample.kind).values()];
  const mixed = [0, 1, 2, 3].flatMap((number) => kinds.map((kind) => kind[number]).filter(Boolean));
  list.replaceChildren(...mixed.slice(0, 4).map(({ prompt }) => h("li", {},
    h("button", { type: "button", class: "suggestion", onclick: () => send(prompt) }, prompt))));
}
