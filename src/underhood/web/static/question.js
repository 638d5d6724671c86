// One question on the page: its text, its other versions, and a way to change it.

import { editor } from "./answer.js";
import { copyText, h, iconButton } from "./dom.js";

// `all` are its versions; `show` is given another one, `ask` a changed text.
export function questionView(turn, all, show, ask) {
  const at = all.indexOf(turn);
  const element = h("div", { class: "question" });

  function draw() {
    element.replaceChildren(h("p", { class: "question-text" }, turn.text), h("footer", { class: "answer-foot" },
      all.length > 1 ? h("span", { class: "variants" },
        iconButton("left", "Version before", () => show(all[at - 1]), { disabled: at === 0 }),
        h("span", { class: "number" }, `${at + 1}/${all.length}`),
        iconButton("right", "Next version", () => show(all[at + 1]), { disabled: at === all.length - 1 })) : null,
      iconButton("edit", "Edit the question", edit),
      iconButton("copy", "Copy the question", () => copyText(turn.text))));
  }

  function edit() {
    element.replaceChildren(editor(turn.text, "Your question", "Ask", (text) => text.trim() && ask(text), () => {
      draw();
      element.querySelector('[aria-label="Edit the question"]').focus();
    }));
    element.querySelector("textarea").focus();
  }

  draw();
  return element;
}
