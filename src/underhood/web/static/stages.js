// The training stages as the server lists them: titles, marks, their curves.

import { ask } from "./api.js";

const OTHERS = { data: "Reading data", tokenizer: "Tokenizer", plan: "Planning", eval: "Evaluating",
  report: "Writing the report", classify: "Classification" };
const known = { stages: new Map(), models: new Map() };

// Called once, before anything is drawn.
export async function loadStages() {
  for (const stage of (await ask("/ui/stages")).stages) {
    known.stages.set(stage.stage, stage);
    known.models.set(stage.model, stage);
  }
}

export const stageTitle = (stage) => known.stages.get(stage)?.title ?? OTHERS[stage] ?? stage;
export const modelTitle = (model) => known.models.get(model)?.model_title ?? model;
export const modelHue = (model) => (known.models.has(model) ? model : "plain");
export const markOf = (hue) => known.models.get(hue)?.mark;
// How many curves of a stage are shown before one asks for more.
export const firstCurves = (stage) => known.stages.get(stage)?.first_curves ?? 2;
