// The conversations kept in this browser: to find, open, and remove.

import { h, iconButton, say } from "./dom.js";
import { ago } from "./numbers.js";
import * as store from "./store.js";

export function talkList({ address, begin, current, removed, open }) {
  let stored = [];
  let gone = null; // the last one removed, as long as it can be taken back
  const search = h("input", { type: "search", placeholder: "Search (/)", "aria-label": "Search the conversations", oninput: () => draw() });
  const list = h("ul", { class: "talks" });
  const undo = h("p", { class: "undo small", hidden: true });
  const element = h("aside", { class: "side list-side", "aria-label": "Conversations" },
    h("button", { type: "button", class: "new-talk", onclick: begin, title: "New conversation (n)" }, "New conversation"),
    search, list, undo);

  const matches = (talk, words) => words.every((word) => talk.title.toLowerCase().includes(word) ||
    Object.values(talk.turns).some((turn) => turn.text.toLowerCase().includes(word) ||
      Object.values(turn.answers).flat().some((answer) => answer.text.toLowerCase().includes(word))));

  function draw() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = stored.filter((talk) => matches(talk, words));
    list.replaceChildren(...shown.map((talk) => h("li", {},
      h("a", { href: address(talk), "aria-current": talk.id === current() ? "true" : null }, h("span", {}, talk.title || "Untitled"),
        h("small", {}, ago(talk.updated))),
      iconButton("close", `Remove ${talk.title || "Untitled"}`, () => remove(talk)))));
    if (!shown.length) list.append(h("li", { class: "soft small" }, words.length ? "Nothing found." : "What you ask is kept here, in this browser only."));
  }

  async function remove(talk) {
    await store.remove(talk.id);
    gone = talk;
    undo.replaceChildren("Removed. ", h("button", { type: "button", class: "link", onclick: async () => {
      undo.hidden = true;
      await open(gone);
    } }, "Take it back"));
    undo.hidden = false;
    say("Conversation removed");
    removed(talk.id);
    await refresh();
    search.focus();
  }

  async function refresh() {
    stored = await store.all();
    draw();
  }

  return { element, refresh };
}
