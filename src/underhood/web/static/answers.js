// Answers of a conversation: models write them, and they can be chosen, corrected, rated and continued.

import { ask } from "./api.js";
import { say } from "./dom.js";
import * as store from "./store.js";
import * as talks from "./talk.js";
import { fillAnswer, textOf } from "./write.js";

export class Answers {
  constructor(chat) {
    this.chat = chat;
    this.running = new Map(); // answer id → { controller, view }
  }

  stopAll() {
    for (const { controller } of this.running.values()) controller.abort();
  }

  write(turn, lane) {
    const card = this.chat.card(lane);
    return this.#stream(turn, lane, card, talks.asksFor(this.chat.talk, lane, turn, card.chats), {});
  }

  // Both of two models are asked again, so that their draws stay alike.
  async again(turn, lane) {
    turn.seed = null;
    await Promise.all((this.chat.lanes.b ? this.chat.active : [lane]).map((each) => this.write(turn, each)));
  }

  // Goes on behind an answer: from one of its tokens with another in its place, or at its end.
  async goOn(turn, lane, answer, from) {
    const card = this.chat.cards.find((model) => model.id === answer.model);
    let { scored, at, alternative } = from ?? {};
    try {
      scored ??= await this.chat.views.get(answer.id).scores(card);
    } catch (error) {
      answer.error = error.message;
      this.chat.draw();
      return;
    }
    const kept = [...scored.tokens.slice(0, at ?? scored.tokens.length), ...(alternative ? [alternative] : [])].filter((token) => !token.special);
    const start = { text: textOf(kept.map(({ hex }) => hex)), pieces: kept.map(({ hex, logprob }) => [hex, logprob]), prefix: kept.length, sources: answer.sources };
    if (alternative?.special) {
      talks.addAnswer(this.chat.talk, turn, lane, { model: answer.model, ...start, finish: "stop" });
      this.chat.keep();
      this.chat.draw();
      return;
    }
    await this.#stream(turn, lane, card, { ids: [...scored.prompt_ids, ...kept.map((token) => token.id)] }, start);
  }

  async #stream(turn, lane, card, asks, start) {
    const { talk } = this.chat;
    const compared = this.chat.lanes.b !== null;
    const settings = { ...this.chat.settings };
    if (compared && (settings.temperature ?? 0) > 0) settings.seed ??= turn.seed ??= Math.floor(Math.random() * 1_000_000);
    const answer = talks.addAnswer(talk, turn, lane, { model: card.id, settings, ...start });
    const run = { controller: new AbortController(), view: null };
    this.running.set(answer.id, run);
    this.chat.draw();
    this.chat.turns.lastElementChild?.scrollIntoView({ block: "end" });
    let drawn = false;
    const draw = () => {
      drawn = false;
      const bottom = document.documentElement.scrollHeight - innerHeight - scrollY < 120;
      run.view?.update();
      if (bottom) scrollTo(0, document.documentElement.scrollHeight);
    };
    await fillAnswer(answer, card, asks, settings, run.controller.signal, () => {
      if (!drawn) requestAnimationFrame(draw);
      drawn = true;
    }, compared);
    this.running.delete(answer.id);
    if (run.view) run.view.live = false;
    run.view?.update();
    this.chat.drawSender();
    say(answer.error ?? `${card.id} has answered`);
    talk.updated = Date.now() / 1000;
    await store.put(talk);
    await this.chat.list.refresh(this.chat.talk.id);
  }

  choose(turn, lane, answer) {
    turn.chosen[lane] = answer.id;
    this.chat.keep();
    this.chat.draw();
  }

  edit(turn, lane, answer, text) {
    this.#feedback(turn, lane, answer, { edit: text });
    talks.addAnswer(this.chat.talk, turn, lane, { model: answer.model, text, edited: true, finish: "stop", sources: answer.sources });
    this.chat.keep();
    this.chat.draw();
  }

  async rate(turn, lane, answer, value) {
    const before = answer.rating;
    answer.rating = value;
    this.chat.views.get(answer.id)?.update();
    if (!(await this.#feedback(turn, lane, answer, { rating: value }))) answer.rating = before;
    this.chat.views.get(answer.id)?.update();
    this.chat.keep();
  }

  async #feedback(turn, lane, answer, facts) {
    const asks = talks.asksFor(this.chat.talk, lane, turn, true);
    try {
      await ask("/v1/feedback", { body: { model: answer.model, messages: asks.messages, answer: answer.text, ...facts } });
      say("Noted, thank you");
      return true;
    } catch (error) {
      this.chat.composer.querySelector(".composer-note").textContent = `The feedback was not kept: ${error.message}`;
      return false;
    }
  }
}
