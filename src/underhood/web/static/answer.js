// One answer on the page: its text or its tokens, how it ended, and what can be done with it.

import { ask } from "./api.js";
import { copyText, h, iconButton, stageName } from "./dom.js";
import { markdown } from "./markdown.js";
import { decimal, duration, whole } from "./numbers.js";
import { citedIn, linkCitations, SourceList } from "./sources.js";
import { alternatives, tokenStrip } from "./tokens.js";
import { speedOf } from "./write.js";

const ENDS = { length: "cut off at the length limit", stopped: "stopped" };

// `acts` are the things a chat can do: again, edit, rate, goOn, choose, retry; `card` describes the model, if it is
// still served.
export class AnswerView {
  constructor({ answer, all, card, cards, asks, acts, live, named }) {
    Object.assign(this, { answer, all, card, cards, asks, acts, live, named });
    this.body = h("div", { class: "answer-body" });
    this.foot = h("footer", { class: "answer-foot" });
    this.element = h("article", { class: `answer ${card?.hue ?? "plain"}`, "aria-label": `Answer of ${answer.model}` },
      named ? h("header", { class: "answer-head" }, stageName(answer.model, card?.hue ?? "plain")) : null, this.body, this.foot);
    this.editing = false;
    this.update();
  }

  update() {
    if (this.editing) return;
    const { answer } = this;
    this.element.setAttribute("aria-busy", String(Boolean(this.live)));
    if (answer.error) {
      this.body.replaceChildren(...this.#text(), h("p", { class: "trouble", role: "alert" }, answer.error, " ",
        h("button", { type: "button", class: "link", onclick: () => this.acts.again() }, "Try again")));
    } else if (!this.element.classList.contains("as-tokens")) {
      this.body.replaceChildren(...this.#text());
    }
    this.#drawSources();
    this.foot.replaceChildren(...this.#foot());
    this.drawn?.();
  }

  // Whether the whole answer is there as text.
  get readable() {
    return !this.live && !this.editing && !this.answer.error && Boolean(this.answer.text) && !this.element.classList.contains("as-tokens");
  }

  #text() {
    const { answer, live } = this;
    if (!answer.text && live) return [h("p", { class: "soft waiting" }, "…")];
    if (!answer.text && !answer.error) return [h("p", { class: "soft" }, "(nothing: the model ended its turn at once)")];
    const chats = this.card?.chats ?? true;
    const elements = chats ? markdown(answer.text) : [h("p", { class: "continued" }, answer.text)];
    if (answer.sources) linkCitations(elements, answer.sources, (number) => this.sources.open(number));
    return elements;
  }

  #drawSources() {
    const { answer } = this;
    if (!answer.sources) return;
    if (!this.sources) {
      this.sources = new SourceList(answer.sources);
      this.body.after(this.sources.element);
    }
    this.sources.update(citedIn(answer.text, answer.sources), this.live);
  }

  #foot() {
    const { answer, all, acts, live } = this;
    if (live) return [h("span", { class: "meta" }, this.#speed())];
    const at = all.indexOf(answer);
    const rate = (value, label) => iconButton(value, label, () => acts.rate(value), { "aria-pressed": String(answer.rating === value) });
    const shown = this.element.classList.contains("as-tokens");
    return [
      all.length > 1 ? h("span", { class: "variants" },
        iconButton("left", "Answer before", () => acts.choose(all[at - 1]), { disabled: at === 0 }),
        h("span", { class: "number" }, `${at + 1}/${all.length}`),
        iconButton("right", "Next answer", () => acts.choose(all[at + 1]), { disabled: at === all.length - 1 })) : null,
      iconButton("tokens", "Tokens", () => this.toggleTokens(), { "aria-pressed": String(shown), disabled: !this.card || !answer.text }),
      iconButton("again", "Ask again", () => acts.again()),
      iconButton("edit", "Edit the answer", () => this.edit()),
      iconButton("copy", "Copy the answer", () => copyText(answer.text)),
      rate("up", "Good answer"),
      rate("down", "Bad answer"),
      answer.finish === "length" && this.card
        ? h("button", { type: "button", class: "link", onclick: () => acts.goOn(null) }, "Go on") : null,
      h("span", { class: "meta", title: this.#waited() }, this.#speed()),
    ].filter(Boolean);
  }

  #speed() {
    const { answer } = this;
    const written = answer.pieces.length - (answer.prefix ?? 0);
    const parts = [];
    if (answer.edited) parts.push("edited by hand");
    if (answer.prefix) parts.push(`from token ${whole(answer.prefix)} on`);
    if (written > 0) parts.push(`${whole(written)} ${written === 1 ? "token" : "tokens"}`);
    const speed = speedOf(answer);
    if (speed) parts.push(`${decimal(speed, speed < 10 ? 1 : 0)} a second`);
    if (typeof answer.settings?.seed === "number" && this.named) parts.push(`seed ${answer.settings.seed}`);
    if (ENDS[answer.finish]) parts.push(ENDS[answer.finish]);
    return parts.join(" · ");
  }

  #waited() {
    const { answer } = this;
    if (!answer.first) return null;
    return `First token after ${duration(answer.first)}` + (answer.cached ? `; ${whole(answer.cached)} tokens of the prompt had been read before` : "");
  }

  // Tokens -------------------------------------------------------------------------------------------------------

  async toggleTokens() {
    const on = this.element.classList.toggle("as-tokens");
    if (on) await this.#showTokens(this.card);
    this.update();
  }

  async #showTokens(card) {
    const { answer } = this;
    const under = h("select", { "aria-label": "Probabilities under", onchange: () => this.#showTokens(this.cards.find((model) => model.id === under.value)) },
      this.cards.map((model) => h("option", { value: model.id, selected: model.id === card.id }, model.id)));
    const head = this.cards.length > 1 ? h("label", { class: "under small soft" }, "Probabilities under ", under) : null;
    this.body.replaceChildren(...[head, h("p", { class: "soft" }, "Reading the answer once more …")].filter(Boolean));
    try {
      const scored = await this.scores(card);
      const own = card.id === this.card.id;
      const note = scored.exact ? null : h("p", { class: "small soft" }, "The text was cut into tokens anew; they may differ from those it was written in.");
      const pick = own ? (at, chip) => alternatives(scored.tokens[at], chip, (alternative) => this.acts.goOn({ scored, at, alternative })) : null;
      const strip = tokenStrip(scored.tokens, { onPick: pick, name: own ? "Tokens; Enter shows alternatives" : "Tokens" });
      const hint = own ? h("p", { class: "small soft" }, "Click a token to see what else might have been there, and to go on from it.") : null;
      this.body.replaceChildren(...[head, strip, note, hint].filter(Boolean));
      if (this.cards.length > 1 && !own) under.focus();
    } catch (error) {
      this.body.replaceChildren(...[head, h("p", { class: "trouble", role: "alert" }, error.message)].filter(Boolean));
    }
  }

  // The answer under a model: { prompt_ids, tokens, exact }.
  scores(card) {
    const { answer } = this;
    const same = card.id === this.card?.id && answer.pieces.length && answer.pieces.every(([hex]) => hex !== null) && !answer.cut;
    return ask("/ui/tokens", { body: { model: card.id, ...this.asks(card.chats), retrieve: Boolean(answer.sources), text: answer.text, pieces: same ? answer.pieces.map(([hex]) => hex) : null } });
  }

  // Editing ------------------------------------------------------------------------------------------------------

  edit() {
    this.editing = true;
    const done = () => {
      this.editing = false;
      this.element.classList.remove("as-tokens");
      this.update();
      this.element.querySelector('[aria-label="Edit the answer"]')?.focus();
    };
    this.drawn?.();
    this.body.replaceChildren(editor(this.answer.text, "The answer as it should be", "Keep", (text) => {
      done();
      if (text !== this.answer.text) this.acts.edit(text);
    }, done));
    this.body.querySelector("textarea").focus();
  }
}

// A box to change a text in. Ctrl+Enter keeps, Escape gives up.
export function editor(text, name, keep, onKeep, onCancel) {
  const area = h("textarea", { "aria-label": name, value: text, rows: Math.min(16, text.split("\n").length + 1) });
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) onKeep(area.value);
    else if (event.key === "Escape") onCancel();
    else return;
    event.preventDefault();
    event.stopPropagation();
  });
  return h("div", { class: "editor" }, area, h("p", { class: "editor-acts" },
    h("button", { type: "button", class: "primary", onclick: () => onKeep(area.value) }, keep),
    h("button", { type: "button", class: "quiet", onclick: onCancel }, "Cancel")));
}
