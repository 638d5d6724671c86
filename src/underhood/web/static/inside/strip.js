// The prompt in one line of tokens that stays in sight: click or arrow keys choose the token that every panel is about.
// Left and right move between tokens, up and down between layers, Page Up and Page Down between heads.

import { h } from "../dom.js";
import { chance } from "../numbers.js";
import { magnitude } from "./colours.js";
import { select, selected, step } from "./selection.js";

export function tokenLine(tokens) {
  const chips = tokens.map((token, index) => h("span", {
    class: `chip${token.special ? " special" : ""}`, role: "option", id: `at-${index}`, "aria-selected": "false", data: { index },
    title: `token ${index}, id ${token.id}`,
  }, token.shown));
  const line = h("div", { class: "line", role: "listbox", tabindex: "0", "aria-label": "Tokens of the prompt", "aria-orientation": "horizontal" }, chips);
  const keys = { ArrowLeft: ["token", -1], ArrowRight: ["token", 1], ArrowUp: ["layer", 1], ArrowDown: ["layer", -1], PageUp: ["head", 1], PageDown: ["head", -1],
    Home: ["token", -1e9], End: ["token", 1e9] };

  line.addEventListener("click", (event) => {
    const chip = event.target.closest(".chip");
    if (chip) select({ token: Number(chip.dataset.index) });
  });
  line.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.metaKey || event.ctrlKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    step(...keys[event.key]);
  });

  function update() {
    const { token } = selected();
    chips.forEach((chip, index) => {
      chip.classList.toggle("here", index === token);
      chip.setAttribute("aria-selected", String(index === token));
    });
    line.setAttribute("aria-activedescendant", chips[token].id);
    const chip = chips[token];
    if (chip.offsetLeft < line.scrollLeft + 24 || chip.offsetLeft + chip.offsetWidth > line.scrollLeft + line.clientWidth - 24) {
      line.scrollLeft = chip.offsetLeft - line.clientWidth / 2;
    }
  }

  // Colours the tokens by weights from 0 to 1; null takes the colours away.
  function colour(weights) {
    chips.forEach((chip, index) => {
      const paint = weights && Number.isFinite(weights[index]) ? magnitude(weights[index]) : null;
      chip.style.setProperty("background", paint ? paint.fill : "");
      chip.style.setProperty("color", paint ? paint.ink : "");
      chip.title = `token ${index}, id ${tokens[index].id}${paint ? `, weight ${chance(weights[index])}` : ""}`;
    });
  }

  return { element: line, update, colour };
}

// A number with its name, moved by buttons or keys.
export function stepper(name, label, count) {
  const shown = h("output", { class: "number" });
  const button = (by, sign, words) => h("button", { type: "button", class: "quiet", "aria-label": words, onclick: () => step(name, by) }, sign);
  const [less, more] = [button(-1, "−", `${label} before`), button(1, "+", `${label} after`)];
  const element = h("div", { class: "stepper", role: "group", "aria-label": label }, h("span", { class: "soft" }, label), less, shown, more);
  function update() {
    const at = selected()[name] ?? 0;
    shown.textContent = `${at} / ${count - 1}`;
    less.disabled = at <= 0;
    more.disabled = at >= count - 1;
  }
  return { element, update };
}
