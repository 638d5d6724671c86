// Two runs side by side: their curves on one scale, what was measured, and which settings differ.

import { ask } from "./api.js";
import { curveFigure } from "./curve.js";
import { h, stageName } from "./dom.js";
import { plain } from "./numbers.js";
import { section, scrolling } from "./parts.js";
import { poll } from "./poll.js";
import { firstCurves } from "./stages.js";
import { go, note } from "./state.js";

export function compareRuns(root, { query }) {
  const names = [query.get("a"), query.get("b")];
  root.className = "page";
  const select = (side, all) => h("select", { "aria-label": side ? "Second run" : "First run", onchange: (event) => {
    names[side] = event.target.value;
    go(`/compare?a=${encodeURIComponent(names[0])}&b=${encodeURIComponent(names[1])}`, { replace: true });
  } }, all.map((name) => h("option", { value: name, selected: name === names[side] }, name)));
  const head = h("h1", {}, `${names[0]} and ${names[1]}`);
  const picks = h("p", { class: "compare-picks" });
  const curves = h("div", { class: "curve-stages" });
  const results = h("div", {});
  const settings = h("div", {});
  let everything = query.get("all") === "1";
  root.append(h("p", { class: "crumb" }, h("a", { href: "/runs" }, "Runs")), head, picks,
    section("Curves", curves), section("Results", results), section("Settings", settings));
  document.title = `${names[0]} and ${names[1]} · Runs · Underhood`;
  const figures = new Map();
  let seen = "";
  let running = true;

  function drawCurves(runs) {
    const stages = runs[0].stages.filter((stage) => runs[1].stages.some((other) => other.stage === stage.stage));
    const sections = stages.map((stage) => {
      const other = runs[1].stages.find((candidate) => candidate.stage === stage.stage);
      const shared = stage.curves.filter((curve) => other.curves.some((candidate) => candidate.key === curve.key)).slice(0, firstCurves(stage.stage));
      const boxes = shared.map((curve) => {
        const key = `${stage.stage}.${curve.key}`;
        if (!figures.has(key)) figures.set(key, curveFigure(stage.hue));
        figures.get(key).update([{ name: names[0], data: curve }, { name: names[1], data: other.curves.find((candidate) => candidate.key === curve.key) }]);
        return figures.get(key).element;
      });
      return h("section", { class: "curve-stage", "aria-label": stage.label }, h("h3", {}, stageName(stage.label, stage.hue)),
        h("p", { class: "lane-key small" }, h("span", { class: "lane-line lane-0" }), ` ${names[0]}`, h("span", { class: "lane-line lane-1" }), ` ${names[1]}`), h("div", { class: "curve-grid" }, boxes));
    });
    curves.replaceChildren(...(sections.length ? sections : [h("p", { class: "soft" }, "They have no stage of training in common.")]));
  }

  function drawSettings(rows) {
    const differ = rows.filter((row) => !row.same);
    const shown = everything ? rows : differ;
    const cell = (value) => (value === null || value === undefined ? h("td", { class: "soft" }, "–") : h("td", {}, plain(value)));
    const toggle = h("label", { class: "small" }, h("input", { type: "checkbox", checked: everything, onchange: (event) => {
      everything = event.target.checked;
      const kept = new URLSearchParams(location.search);
      if (everything) kept.set("all", "1");
      else kept.delete("all");
      note(kept);
      drawSettings(rows);
    } }), " also what is the same");
    settings.replaceChildren(h("p", {}, differ.length ? `${differ.length} of ${rows.length} differ. ` : `All ${rows.length} are the same. `, toggle),
      shown.length ? scrolling("Settings", h("table", { class: "grid diff" }, headOf("Setting"), h("tbody", {}, shown.map((row) =>
        h("tr", { class: row.same ? "same" : "differs" }, h("th", { scope: "row", class: "plain-head" }, row.same ? null : h("span", { "aria-hidden": "true" }, "≠ "), h("code", {}, row.key)), cell(row.a), cell(row.b)))))) : "");
    if (everything) settings.querySelector("input").focus({ preventScroll: true });
  }

  const headOf = (first, more = []) => h("thead", {}, h("tr", {}, [first, ...more, ...names].map((name) => h("th", { scope: "col" }, name))));

  function drawResults(rows) {
    const both = rows.filter((row) => row.hue !== "baseline");
    const cell = (row) => h("td", { class: "number nowrap" }, row ? [row.text, row.interval ? h("small", { class: "soft" }, ` ${row.interval}`) : ""] : h("span", { class: "soft" }, "–"));
    results.replaceChildren(both.length ? scrolling("Table of results", h("table", { class: "grid" }, headOf("Measured", ["Model"]), h("tbody", {}, both.map((row) =>
      h("tr", {}, h("th", { scope: "row", class: "plain-head" }, row.question, h("span", { class: "small soft" }, ` ${row.better}`)), h("td", {}, stageName(row.name, row.hue)), cell(row.a), cell(row.b)))))) : h("p", { class: "soft" }, "Nothing has been measured in either."));
  }

  async function look() {
    try {
      if (!picks.children.length) {
        const all = (await ask("/ui/runs")).runs.map((run) => run.name);
        picks.replaceChildren(select(0, all), " and ", select(1, all));
      }
      const runs = await Promise.all(names.map((name) => ask(`/ui/runs/${encodeURIComponent(name)}/live`)));
      running = runs.some((run) => run.status === "running");
      const now = runs.map((run) => run.seen).join();
      if (now === seen) return;
      seen = now;
      drawCurves(runs);
      const difference = await ask(`/ui/difference?a=${encodeURIComponent(names[0])}&b=${encodeURIComponent(names[1])}`);
      drawResults(difference.results);
      drawSettings(difference.settings);
    } catch (error) {
      running = false;
      curves.replaceChildren(h("p", { class: "trouble", role: "alert" }, error.message));
    }
  }

  return { leave: poll(look, () => (running ? 2 : 10)) };
}
