// The list of runs: what goes on, what is done, and how well it learned.

import { ask } from "./api.js";
import { h, s, stageName } from "./dom.js";
import { ago, count, duration, percent, whole } from "./numbers.js";
import { poll } from "./poll.js";
import { modelHue, modelTitle, stageTitle } from "./stages.js";
import { go, note } from "./state.js";

export const WORDS = { running: "● running", stopped: "‖ stopped", finished: "✓ finished" };

export function runsPage(root, { query }) {
  const picked = new Set(query.getAll("pick"));
  const search = h("input", { type: "search", placeholder: "Search (/)", "aria-label": "Search the runs", value: query.get("q") ?? "",
    oninput: () => { remember(); draw(); } });
  const compare = h("button", { type: "button", class: "primary", disabled: true, onclick: () => {
    const [a, b] = picked;
    go(`/compare?a=${encodeURIComponent(a)}&b=${encodeURIComponent(b)}`);
  } }, "Compare two");
  const body = h("tbody", {});
  const empty = h("div", { class: "empty", hidden: true });
  const trouble = h("p", { class: "trouble", role: "alert", hidden: true });
  const table = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Runs" }, h("table", { class: "grid runs-table" },
    h("thead", {}, h("tr", {}, ["", "Run", "State", "Learning", "Now at", "Parameters", "Data", "Models", "Last word"].map((name, index) =>
      h(index ? "th" : "td", index ? { scope: "col" } : {}, name || h("span", { class: "visually-hidden" }, "To compare"))))), body));
  let runs = [];

  function remember() {
    const kept = new URLSearchParams();
    if (search.value) kept.set("q", search.value);
    for (const name of picked) kept.append("pick", name);
    note(kept);
  }

  function pick(name, on) {
    if (on) picked.add(name);
    else picked.delete(name);
    if (picked.size > 2) picked.delete(picked.values().next().value);
    remember();
    draw();
  }

  function draw() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = runs.filter((run) => words.every((word) => `${run.name} ${run.data} ${run.status} ${run.folder}`.toLowerCase().includes(word)));
    const focused = document.activeElement?.closest?.("tbody") === body ? document.activeElement.id : null;
    body.replaceChildren(...shown.map((run) => row(run, picked, pick)));
    if (focused) document.getElementById(focused)?.focus();
    compare.disabled = picked.size !== 2;
    table.hidden = !runs.length;
    if (runs.length && !shown.length) body.append(h("tr", {}, h("td", { colspan: 9, class: "soft" }, "Nothing found.")));
  }

  root.className = "page";
  root.append(h("header", { class: "page-head" }, h("h1", {}, "Runs"), h("div", { class: "page-acts" }, search, compare)), trouble, table, empty);

  async function look() {
    try {
      const answer = await ask("/ui/runs");
      runs = answer.runs;
      trouble.hidden = true;
      empty.hidden = runs.length > 0;
      empty.replaceChildren(h("p", {}, `There are no runs in ${answer.places.join(" or ") || "the folder of runs"} yet.`),
        h("p", {}, "Make one with"), h("pre", { tabindex: "0" }, h("code", {}, "underhood build --minutes 5")));
      for (const name of picked) if (!runs.some((run) => run.name === name)) picked.delete(name);
      draw();
    } catch (error) {
      trouble.textContent = error.message;
      trouble.hidden = false;
    }
  }

  const leave = poll(look, () => (runs.some((run) => run.status === "running") ? 2 : 10));
  return { leave, key: (event) => event.key === "/" && (search.focus(), true) };
}

function row(run, picked, pick) {
  const address = `/runs/${encodeURIComponent(run.name)}`;
  const box = h("input", { type: "checkbox", id: `pick-${run.name}`, "aria-label": `Compare ${run.name}`, checked: picked.has(run.name),
    onchange: (event) => pick(run.name, event.target.checked) });
  return h("tr", { class: run.hue }, h("td", {}, box), h("th", { scope: "row" }, h("a", { href: address, id: `run-${run.name}` }, run.name)),
    h("td", { class: "nowrap" }, h("span", { class: `status ${run.status}` }, WORDS[run.status]),
      run.stage && run.status !== "finished" ? h("span", { class: "soft small" }, ` ${stageTitle(run.stage)}`) : null,
      run.status === "running" && run.step && run.steps ? progress(run) : null),
    h("td", {}, run.spark ? spark(run) : null), h("td", { class: "nowrap number" }, run.value),
    h("td", { class: "number nowrap" }, run.parameters ? count(run.parameters) : ""), h("td", {}, run.data),
    h("td", { class: "nowrap" }, run.models.map((name) => [stageName(modelTitle(name), modelHue(name)), " "])),
    h("td", { class: "nowrap soft" }, run.updated ? ago(run.updated) : ""));
}

export function progress({ step, steps, seconds_left: left }) {
  return h("span", { class: "progress small" },
    h("progress", { max: steps, value: step, "aria-label": "Share done" }),
    ` ${percent(step / steps)}`, left ? `, ${duration(left)} left` : "", h("span", { class: "visually-hidden" }, `, step ${whole(step)} of ${whole(steps)}`));
}

function spark(run) {
  return s("svg", { class: "spark", viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", "aria-label": `${run.title}, now ${run.value}` },
    s("path", { class: "line", d: `M${run.spark.map(([x, y]) => `${x} ${4 + 0.92 * y}`).join("L")}` }));
}
