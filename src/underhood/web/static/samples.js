// What the checkpoints of a run say to the same prompt, side by side: those the evaluation asked, and any of one's own.

import { ask } from "./api.js";
import { h, stageName } from "./dom.js";
import { whole } from "./numbers.js";
import { modelHue, modelTitle } from "./stages.js";
import { note } from "./state.js";
import { tokenStrip } from "./tokens.js";

export function samplesPart(name, query) {
  const field = h("input", { type: "text", id: "sample-prompt", value: query.get("prompt") ?? "", autocomplete: "off" });
  const button = h("button", { class: "primary" }, "Ask every checkpoint");
  const columns = h("div", { class: "sample-columns" });
  const recorded = h("div", { class: "recorded" });
  const form = h("form", { class: "sample-form", onsubmit: (event) => {
    event.preventDefault();
    askAll();
  } }, h("label", { for: "sample-prompt" }, "Prompt"), field, button);
  const element = h("div", {}, form, columns, recorded);
  let checkpoints = [];
  let asking = null;
  let first = true;

  async function askAll() {
    const prompt = field.value.trim();
    if (!prompt) return;
    const kept = new URLSearchParams(location.search);
    kept.set("prompt", prompt);
    note(kept);
    asking?.abort();
    const controller = (asking = new AbortController());
    const cells = checkpoints.map((checkpoint) => {
      const body = h("div", { class: "sample-body soft" }, "waiting");
      return { checkpoint, body, element: h("article", { class: `answer ${checkpoint.hue}` }, h("header", {}, stageName(modelTitle(checkpoint.stage), checkpoint.hue), h("span", { class: "end" }, `step ${whole(checkpoint.step)}`)), body) };
    });
    columns.replaceChildren(...cells.map((cell) => cell.element));
    for (const { checkpoint, body } of cells) {
      if (controller.signal.aborted) return;
      body.textContent = "writing …";
      try {
        const answer = await ask(`/ui/runs/${encodeURIComponent(name)}/sample`, { body: { stage: checkpoint.stage, step: checkpoint.step, prompt }, signal: controller.signal });
        body.classList.remove("soft");
        body.replaceChildren(answer.tokens.length ? tokenStrip(answer.tokens, { name: `Tokens of ${checkpoint.stage} ${checkpoint.step}` }) : h("p", { class: "soft" }, "(nothing)"),
          h("p", { class: "small soft" }, [answer.chats ? "" : "goes on with the prompt", answer.ended ? "ended by itself" : "cut off at the length limit"].filter(Boolean).join(" · ")));
      } catch (error) {
        if (error.name === "AbortError") return;
        body.replaceChildren(h("p", { class: "trouble" }, error.message));
      }
    }
  }

  function update(run) {
    checkpoints = run.checkpoints;
    form.hidden = !checkpoints.length;
    recorded.replaceChildren(...(run.samples.length ? [h("h3", {}, "As the evaluation recorded them"), ...run.samples.map(sample)] : []));
    if (!checkpoints.length && !run.samples.length) recorded.replaceChildren(h("p", { class: "soft" }, "There is nothing to show before the first checkpoint."));
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
