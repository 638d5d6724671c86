// What surrounds a talk: the list of conversations, the head with the models, the field to write in, the settings.

import { controls } from "./controls.js";
import { h, iconButton } from "./dom.js";
import { exportBox } from "./export.js";
import { plain } from "./numbers.js";
import { modelPicker } from "./picker.js";
import * as store from "./store.js";
import { talkList } from "./talklist.js";

// The parts of a chat's page by name; they are put into its root.
export function frame(chat, { onPick, onKey, onGrow, onNote, onMarks }) {
  const list = talkList({
    address: (talk) => chat.addressOf(talk),
    begin: () => chat.begin(),
    current: () => chat.talk.id,
    removed: (id) => id === chat.talk.id && chat.begin(),
    open: (talk) => chat.open(talk),
  });
  const picker = modelPicker(chat.cards, chat.lanes, onPick);
  const turns = h("div", { class: "turns" });
  const field = h("textarea", { rows: 1, id: "ask", "aria-label": "Your message", placeholder: "Ask", enterkeyhint: "send", oninput: onGrow, onkeydown: onKey });
  const sender = iconButton("send", "Send", () => chat.send(), { class: "icon-button send" });
  const composer = h("form", { class: "composer", onsubmit: (event) => event.preventDefault() },
    h("div", { class: "composer-box" }, field, sender), h("p", { class: "small soft composer-note" }));
  const panel = controls({
    get settings() {
      return chat.settings;
    },
    system: () => chat.talk.system,
    documents: () => chat.documents(),
    inForce: () => chat.inForce(),
    setSystem: (text) => {
      chat.talk.system = text;
      onNote();
      if (Object.keys(chat.talk.turns).length) store.put(chat.talk);
    },
  }, onNote);
  const settingsBox = h("aside", { class: "side settings-side", id: "settings", "aria-label": "Settings", hidden: true },
    h("header", {}, h("h2", {}, "Settings"), iconButton("close", "Close the settings", () => chat.toggleSettings())), panel);
  const marks = iconButton("differ", "Mark the words that differ", onMarks, { class: "icon-button marks-toggle" });
  const head = h("div", { class: "chat-head" },
    iconButton("menu", "Conversations", () => chat.toggleList(), { "aria-expanded": "false", class: "icon-button list-toggle" }),
    picker.element,
    h("div", { class: "head-acts" }, marks,
      iconButton("down2", "Export", () => exportBox(chat)),
      iconButton("tune", "Settings", () => chat.toggleSettings(), { "aria-controls": "settings", "aria-expanded": "false", class: "icon-button settings-toggle" })));
  chat.root.replaceChildren(list.element, h("div", { class: "chat-middle" }, head, turns, composer), settingsBox);
  return { list, picker, turns, field, sender, composer, panel, settingsBox, marks, head };
}

// What is said below the field: how two models are drawn, and who only goes on with a text.
export function noteBelow(cards, temperature) {
  const alike = temperature === 0 ? "Both at temperature 0: each writes what it finds likeliest." : `Both at temperature ${plain(temperature)}, with the same seed.`;
  const continues = cards.every((card) => !card.chats) ? "This model has learnt no conversation: it goes on with your text."
    : cards.some((card) => !card.chats) ? "A model that has learnt no conversation goes on with your text." : "";
  return [cards.length > 1 ? alike : "", continues].filter(Boolean).join(" ");
}
