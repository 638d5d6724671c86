// Taking a conversation away, in four forms, and bringing one back.

import { box, copyText, download, h } from "./dom.js";
import * as talks from "./talk.js";

// `chat` holds the conversation (`talk`), the two models (`lanes`), the address without it (`query`), and can `open` one.
export function exportBox(chat) {
  const { talk, lanes } = chat;
  const name = (talk.title || "conversation").replace(/[^\w-]+/g, "-").replace(/^-+|-+$/g, "").toLowerCase().slice(0, 40) || "conversation";
  const empty = Object.keys(talk.turns).length === 0;
  const trouble = h("p", { class: "trouble", role: "alert" });
  const file = h("input", { type: "file", accept: ".json,application/json", id: "import", onchange: async () => {
    try {
      const imported = talks.fromJson(await file.files[0].text());
      dialog.close();
      await chat.open(imported);
    } catch (error) {
      trouble.textContent = error.message;
    }
  } });
  const act = (label, hint, doing) => h("li", {}, h("button", { type: "button", class: "row-button", disabled: empty, onclick: doing },
    h("strong", {}, label), h("span", { class: "soft small" }, hint)));
  const dialog = box("Export", (close) => [h("ul", { class: "plain-list" },
    act("Markdown", "what is on show, to read", () => download(`${name}.md`, talks.asMarkdown(talk), "text/markdown")),
    act("Messages (JSON lines)", "one conversation per line, to train on", () => download(`${name}.jsonl`, talks.asMessages(talk), "application/jsonl")),
    act("Everything (JSON)", "all versions, tokens and settings, to open here again", () => download(`${name}.json`, talks.asJson(talk), "application/json")),
    act("Copy link", "what is on show, in the address itself", async () => {
      const query = chat.query().toString();
      await copyText(`${location.origin}/${query ? `?${query}` : ""}#talk=${await talks.asLink(talk)}`);
      close();
    }),
    lanes.b ? act(`Only ${lanes.b}`, "its side as a conversation of its own", () => {
      close();
      const copy = talks.onlyLane(talk, "b");
      [lanes.a, lanes.b] = [lanes.b, null];
      chat.open(copy);
    }) : null,
  ), h("label", { for: "import", class: "field-label" }, "Open an export"), file, trouble]);
}
