// The panel of settings: the system prompt, the documents, and how text is drawn. What a
// person leaves alone is left to the server, and shown.

import { h } from "./dom.js";
import { plain as plainNumber } from "./numbers.js";
import { corpusLine } from "./sources.js";
import { NUMBERS, PRESETS, SETTINGS } from "./write.js";

// `state` holds { settings, system, documents, inForce }; `onChange` is told after every change.
export function controls(state, onChange) {
  const panel = h("form", { class: "settings", onsubmit: (event) => event.preventDefault() });
  const change = (name, value) => {
    if (value === null || value === "") delete state.settings[name];
    else state.settings[name] = value;
    onChange();
  };
  const build = () => panel.replaceChildren(
    h("label", { class: "field" }, h("span", {}, "System prompt"),
      h("textarea", { rows: 3, value: state.system(), placeholder: "None", onchange: (event) => state.setSystem(event.target.value) })),
    documentsSwitch(state.documents(), state.settings.retrieve, (name, value) => {
      change(name, value);
      build(); // answers from documents have defaults of their own
      panel.querySelector("#set-retrieve").focus();
    }) ?? "",
    h("div", { class: "presets", role: "group", "aria-label": "Ready-made settings" },
      Object.entries(PRESETS).map(([name, values]) => h("button", { type: "button", class: "quiet", onclick: () => {
        for (const { name: key } of SETTINGS) if (!["max_tokens", "seed"].includes(key)) delete state.settings[key];
        Object.assign(state.settings, values);
        build();
        onChange();
      } }, name))),
    ...SETTINGS.map((setting) => field(setting, state.settings[setting.name], state.inForce()[setting.name], (name, value, rebuild) => {
      change(name, value);
      if (rebuild) build();
    })),
    h("label", { class: "field" }, h("span", {}, "Stop at"), h("textarea", { rows: 2, class: "mono",
      value: (state.settings.stop ?? []).join("\n"), placeholder: "One text per line",
      onchange: (event) => change("stop", event.target.value.split("\n").filter(Boolean).slice(0, 16).length
        ? event.target.value.split("\n").filter(Boolean).slice(0, 16) : null) })));
  build();
  panel.rebuild = build;
  return panel;
}

// The settings that an address names, and an address that names them.
export function settingsIn(query) {
  const settings = {};
  for (const name of NUMBERS) {
    const value = query.get(name);
    if (value !== null && value !== "" && Number.isFinite(Number(value))) settings[name] = Number(value);
  }
  if (["on", "off"].includes(query.get("retrieve"))) settings.retrieve = query.get("retrieve") === "on";
  return query.has("stop") ? { ...settings, stop: query.getAll("stop") } : settings;
}

export function withSettings(query, settings) {
  for (const name of NUMBERS) if (name in settings) query.set(name, settings[name]);
  for (const text of settings.stop ?? []) query.append("stop", text);
  if ("retrieve" in settings) query.set("retrieve", settings.retrieve ? "on" : "off");
  return query;
}

// Whether answers are written from retrieved passages; null where there is nothing to retrieve from.
function documentsSwitch(documents, value, change) {
  if (!documents) return null;
  return h("div", { class: "field switch-field" },
    h("input", { type: "checkbox", role: "switch", id: "set-retrieve", checked: value ?? documents.on, "aria-describedby": "hint-retrieve",
      onchange: (event) => change("retrieve", event.target.checked === documents.on ? null : event.target.checked) }),
    h("label", { for: "set-retrieve" }, "Answer from the documents"),
    h("span", { class: "hint", id: "hint-retrieve" }, corpusLine(documents)));
}

// One setting: the slider and the number show what holds, whether a person set it or not.
function field({ name, label, min, max, step, hint, plain, open, none }, value, own, change) {
  const shown = value ?? own ?? none ?? null;
  const number = h("input", { type: "number", min, max: open ? null : max, step, value: shown ?? "", id: `set-${name}`,
    placeholder: plain ? "any" : "off", "aria-describedby": `hint-${name}`, inputmode: "decimal" });
  const slider = plain ? null : h("input", { type: "range", min, max, step, value: shown ?? max, "aria-label": `${label} by hand`, tabindex: "-1" });
  const reset = h("button", { type: "button", class: "link reset", hidden: value === undefined, onclick: () => {
    change(name, null, true);
    document.getElementById(`set-${name}`).focus();
  } }, `Back to the default${own === null || own === undefined ? "" : `, ${plainNumber(own)}`}`);
  const take = (text) => {
    const given = text === "" ? null : Number(text);
    const good = given === null || (Number.isFinite(given) && given >= min && (open || given <= max) && (step < 1 || Number.isInteger(given)));
    number.setAttribute("aria-invalid", String(!good));
    if (!good) return;
    reset.hidden = given === null;
    if (given === null) number.value = own ?? none ?? "";
    if (slider) slider.value = given ?? own ?? none ?? max;
    change(name, given);
  };
  number.addEventListener("change", () => take(number.value));
  slider?.addEventListener("input", () => {
    number.value = slider.value;
    take(slider.value);
  });
  return h("div", { class: "field number-field" }, h("label", { for: `set-${name}` }, label), number, slider,
    h("span", { class: "hint", id: `hint-${name}` }, hint), reset);
}
