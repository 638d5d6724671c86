// The chat: a conversation with one model, or with two side by side.

import { ask } from "./api.js";
import { AnswerView } from "./answer.js";
import { Answers } from "./answers.js";
import { settingsIn, withSettings } from "./controls.js";
import { markDifferences } from "./differ.js";
import { h, icon } from "./dom.js";
import { frame, noteBelow } from "./frame.js";
import { questionView } from "./question.js";
import { go, note } from "./state.js";
import * as store from "./store.js";
import * as talks from "./talk.js";
import { welcome } from "./welcome.js";
import { inForce } from "./write.js";

export function chat(root, address) {
  return new Chat(root, address);
}

class Chat {
  constructor(root, address) {
    this.root = root;
    this.cards = [];
    this.lanes = { a: null, b: null }; // ids of models
    this.settings = {};
    this.marked = true; // two answers' differences
    this.talk = talks.newTalk();
    this.answers = new Answers(this);
    this.views = new Map(); // answer id → AnswerView
    this.ready = this.#open(address);
  }

  async #open(address) {
    this.root.className = "chat-place";
    try {
      this.cards = (await ask("/ui/models")).models;
    } catch (error) {
      this.root.replaceChildren(h("p", { class: "trouble page-trouble", role: "alert" }, error.message));
      return;
    }
    this.#build();
    await this.#take(address);
  }

  // The address: which conversation, which models, which settings.
  async #take({ query, hash }) {
    const known = (id) => (this.cards.some((card) => card.id === id) ? id : null);
    const [first, second] = query.getAll("model");
    this.lanes.a = known(first) ?? this.lanes.a ?? this.cards[0].id;
    this.lanes.b = known(second);
    this.settings = settingsIn(query);
    this.marked = query.get("marks") !== "off";
    this.missing = null;
    if (hash.startsWith("talk=")) {
      try {
        this.talk = await talks.fromLink(hash.slice(5));
        await store.put(this.talk);
      } catch {
        this.missing = "The link is damaged: it does not hold a whole conversation.";
      }
    } else if (query.get("c")) {
      const same = query.get("c") === this.talk.id;
      if (!same) this.stopAll();
      const stored = same ? this.talk : await store.get(query.get("c"));
      if (stored) this.talk = stored;
      else this.missing = "That conversation is not in this browser. Conversations stay where they were held; send one by Copy link.";
    } else {
      this.stopAll();
      this.talk = talks.newTalk(query.get("system") ?? "");
    }
    if (this.missing) this.talk = talks.newTalk();
    this.#note();
    this.panel.rebuild();
    this.picker.draw();
    this.draw();
    await this.list.refresh(this.talk.id);
    this.field.focus({ preventScroll: true });
  }

  moved(address) {
    this.ready = this.ready.then(() => this.#take(address));
    return true;
  }

  leave() {
    this.stopAll();
  }

  query() {
    const query = new URLSearchParams();
    for (const lane of ["a", "b"]) {
      if (this.lanes[lane] && (lane === "b" || this.lanes.b || this.lanes.a !== this.cards[0].id)) query.append("model", this.lanes[lane]);
    }
    if (!this.marked) query.set("marks", "off");
    return withSettings(query, this.settings);
  }

  #note(options) {
    const query = this.query();
    if (Object.keys(this.talk.turns).length) query.set("c", this.talk.id);
    else if (this.talk.system) query.set("system", this.talk.system);
    note(query, options);
    document.title = `${this.talk.title || "Chat"} · Underhood`;
  }

  addressOf(talk) {
    const query = this.query();
    query.set("c", talk.id);
    return `/?${query}`;
  }

  card(lane) {
    return this.cards.find((card) => card.id === this.lanes[lane]);
  }

  get active() {
    return this.lanes.b ? ["a", "b"] : ["a"];
  }

  // Building -----------------------------------------------------------------------------------------------------

  #build() {
    Object.assign(this, frame(this, {
      onPick: (lane, id) => this.#pick(lane, id),
      onKey: (event) => this.#fieldKey(event),
      onGrow: () => this.#grow(),
      onNote: () => {
        this.#note();
        this.#drawNote();
      },
      onMarks: () => {
        this.marked = !this.marked;
        this.#note();
        this.draw();
      },
    }));
  }

  toggleList() {
    const open = this.root.classList.toggle("list-open");
    this.head.querySelector(".list-toggle").setAttribute("aria-expanded", String(open));
    if (open) this.list.element.querySelector("input").focus();
  }

  toggleSettings() {
    this.settingsBox.hidden = !this.settingsBox.hidden;
    const toggle = this.head.querySelector(".settings-toggle");
    toggle.setAttribute("aria-expanded", String(!this.settingsBox.hidden));
    if (this.settingsBox.hidden) toggle.focus();
    else this.settingsBox.querySelector("textarea").focus();
  }

  #pick(lane, id) {
    this.lanes[lane] = id;
    this.#note({ push: true });
    this.picker.draw();
    this.panel.rebuild();
    this.draw();
  }

  // What the models on show can answer from, or null.
  documents() {
    return this.active.map((lane) => this.card(lane)?.documents).find(Boolean) ?? null;
  }

  // The settings that hold where none is set.
  inForce() {
    return inForce(this.card("a"), this.settings, this.lanes.b !== null);
  }

  // Drawing ------------------------------------------------------------------------------------------------------

  draw() {
    this.views.clear();
    this.root.classList.toggle("two-lanes", this.lanes.b !== null);
    this.marks.hidden = this.lanes.b === null;
    this.marks.setAttribute("aria-pressed", String(this.marked));
    const turns = talks.path(this.talk);
    this.turns.replaceChildren(...(turns.length ? turns.map((turn) => this.#turn(turn)) : [welcome(this.card("a"), this.lanes, this.settings.retrieve ?? this.card("a").documents?.on, this.missing, (prompt) => this.send(prompt))]));
    this.#drawNote();
    this.drawSender();
  }

  #drawNote() {
    const cards = this.active.map((lane) => this.card(lane));
    this.field.placeholder = cards.some((card) => card.chats) ? "Ask" : "Begin a text";
    this.composer.querySelector(".composer-note").textContent = noteBelow(cards, this.settings.temperature ?? this.inForce().temperature);
  }

  #turn(turn) {
    const all = talks.siblings(this.talk, turn.parent);
    const question = questionView(turn, all, (other) => this.#showTurn(other), (text) => this.send(text, turn));
    const lanes = this.active.map((lane) => this.#answer(turn, lane));
    const views = this.active.map((lane) => this.views.get(talks.chosen(turn, lane)?.id)).filter(Boolean);
    if (views.length === 2) markDifferences(views, () => this.marked);
    return h("section", { class: "turn", "aria-label": `Question: ${talks.titleOf(turn.text)}` }, question, h("div", { class: "lanes" }, lanes));
  }

  #answer(turn, lane) {
    const answer = talks.chosen(turn, lane);
    if (!answer) {
      return h("div", { class: "answer unasked" }, h("p", { class: "soft" }, `${this.lanes[lane]} was not asked this. `,
        h("button", { type: "button", class: "link", onclick: () => this.answers.write(turn, lane) }, "Ask it")));
    }
    const running = this.answers.running.get(answer.id);
    const view = new AnswerView({
      answer, cards: this.cards, all: turn.answers[lane], live: Boolean(running),
      card: this.cards.find((card) => card.id === answer.model),
      asks: (chats) => talks.asksFor(this.talk, lane, turn, chats),
      named: this.lanes.b !== null || answer.model !== this.lanes.a,
      acts: {
        again: () => this.answers.again(turn, lane),
        choose: (other) => this.answers.choose(turn, lane, other),
        edit: (text) => this.answers.edit(turn, lane, answer, text),
        rate: (value) => this.answers.rate(turn, lane, answer, value),
        goOn: (from) => this.answers.goOn(turn, lane, answer, from),
      },
    });
    this.views.set(answer.id, view);
    if (running) running.view = view;
    return view.element;
  }

  drawSender() {
    const { busy } = this;
    this.sender.replaceChildren(icon(busy ? "stop" : "send"));
    this.sender.setAttribute("aria-label", busy ? "Stop" : "Send");
    this.sender.title = busy ? "Stop (Esc)" : "Send (Enter)";
  }

  #grow() {
    this.field.style.height = "auto";
    this.field.style.height = `${Math.min(this.field.scrollHeight, innerHeight * 0.4)}px`;
  }

  // Doing --------------------------------------------------------------------------------------------------------

  #fieldKey(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!this.busy) this.send();
    } else if (event.key === "ArrowUp" && !this.field.value) {
      const last = [...this.turns.querySelectorAll('[aria-label="Edit the question"]')].at(-1);
      if (last) {
        event.preventDefault();
        last.click();
      }
    }
  }

  key(event) {
    const last = (label) => [...this.turns.querySelectorAll(`[aria-label="${label}"]`)].at(-1)?.click();
    if (event.key === "Escape" && this.busy) this.stopAll();
    else if (event.key === "Escape" && this.root.classList.contains("list-open")) this.toggleList();
    else if (event.key === "Escape" && !this.settingsBox.hidden) this.toggleSettings();
    else if (event.key === "Escape") return false;
    else if (event.key === "n") this.begin();
    else if (event.key === "r") last("Ask again");
    else if (event.key === "t") last("Tokens");
    else if (event.key === "e") last("Edit the question");
    else if (event.key === "s") this.toggleSettings();
    else if (event.key === "/") {
      if (!this.list.element.checkVisibility()) this.toggleList();
      this.list.element.querySelector("input").focus();
    } else return false;
    return true;
  }

  begin() {
    const query = this.query();
    const text = query.toString();
    this.root.classList.remove("list-open");
    go(text ? `/?${text}` : "/");
  }

  async open(talk) {
    await store.put(talk);
    go(this.addressOf(talk));
  }

  get busy() {
    return this.answers.running.size > 0;
  }

  stopAll() {
    this.answers.stopAll();
  }

  // Sends what is in the field (or `given`, or as another version of `instead`).
  async send(given = null, instead = null) {
    if (this.busy) {
      this.stopAll();
      return;
    }
    const text = given ?? this.field.value;
    if (!text.trim()) return;
    if (given === null) {
      this.field.value = "";
      this.#grow();
    }
    this.missing = null;
    const first = Object.keys(this.talk.turns).length === 0;
    const turn = talks.addTurn(this.talk, text, instead);
    this.#note({ push: first });
    await Promise.all(this.active.map((lane) => this.answers.write(turn, lane)));
  }

  #showTurn(turn) {
    talks.show(this.talk, turn);
    this.keep();
    this.draw();
  }

  // Stores the conversation as it is now.
  keep() {
    this.talk.updated = Date.now() / 1000;
    return store.put(this.talk).then(() => this.list.refresh(this.talk.id));
  }
}
