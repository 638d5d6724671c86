// What a run's model writes while it learns: the samples of its training as a film, any prompt put to every checkpoint
// as another, and what the evaluation recorded.

import { ask } from "./api.js";
import { h, say, stageName } from "./dom.js";
import { film } from "./film.js";
import { modelHue, modelTitle } from "./stages.js";
import { note } from "./state.js";
import { tokenStrip } from "./tokens.js";

export function samplesPart(name, query) {
  const field = h("input", { type: "text", id: "sample-prompt", value: query.get("prompt") ?? "", autocomplete: "off" });
  const button = h("button", { class: "primary" }, "Ask every checkpoint");
  const answers = film("Answers of the checkpoints");
  const trained = h("div", { class: "films" });
  const recorded = h("div", { class: "recorded" });
  const form = h("form", { class: "sample-form", onsubmit: (event) => {
    event.preventDefault();
    askAll();
  } }, h("label", { for: "sample-prompt" }, "Prompt"), field, button);
  const element = h("div", {}, trained, form, answers.element, recorded);
  const films = new Map(); // stage → { film, bodies by step }
  let checkpoints = [];
  let asking = null;
  let first = true;
  answers.element.hidden = true;

  async function askAll() {
    const prompt = field.value.trim();
    if (!prompt) return;
    const kept = new URLSearchParams(location.search);
    kept.set("prompt", prompt);
    note(kept);
    asking?.abort();
    const controller = (asking = new AbortController());
    const frames = checkpoints.map((checkpoint) => ({
      ...checkpoint, title: modelTitle(checkpoint.stage), body: h("div", { class: "frame-body soft", "aria-busy": "true" }, "waiting"),
    }));
    answers.element.hidden = false;
    answers.show(frames);
    answers.go(0);
    for (const { stage, step, body } of frames) {
      if (controller.signal.aborted) return;
      body.textContent = "writing …";
      try {
        const answer = await ask(`/ui/runs/${encodeURIComponent(name)}/sample`, { body: { stage, step, prompt }, signal: controller.signal });
        body.classList.remove("soft");
        body.replaceChildren(answer.tokens.length ? tokenStrip(answer.tokens, { name: `Tokens of ${stage} ${step}` }) : h("p", { class: "soft" }, "(nothing)"),
          h("p", { class: "small soft" }, [answer.chats ? "" : "goes on with the prompt", answer.ended ? "ended by itself" : "cut off at the length limit"].filter(Boolean).join(" · ")));
      } catch (error) {
        if (error.name === "AbortError") return;
        body.replaceChildren(h("p", { class: "trouble" }, error.message));
      }
      body.setAttribute("aria-busy", "false");
    }
    say("Every checkpoint has answered");
  }

  // The samples that training itself took from one prompt, each frame once; more come while it goes on.
  function drawFilms(rows) {
    for (const { stage, label, hue, prompt, frames } of rows) {
      if (!films.has(stage)) {
        const strip = film(`${label} learns`);
        films.set(stage, { strip, bodies: new Map() });
        trained.append(h("section", { class: hue, "aria-label": `${label} learns` }, h("h3", {}, stageName(`${label}, as it learns`, hue)),
          h("p", { class: "small soft film-prompt" }, "From ", h("q", {}, prompt.trim() || "nothing"), " at each moment, the same way every time:"), strip.element));
      }
      const { strip, bodies } = films.get(stage);
      strip.show(frames.map((frame) => {
        const key = `${frame.step} ${frame.text}`;
        if (!bodies.has(key)) bodies.set(key, h("div", { class: "frame-body" }, h("p", { class: "text" }, frame.text || "(nothing)")));
        return { ...frame, title: "", hue, body: bodies.get(key) };
      }));
    }
  }

  function update(run) {
    checkpoints = run.checkpoints;
    form.hidden = !checkpoints.length;
    drawFilms(run.films);
    recorded.replaceChildren(...(run.samples.length ? [h("h3", {}, "As the evaluation recorded them"), ...run.samples.map(sample)] : []));
    if (!checkpoints.length && !run.samples.length && !run.films.length) recorded.replaceChildren(h("p", { class: "soft" }, "There is nothing to show before the first checkpoint."));
    if (first && checkpoints.length) {
      first = false;
      if (field.value) askAll();
      else field.value = run.samples[0]?.prompt ?? "";
    }
  }

  return { element, update };
}

function sample({ prompt, expected, answers }) {
  return h("details", { class: "sample" }, h("summary", {}, prompt), expected ? h("p", { class: "small soft" }, `Expected: ${expected}`) : null,
    h("div", { class: "sample-columns" }, Object.entries(answers).map(([stage, answer]) => h("article", { class: `answer ${modelHue(stage)}` },
      h("header", {}, stageName(modelTitle(stage), modelHue(stage)), h("span", { class: "end" }, answer.ended ? "ended by itself" : "cut off")),
      h("p", { class: "text" }, answer.text || "(nothing)")))));
}
