// The token strip: a text as its tokens, coloured by how probable each was. Pointing at one, or moving with the arrow
// keys, reads it off; clicking it (or Enter) shows what else might have been there.

import { h } from "./dom.js";
import { chance, decimal, whole } from "./numbers.js";

const BOUNDS = [0.01, 0.1, 0.5, 0.9];
const WORDS = ["below 1 %", "to 10 %", "to 50 %", "to 90 %", "90 % and more"];

let strips = 0; // numbers the strips, for ids

const level = (logprob) => BOUNDS.filter((bound) => Math.exp(logprob) >= bound).length;

export function facts({ shown, id, hex, logprob, rank }) {
  const bytes = hex ? `${hex.length / 2} byte${hex.length === 2 ? "" : "s"}: ${hex.replace(/(..)(?=.)/g, "$1 ")}` : "special";
  return `${shown}  ·  id ${id}  ·  ${bytes}  ·  ${chance(Math.exp(logprob))}, ${decimal(-logprob / Math.LN2, 1)} bits` +
    (rank ? `  ·  likeliest but ${whole(rank - 1)}`.replace("likeliest but 0", "the likeliest") : "");
}

// `onPick(index, element)` is called with the token that was clicked; null where there is nothing to pick from.
export function tokenStrip(tokens, { name = "Tokens of the answer", onPick = null } = {}) {
  strips += 1;
  const chips = tokens.map((token, index) => h("span", {
    class: `token l${level(token.logprob)}${token.logprob < Math.log(BOUNDS[0]) ? " surprise" : ""}${token.special ? " special" : ""}`,
    role: "option", "aria-selected": "false", id: `token-${strips}-${index}`, data: { index },
    "aria-label": `${token.shown}, ${chance(Math.exp(token.logprob))}`,
  }, token.shown));
  const bits = -tokens.reduce((sum, token) => sum + token.logprob, 0) / Math.LN2;
  const idle = tokens.length
    ? `${whole(tokens.length)} tokens, ${decimal(bits / tokens.length, 2)} bits each on average: as open as ${decimal(2 ** (bits / tokens.length), 1)} equal choices`
    : "No tokens.";
  const read = h("p", { class: "token-read" }, idle);
  const strip = h("div", { class: "strip", role: "listbox", tabindex: "0", "aria-label": name },
    chips.map((chip, index) => [chip, /0a/.test(tokens[index].hex.match(/../g)?.join(" ") ?? "") ? h("br", { "aria-hidden": "true" }) : h("wbr", {})]));
  let at = 0;

  const tell = (index) => (read.textContent = facts(tokens[index]));

  function move(index) {
    chips[at].classList.remove("here");
    chips[at].setAttribute("aria-selected", "false");
    at = Math.min(Math.max(index, 0), chips.length - 1);
    chips[at].classList.add("here");
    chips[at].setAttribute("aria-selected", "true");
    strip.setAttribute("aria-activedescendant", chips[at].id);
    tell(at);
  }

  // The nearest token in the line above or below.
  function line(direction) {
    const from = chips[at].getBoundingClientRect();
    let [best, distance] = [at, Infinity];
    for (let index = at + direction; chips[index]; index += direction) {
      const there = chips[index].getBoundingClientRect();
      if (Math.abs(there.top - from.top) < from.height / 2) continue;
      if (Math.abs(there.top - from.top) > 2.5 * from.height && best !== at) break;
      const away = Math.abs(there.left - from.left) + 4 * Math.abs(there.top - from.top);
      if (away < distance) [best, distance] = [index, away];
    }
    return best;
  }

  const indexOf = (event) => Number(event.target.closest?.(".token")?.dataset.index ?? -1);
  if (chips.length) {
    strip.addEventListener("pointerover", (event) => indexOf(event) >= 0 && tell(indexOf(event)));
    strip.addEventListener("pointerleave", () => (read.textContent = document.activeElement === strip ? facts(tokens[at]) : idle));
    strip.addEventListener("click", (event) => {
      if (indexOf(event) < 0) return;
      move(indexOf(event));
      onPick?.(at, chips[at]);
    });
    strip.addEventListener("focus", () => move(at));
    strip.addEventListener("blur", () => {
      chips[at].classList.remove("here");
      read.textContent = idle;
    });
    strip.addEventListener("keydown", (event) => {
      const moves = { ArrowRight: () => move(at + 1), ArrowLeft: () => move(at - 1), ArrowDown: () => move(line(1)),
        ArrowUp: () => move(line(-1)), Home: () => move(0), End: () => move(chips.length - 1), Enter: () => onPick?.(at, chips[at]) };
      if (!(event.key in moves) || event.metaKey || event.ctrlKey || event.altKey) return;
      moves[event.key]();
      event.preventDefault();
    });
  }
  return h("div", { class: "token-view" }, key(), strip, read);
}

function key() {
  return h("p", { class: "key" }, "Probability",
    WORDS.map((words, index) => h("span", { class: "key-part" }, h("i", { class: `token l${index}${index ? "" : " surprise"}` }), words)));
}

// What might have been in a token's place: a list to choose from, beside the token or, on a phone, at the bottom.
export function alternatives(token, anchor, onChoose) {
  const best = Math.exp(token.top[0].logprob);
  const row = (alternative) => {
    const own = alternative.id === token.id;
    const bar = h("span", { class: "bar-track", "aria-hidden": "true" },
      h("span", { class: "bar-part", style: { width: `${Math.max(1, (100 * Math.exp(alternative.logprob)) / best)}%` } }));
    return h("li", {}, h("button", { type: "button", "aria-current": own ? "true" : null, disabled: own,
      onclick: () => { menu.hidePopover(); onChoose(alternative); } },
      h("code", {}, alternative.shown), bar, h("span", { class: "number" }, chance(Math.exp(alternative.logprob)))));
  };
  const listed = token.top.some((alternative) => alternative.id === token.id);
  const menu = h("div", { class: "alternatives", popover: "auto", role: "dialog", "aria-label": `Instead of ${token.shown}` },
    h("p", { class: "small soft" }, "Go on from another token"),
    h("ol", {}, token.top.map(row), listed ? null : [h("li", { class: "gap", "aria-hidden": "true" }, "…"), row(token)]));
  menu.addEventListener("toggle", (event) => event.newState === "closed" && menu.remove());
  menu.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...menu.querySelectorAll("button:not(:disabled)")];
    buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length].focus();
    event.preventDefault();
  });
  document.body.append(menu);
  menu.showPopover();
  if (matchMedia("(min-width: 40.01rem)").matches) {
    const box = anchor.getBoundingClientRect();
    const low = box.bottom + menu.offsetHeight + 8 < innerHeight;
    menu.style.left = `${Math.max(8, Math.min(box.left, innerWidth - menu.offsetWidth - 8))}px`;
    menu.style.top = `${low ? box.bottom + 4 : Math.max(8, box.top - menu.offsetHeight - 4)}px`;
  }
  menu.querySelector("button:not(:disabled)")?.focus();
}
