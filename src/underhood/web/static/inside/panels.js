// Panels: each is drawn when it comes into sight, told when the selection changes, and says itself when it can't be
// shown.

import { Refused } from "../api.js";
import { h } from "../dom.js";
import { onSelect } from "./selection.js";
import { NotHere } from "./source.js";

// A panel: { id, title, words, needs: what it depends on of the selection, lacks(overview) → why it does not apply,
// open(context) → { element, update(current) } }. `current()` says whether the update is still wanted; the context's
// `redraw()` asks for one.
export function mount(root, panel, context) {
  const body = h("div", { class: "panel-body" });
  const trouble = h("p", { class: "panel-note soft", role: "status", hidden: true });
  const section = h("section", { class: "panel", id: `panel-${panel.id}`, "aria-labelledby": `title-${panel.id}` },
    h("h2", { id: `title-${panel.id}` }, panel.title), panel.words ? h("p", { class: "small soft panel-words" }, panel.words) : null, body, trouble);
  root.append(section);
  const why = panel.lacks?.(context.overview);
  if (why) {
    tell(why);
    section.classList.add("lacking");
    return { section, end: () => section.remove() };
  }
  let view = null;
  let visible = false;
  let stale = true;
  let round = 0;

  function tell(words, wrong = false) {
    trouble.hidden = !words;
    trouble.textContent = words ?? "";
    trouble.classList.toggle("trouble", wrong);
  }

  async function update() {
    if (!visible) {
      stale = true;
      return;
    }
    stale = false;
    round += 1;
    const own = round;
    section.setAttribute("aria-busy", "true");
    try {
      if (!view) {
        view = panel.open({ ...context, redraw: update });
        body.append(view.element);
      }
      await view.update(() => own === round && section.isConnected);
      if (own === round) tell(null);
    } catch (error) {
      if (own !== round) return;
      if (!(error instanceof NotHere || error instanceof Refused)) throw error;
      tell(error.message, error instanceof Refused);
    } finally {
      if (own === round) section.setAttribute("aria-busy", "false");
    }
  }

  const watcher = new IntersectionObserver((entries) => {
    visible = entries.at(-1).isIntersecting;
    if (visible && stale) update();
  }, { rootMargin: "200px" });
  watcher.observe(section);
  const forget = onSelect((changed) => (panel.needs ?? ["token", "layer", "head"]).some((name) => changed.has(name)) && update());
  return {
    section,
    again: update,
    end() {
      watcher.disconnect();
      forget();
      round += 1;
      section.remove();
    },
  };
}
