// One run: how it learns, what its checkpoints say, how it was set, what happened.

import { ask } from "./api.js";
import { curveFigure } from "./curve.js";
import { h, stageName } from "./dom.js";
import { ago, count, duration, plain, size, whole } from "./numbers.js";
import { section, scrolling } from "./parts.js";
import { poll } from "./poll.js";
import { WORDS, progress } from "./runs.js";
import { samplesPart } from "./samples.js";
import { firstCurves, modelTitle, stageTitle } from "./stages.js";
import { note } from "./state.js";

export function runPage(root, { path, query }) {
  const name = decodeURIComponent(path.split("/")[2]);
  const state = h("p", { class: "run-state" });
  const pipeline = h("ol", { class: "stages", "aria-label": "Stages" });
  const curves = h("div", { class: "curve-stages" });
  const log = h("ol", { class: "log" });
  const checkpoints = h("div", {});
  const results = h("div", {});
  const settings = h("div", {});
  const samples = samplesPart(name, query);
  const title = h("h1", {}, name);
  const links = h("p", { class: "byline" });
  root.className = "page";
  root.append(h("p", { class: "crumb" }, h("a", { href: "/runs" }, "Runs")), title, state, links, pipeline,
    section("Curves", curves, "Each curve is the mean of the steps around it, the band the middle 80 % of them. Point at one, or focus it and use the arrow keys."),
    section("Samples", samples.element), section("Results", results), section("Checkpoints", checkpoints), section("Settings", settings), section("Log", h("div", { class: "log-box", tabindex: "0", role: "region", "aria-label": "What happened, newest first" }, log)));
  document.title = `${name} · Runs · Underhood`;

  const extra = new Set(query.getAll("show")); // "stage.quantity" beyond the first ones
  const figures = new Map();
  let seen = -1;
  let status = "running";
  let open = null;
  let resume = null;
  let known = null; // the stage of the last whole look

  function drawCurves(stages) {
    const wanted = [];
    for (const stage of stages) {
      const shown = stage.curves.filter((curve, index) => index < firstCurves(stage.stage) || extra.has(`${stage.stage}.${curve.key}`));
      const choices = stage.curves.slice(firstCurves(stage.stage)).map((curve) => {
        const key = `${stage.stage}.${curve.key}`;
        return h("label", {}, h("input", { type: "checkbox", checked: extra.has(key), id: `show-${key}`, onchange: (event) => {
          if (event.target.checked) extra.add(key);
          else extra.delete(key);
          const kept = new URLSearchParams(location.search);
          kept.delete("show");
          for (const element of extra) kept.append("show", element);
          note(kept);
          drawCurves(stages);
        } }), curve.title);
      });
      const boxes = shown.map((curve) => {
        const key = `${stage.stage}.${curve.key}`;
        if (!figures.has(key)) figures.set(key, curveFigure(stage.hue));
        const figure = figures.get(key);
        figure.update([{ name, data: curve }]);
        return figure.element;
      });
      const focused = document.activeElement?.id;
      wanted.push({ stage, boxes, choices, focused });
    }
    // What is there already stays: only what has come or gone moves, so that focus and reading are not lost.
    const sections = wanted.map(({ stage, boxes, choices }) => {
      const element = curves.querySelector(`[data-stage="${CSS.escape(stage.stage)}"]`) ?? h("section", { class: "curve-stage", data: { stage: stage.stage }, "aria-label": stage.label },
        h("h3", {}, stageName(stage.label, stage.hue)), h("div", { class: "curve-grid" }), h("fieldset", { class: "controls more-curves" }));
      const grid = element.querySelector(".curve-grid");
      if (boxes.some((box, index) => grid.children[index] !== box) || grid.children.length !== boxes.length) grid.replaceChildren(...boxes);
      const more = element.querySelector(".more-curves");
      const keep = more.children.length === choices.length + 1;
      if (!keep) more.replaceChildren(h("legend", { class: "visually-hidden" }, `More curves of ${stage.label}`), ...choices);
      more.hidden = !choices.length;
      return element;
    });
    if (sections.some((section, index) => curves.children[index] !== section) || curves.children.length !== sections.length) curves.replaceChildren(...sections);
    if (!sections.length) curves.replaceChildren(h("p", { class: "soft" }, "No step has been made yet."));
  }

  function drawState(live) {
    const now = live.stages?.at(-1);
    state.replaceChildren(h("span", { class: `status ${live.status}` }, WORDS[live.status]),
      live.status !== "finished" && live.open ? ` ${stageTitle(live.open)}` : "",
      live.status === "running" && now?.steps && live.open === now.stage ? progress(now) : "",
      live.status === "running" && now?.tokens_per_second && live.open === now.stage ? ` ${count(now.tokens_per_second)} tokens a second` : "",
      h("span", { class: "soft" }, live.updated ? ` · last word ${ago(live.updated)}` : ""));
    if (live.status === "stopped" && resume) state.append(h("span", { class: "soft" }, " · go on with "), h("code", {}, resume));
  }

  function drawLog(events) {
    log.replaceChildren(...events.toReversed().map((event) => {
      const { time, stage, kind, ...rest } = event;
      const facts = Object.entries(rest).map(([key, value]) => `${key.replaceAll("_", " ")} ${plain(value)}`);
      return h("li", {}, h("time", { datetime: new Date(time * 1000).toISOString() }, new Date(time * 1000).toTimeString().slice(0, 8)),
        h("span", {}, `${stageTitle(stage)}: ${kind}`), h("span", { class: "soft" }, facts.join(" · ")));
    }));
  }

  async function look() {
    let live;
    try {
      live = await ask(`/ui/runs/${encodeURIComponent(name)}/live?seen=${seen}`);
    } catch (error) {
      if (seen < 0) {
        root.replaceChildren(h("p", { class: "crumb" }, h("a", { href: "/runs" }, "Runs")), h("h1", {}, name), h("p", { class: "trouble", role: "alert" }, error.message));
        leave();
      } else state.replaceChildren(h("span", { class: "trouble" }, error.message));
      return;
    }
    status = live.status;
    if (!live.same) {
      seen = live.seen;
      open = live;
      drawCurves(live.stages);
      drawLog(live.events);
      const moment = `${live.open} ${live.events.length}`;
      if (moment !== known) {
        known = moment;
        await lookAtAll().catch((error) => results.replaceChildren(h("p", { class: "trouble", role: "alert" }, error.message)));
      }
    }
    drawState({ ...open, status, updated: live.updated });
  }

  async function lookAtAll() {
    const details = await ask(`/ui/runs/${encodeURIComponent(name)}`);
    resume = details.resume;
    links.replaceChildren(...[
      details.parameters ? h("span", {}, `${count(details.parameters)} parameters`) : null,
      details.created ? h("span", {}, details.created.slice(0, 16).replace("T", " ")) : null,
      details.commit ? h("span", {}, "commit ", h("code", {}, details.commit)) : null,
      details.report ? h("a", { href: `/ui/runs/${encodeURIComponent(name)}/report`, target: "_blank", rel: "noopener" }, "The whole report") : null,
    ].filter(Boolean));
    pipeline.replaceChildren(...details.pipeline.map((stage) => h("li", { class: `${stage.hue} ${stage.status}` },
      h("strong", {}, stage.title), h("span", { class: "small soft" }, [
        { done: "done", stopped: stage.stage === open?.open && status === "running" ? "going on" : "not ended", missing: "not run" }[stage.status],
        stage.seconds ? duration(stage.seconds) : "", stage.tokens ? `${count(stage.tokens)} tokens` : ""].filter(Boolean).join(" · ")))));
    checkpoints.replaceChildren(details.checkpoints.length ? checkpointTable(details.checkpoints) : h("p", { class: "soft" }, "There is no checkpoint yet."));
    results.replaceChildren(details.results.length ? resultTable(details.results) : h("p", { class: "soft" }, "Nothing has been measured yet: a build does it after its last training stage."));
    settings.replaceChildren(settingTable(details.settings, details.reason));
    samples.update(details);
  }

  const leave = poll(look, () => (status === "running" ? 1 : 5));
  return { leave };
}

function checkpointTable(rows) {
  return scrolling("Table of checkpoints", h("table", { class: "grid" }, h("thead", {}, h("tr", {}, ["Model", "Step", "Weights", "Folder"].map((title) => h("th", { scope: "col" }, title)))),
    h("tbody", {}, rows.map((checkpoint) => h("tr", {}, h("th", { scope: "row" }, stageName(modelTitle(checkpoint.stage), checkpoint.hue)),
      h("td", { class: "number" }, whole(checkpoint.step)), h("td", { class: "number nowrap" }, checkpoint.bytes ? size(checkpoint.bytes) : ""), h("td", {}, h("code", {}, `${checkpoint.snapshot ? "snapshots" : "checkpoints"}/${checkpoint.stage}/${checkpoint.name}`)))))));
}

function resultTable(panels) {
  const models = [...new Map(panels.flatMap((panel) => panel.rows.filter((row) => row.hue !== "baseline").map((row) => [row.name, row.hue])))];
  return scrolling("Table of results", h("table", { class: "grid" },
    h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Measured"), models.map(([name, hue]) => h("th", { scope: "col" }, stageName(name, hue))), h("th", { scope: "col" }, "Beside it"))),
    h("tbody", {}, panels.map((panel) => h("tr", {}, h("th", { scope: "row", class: "plain-head" }, panel.question, h("span", { class: "small soft" }, ` ${panel.better}`)),
      models.map(([name]) => {
        const row = panel.rows.find((candidate) => candidate.name === name);
        return h("td", { class: "number nowrap" }, row ? [row.text, row.interval ? h("small", { class: "soft" }, ` ${row.interval}`) : ""] : "");
      }), h("td", { class: "small soft beside" }, panel.rows.filter((row) => row.hue === "baseline").map((row) => `${row.name} ${row.text}`).join(", ")))))));
}

function settingTable(settings, reason) {
  return h("details", {}, h("summary", {}, `All ${Object.keys(settings).length} settings and facts`), reason ? h("p", {}, reason) : null,
    scrolling("Settings", h("table", { class: "grid" }, h("tbody", {}, Object.entries(settings).map(([key, value]) =>
      h("tr", {}, h("th", { scope: "row", class: "plain-head" }, h("code", {}, key)), h("td", {}, plain(value))))))));
}
