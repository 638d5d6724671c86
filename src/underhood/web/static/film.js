// A filmstrip: one frame per moment of the training, side by side in order, with a scrubber. A frame is gone to by the
// scrubber, the arrow keys, a swipe or a wheel; nothing glides where the system asks for less motion.

import { h, iconButton, stageName } from "./dom.js";
import { duration, whole } from "./numbers.js";

// A film called `name`. `show` takes [{ title, hue, step, seconds, body }] in order; bodies may be filled in later. A
// title is left out where all frames would have the same.
// Frames whose body is the one shown before keep their element, so that what is read stays where it is.
export function film(name) {
  const strip = h("ol", { class: "film-strip", tabindex: "0", "aria-label": `${name}. Arrow keys go from frame to frame`, onkeydown: keys, onscroll: follow });
  const scrubber = h("input", { type: "range", min: 0, max: 0, step: 1, value: 0, "aria-label": `Frame of ${name}`, oninput: () => go(Number(scrubber.value)) });
  const count = h("output", { class: "small soft number" });
  const before = iconButton("left", "Frame before", () => go(at - 1));
  const next = iconButton("right", "Next frame", () => go(at + 1));
  const element = h("div", { class: "film" }, h("div", { class: "film-scrub" }, before, scrubber, next, count), strip);
  let frames = [];
  let at = 0;
  let travelling = 0; // until when scrolling is the film's own, in milliseconds

  function go(index) {
    mark(Math.min(Math.max(index, 0), frames.length - 1));
    const frame = strip.children[at];
    if (!frame) return;
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    travelling = performance.now() + (still ? 100 : 600);
    strip.scrollTo({ left: frame.offsetLeft - strip.offsetLeft - (strip.clientWidth - frame.offsetWidth) / 2, behavior: still ? "instant" : "smooth" });
  }

  function mark(index) {
    at = index;
    [...strip.children].forEach((frame, number) => (number === at ? frame.setAttribute("aria-current", "step") : frame.removeAttribute("aria-current")));
    scrubber.value = at;
    scrubber.setAttribute("aria-valuetext", frames[at] ? [frames[at].title, momentOf(frames[at])].filter(Boolean).join(", ") : "");
    count.textContent = frames.length ? `${at + 1} of ${frames.length}` : "";
    before.disabled = at === 0;
    next.disabled = at >= frames.length - 1;
  }

  function follow() {
    if (performance.now() < travelling || strip.scrollWidth <= strip.clientWidth + 1) return;
    const share = strip.scrollLeft / (strip.scrollWidth - strip.clientWidth);
    mark(Math.round(share * (frames.length - 1)));
  }

  function keys(event) {
    const moves = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: Infinity };
    if (event.target !== strip || !(event.key in moves)) return;
    event.preventDefault();
    go(moves[event.key]);
  }

  function show(given) {
    const bodies = frames.map((frame) => frame.body);
    const last = at >= frames.length - 1;
    const elements = given.map((frame) => {
      const index = bodies.indexOf(frame.body);
      return index >= 0 ? strip.children[index] : h("li", { class: `frame ${frame.hue}` },
        h("header", {}, frame.title ? stageName(frame.title, frame.hue) : null, h("span", { class: "soft" }, momentOf(frame))), frame.body);
    });
    const grown = frames.length > 0 && given.length > frames.length;
    frames = given;
    if (elements.some((frame, index) => strip.children[index] !== frame) || elements.length !== strip.children.length) strip.replaceChildren(...elements);
    scrubber.max = Math.max(frames.length - 1, 0);
    element.querySelector(".film-scrub").hidden = frames.length < 2;
    if (grown && last) go(Infinity);
    else mark(Math.min(at, Math.max(frames.length - 1, 0)));
  }

  return { element, show, go };
}

function momentOf({ step, seconds }) {
  return [`step ${whole(step)}`, seconds === null || seconds === undefined ? "" : step === 0 ? "at the beginning" : `after ${duration(seconds)}`].filter(Boolean).join(" · ");
}
