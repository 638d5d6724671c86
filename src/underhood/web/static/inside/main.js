// The page that looks into a model: the prompt, the selection, and the panels over them.

import { Refused } from "../api.js";
import { h, typing } from "../dom.js";
import { chance, whole } from "../numbers.js";
import { ablationPanel } from "./ablation_panel.js";
import { attentionPanel } from "./attention_panel.js";
import { attributionPanel } from "./attribution_panel.js";
import { checksPanel } from "./checks_panel.js";
import { comparePanel } from "./compare_panel.js";
import { expertsPanel } from "./experts_panel.js";
import { factorsPanel } from "./factors_panel.js";
import { featuresPanel } from "./features_panel.js";
import { generationPanel } from "./generation_panel.js";
import { inductionPanel } from "./induction_panel.js";
import { lensPanel } from "./lens_panel.js";
import { mount } from "./panels.js";
import { partsPanel } from "./parts_panel.js";
import { pathsPanel } from "./paths_panel.js";
import { patchPanel } from "./patch_panel.js";
import { probesPanel } from "./probes_panel.js";
import { ranksPanel } from "./ranks_panel.js";
import { forgetSelected, onSelect, readAddress, select, selected, startSelection, step } from "./selection.js";
import { NotHere, openSource } from "./source.js";
import { steeringPanel } from "./steering_panel.js";
import { stepper, tokenLine } from "./strip.js";
import { tokensPanel } from "./tokens_panel.js";
import { trainingPanel } from "./training_panel.js";
import { tunedPanel } from "./tuned_panel.js";
import { walkPanel } from "./walk_panel.js";

const PANELS = [
  tokensPanel, walkPanel, lensPanel, tunedPanel, ranksPanel, probesPanel, attentionPanel, inductionPanel, expertsPanel, partsPanel, attributionPanel, ablationPanel, patchPanel, steeringPanel,
  factorsPanel, featuresPanel, pathsPanel, comparePanel, trainingPanel, generationPanel, checksPanel,
];

document.documentElement.classList.add("js");
const main = document.getElementById("main");
const nav = document.querySelector(".bar nav");
const bar = h("div", { class: "selection" });
const panels = h("div", { class: "panels" });
const headline = h("header", { class: "inside-head" });
const trouble = h("p", { class: "trouble page-trouble", role: "alert", hidden: true });
let source = null;
let prompt = "";
let overview = null;
let mounted = [];
let subject = null;

const modelOf = () => selected().model ?? source.start.first;

function wrong(error) {
  if (!(error instanceof Refused || error instanceof NotHere)) throw error;
  trouble.textContent = error.message;
  trouble.hidden = false;
}

async function open({ keep = false } = {}) {
  const wanted = { model: modelOf(), prompt };
  const first = (await source.view(wanted, "overview")).facts;
  if (wanted.model !== modelOf() || wanted.prompt !== prompt) return;
  trouble.hidden = true;
  const same = keep && overview && first.layers === overview.layers && first.tokens.map(({ id }) => id).join() === overview.tokens.map(({ id }) => id).join()
    && first.heads.join() === overview.heads.join();
  [overview, subject] = [first, wanted];
  head();
  if (same) {
    for (const panel of mounted) panel.again?.();
    return;
  }
  const tokens = first.tokens.length;
  startSelection({ token: tokens, layer: first.layers, head: Math.max(1, ...first.heads), key: tokens }, { token: tokens - 1, layer: source.start.layer ?? Math.max(0, first.layers - 1), head: 0 });
  const line = tokenLine(first.tokens);
  const steppers = [stepper("token", "Token", tokens), stepper("layer", "Layer", first.layers), stepper("head", "Head", Math.max(1, ...first.heads))];
  const told = h("p", { class: "small after number", role: "status" });
  bar.replaceChildren(line.element, h("div", { class: "selection-row" }, steppers.map(({ element }) => element), told));
  const outcome = source.view(subject, "outcome");
  const show = async () => {
    line.update();
    steppers.forEach((each) => each.update());
    const { facts, arrays } = await outcome;
    const at = selected().token;
    told.textContent = `next: ${facts.pieces[arrays.ids.data[at]]} ${chance(arrays.probabilities.data[at])}`;
  };
  forget();
  forget = onSelect(show);
  for (const panel of mounted) panel.end();
  const context = { source, overview: first, line, models: source.start.models };
  mounted = PANELS.map((panel) => mount(panels, { ...panel, open: (given) => panel.open({ ...given, subject: () => subject, overview: () => overview }) }, context));
  const places = source.start.places ? [["Chat", "/"], ["Runs", "/runs"], ["Path", "/path/"]].map(([name, address]) => h("a", { href: address, class: "place" }, name)) : [];
  nav.replaceChildren(...places, ...PANELS.map(({ id, title }) => h("a", { href: `#panel-${id}`, onclick: (event) => {
    event.preventDefault();
    document.getElementById(`panel-${id}`).scrollIntoView();
  } }, title)));
  await show();
}
let forget = () => {};

function head() {
  const { name, stage, step: trained, facts } = overview;
  const models = source.start.models;
  const field = h("input", { type: "text", id: "prompt", "aria-label": "Prompt", value: prompt, autocomplete: "off" });
  const form = source.live
    ? h("form", { class: "prompt-form", onsubmit: (event) => {
      event.preventDefault();
      go(field.value);
    } }, field, h("button", { class: "primary", type: "submit" }, "Look inside"))
    : h("p", { class: "prompt-shown" }, prompt);
  const choice = models.length > 1
    ? h("label", { class: "field-inline" }, "Model ", h("select", { id: "model", onchange: (event) => select({ model: event.target.value }, { push: true }) },
      models.map(({ id }) => h("option", { value: id, selected: id === subject.model }, id)))) : null;
  const words = [trained ? `${stage}, ${whole(trained)} steps` : stage === "published" ? "" : stage, `${overview.layers} layers`, `width ${whole(overview.width)}`, ...Object.entries(facts).slice(4).map(([label, value]) => `${label.toLowerCase()}: ${value}`)];
  headline.replaceChildren(h("h1", {}, name), form, h("p", { class: "small soft" }, words.filter(Boolean).join(" · ")), choice);
  document.title = `${prompt} · ${name} · Underhood`;
}

// Another prompt: the address keeps it, and back leads to the one before.
function go(text) {
  if (text === prompt) return;
  prompt = text;
  const query = new URLSearchParams(location.search);
  query.set("prompt", text);
  history.pushState(null, "", `${location.pathname}?${query}`);
  forgetSelected("token", "key", "extra");
  open().catch(wrong);
}

function readPrompt() {
  return (source.live && new URLSearchParams(location.search).get("prompt")) || source.start.prompt;
}

addEventListener("popstate", () => {
  if (!source || readPrompt() === prompt) return;
  prompt = readPrompt();
  readAddress();
  open().catch(wrong);
});

document.addEventListener("keydown", (event) => {
  if (event.metaKey || event.ctrlKey || event.altKey || typing(event) || event.target.matches?.("input, select, button")) return;
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!by) return;
  event.preventDefault();
  step("token", by);
});

main.append(headline, trouble, bar, panels);
readAddress();
try {
  source = await openSource();
  prompt = readPrompt();
  onSelect((changed) => changed.has("model") && open({ keep: true }).catch(wrong));
  await open();
} catch (error) {
  wrong(error);
}
