// Training before a panel can be shown: how long it takes, a button that begins it, and how far it is.

import { Refused } from "../api.js";
import { h } from "../dom.js";
import { decimal, duration, whole } from "../numbers.js";

const ASK_EVERY = 400; // milliseconds

// options: { source, subject, kind, redraw() } — `redraw` draws the panel anew when the training has ended.
export function fitting({ source, subject, kind, redraw }) {
  const told = h("p", { class: "small", role: "status" });
  const bar = h("progress", { max: 1 });
  const pace = h("span", { class: "small soft number" });
  const begin = h("button", { type: "button", class: "primary", onclick: () => act("start") }, "Train");
  const end = h("button", { type: "button", class: "quiet", onclick: () => act("stop") }, "Stop");
  const work = h("p", { class: "fitting-work" }, bar, pace, end);
  const element = h("div", { class: "fitting", hidden: true }, told, begin, work);
  let variant = "";
  let round = 0;

  function say(words) {
    if (told.textContent !== words) told.textContent = words;
  }

  function show(state) {
    const going = state.state === "waiting" || state.state === "running";
    element.hidden = state.state === "done";
    begin.hidden = going || state.state === "no text";
    work.hidden = !going;
    told.classList.toggle("soft", state.state !== "failed");
    told.classList.toggle("trouble", state.state === "failed");
    if (state.title) begin.textContent = `Train the ${state.title}`;
    bar.setAttribute("aria-label", begin.textContent);
    if (state.state === "waiting") {
      say("It begins when another training has ended.");
      bar.removeAttribute("value");
      pace.textContent = "";
    } else if (state.state === "running") {
      say("It is being trained; the other panels go on meanwhile.");
      if (state.step) bar.value = state.step / state.steps;
      else bar.removeAttribute("value");
      pace.textContent = state.step ? `step ${whole(state.step)} of ${whole(state.steps)}${state.left ? `, ${duration(Math.max(state.left, 1))} left` : ""}` : "reads the text";
    } else if (state.state === "no text" || state.state === "failed") say(state.message.charAt(0).toUpperCase() + state.message.slice(1));
    else if (state.state !== "done") {
      const seconds = state.seconds < 9.5 ? `${decimal(Math.max(1, state.seconds), 0)} s` : duration(state.seconds < 60 ? 5 * Math.ceil(state.seconds / 5) : state.seconds);
      say(`${state.state === "stopped" ? "It was stopped. " : ""}The ${state.title} must be trained first, once for ${state.once}: on ${whole(state.characters)} characters of ${state.text}, in about ${seconds} on this machine.`);
    }
    return going;
  }

  async function act(action) {
    round += 1;
    const own = round;
    begin.disabled = end.disabled = true;
    await watch(source.fit(subject(), kind, variant, action), own);
    begin.disabled = end.disabled = false;
  }

  // Asks how far the training is until it has ended, or the panel is about something else.
  async function watch(coming, own) {
    try {
      let state = await coming;
      while (own === round && element.isConnected && show(state)) {
        begin.disabled = end.disabled = false;
        await new Promise((resolve) => setTimeout(resolve, ASK_EVERY));
        if (own !== round || !element.isConnected) return;
        state = await source.fit(subject(), kind, variant);
      }
      if (own === round && state.state === "done") redraw();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (own === round) show({ state: "failed", message: error.message });
    }
  }

  // Whether a variant is trained; what there is to do about it is shown.
  async function ready(current, wanted = "") {
    round += 1;
    const own = round;
    variant = wanted;
    const state = await source.fit(subject(), kind, variant);
    if (!current() || own !== round) return false;
    if (show(state)) watch(Promise.resolve(state), own);
    return state.state === "done";
  }

  return { element, ready };
}
