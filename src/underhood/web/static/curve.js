// A curve as in report.html, but alive: one or two runs on one scale, redrawn as points come in, read off by pointer or
// keys. Labels are at the lines' ends.

import { h, s } from "./dom.js";
import { count, decimal, niceTicks, percent, tick, whole } from "./numbers.js";

const LADDER = [-4, -3, -2, -1, 0, 1, 2, 3, 4, 5].flatMap((power) => [1, 1.5, 2, 3, 4, 5, 6, 8].map((base) => Number((base * 10 ** power).toPrecision(6))));

// `series`: [{ name, dash, data }] with `data` as /ui/runs/NAME/live gives it.
export function curveFigure(hue) {
  const title = h("h3", {});
  const unit = h("p", { class: "small soft" });
  const value = h("span", { class: "value" });
  const keys = h("span", { class: "keys" });
  const yAxis = h("div", { class: "y", "aria-hidden": "true" });
  const xAxis = h("div", { class: "x", "aria-hidden": "true" });
  const ends = h("div", { class: "end", "aria-hidden": "true" });
  const area = h("div", { class: "area", role: "slider", tabindex: "0", "aria-valuemin": 1, "aria-valuemax": 1, "aria-valuenow": 1 });
  const element = h("figure", { class: `curve ${hue}` }, h("header", {}, title, unit), h("p", { class: "read" }, value, keys),
    h("div", { class: "plot" }, yAxis, area, ends, xAxis));
  let drawn = null;
  let at = null; // null follows the newest point

  function update(series) {
    drawn = layOut(series);
    const [{ data }] = series;
    title.textContent = data.title;
    unit.textContent = data.share ? "" : data.unit === data.title.toLowerCase() ? "" : data.unit;
    keys.replaceChildren(data.marks.length ? h("span", { class: "held-key" }) : "", data.marks.length ? " on held-out text" : "");
    yAxis.replaceChildren(...drawn.yTicks.map(([position, text]) => h("span", { style: { top: `${position}%` } }, text)));
    xAxis.replaceChildren(...drawn.xTicks.map(([position, text]) => h("span", { style: { left: `${position}%` } }, text)), h("span", { class: "what" }, "steps"));
    ends.replaceChildren(...drawn.ends.map((end) => h("span", { class: end.kind, style: { top: `${end.at}%` } },
      end.kind === "held" ? [h("i", { class: "held-key" }), " "] : null, end.text)));
    area.setAttribute("aria-label", series.map((curve) => (series.length > 1 ? `${curve.name}: ` : "") + curve.data.description).join(" "));
    area.setAttribute("aria-valuemax", drawn.steps.length);
    area.replaceChildren(picture(series, drawn), marksOf(series, drawn), ...labels(data, drawn), cursor, ...dots(series));
    show(at);
  }

  const cursor = h("div", { class: "cursor" });
  const dots = (series) => (drawn.dots = series.map((curve, index) => h("div", { class: `dot lane-${index}` })));

  function show(index) {
    const steps = drawn.steps;
    const last = steps.length - 1;
    const here = Math.min(Math.max(index ?? last, 0), last);
    at = index === null || here === last ? null : here;
    const step = steps[here];
    cursor.style.left = `${drawn.left(step)}%`;
    const words = drawn.series.map((curve, number) => {
      const near = nearest(curve.data.x, step);
      const dot = drawn.dots[number];
      dot.style.left = `${drawn.left(curve.data.x[near])}%`;
      dot.style.top = `${drawn.up(curve.data.y[near])}%`;
      const reading = wording(curve.data, curve.data.y[near]);
      return drawn.series.length > 1 ? `${curve.name} ${reading}` : reading;
    });
    const [{ data }] = drawn.series;
    const read = data.tokens && drawn.series.length === 1 ? ` · ${count(data.tokens[nearest(data.x, step)])} tokens` : "";
    value.textContent = `step ${whole(step)}${read} · ${words.join(" · ")}`;
    area.setAttribute("aria-valuenow", here + 1);
    area.setAttribute("aria-valuetext", value.textContent);
  }

  area.addEventListener("pointermove", (event) => {
    const box = area.getBoundingClientRect();
    const step = ((event.clientX - box.left) / box.width) * drawn.last;
    show(nearest(drawn.steps, step));
  });
  area.addEventListener("pointerleave", () => document.activeElement !== area && show(null));
  area.addEventListener("keydown", (event) => {
    const now = at ?? drawn.steps.length - 1;
    const moves = { ArrowRight: now + 1, ArrowUp: now + 1, ArrowLeft: now - 1, ArrowDown: now - 1, PageUp: now + 10, PageDown: now - 10, Home: 0, End: Infinity };
    if (!(event.key in moves)) return;
    show(moves[event.key]);
    event.preventDefault();
  });
  return { element, update };
}

function layOut(series) {
  const [{ data }] = series;
  const { share, log, digits } = data;
  const all = series.flatMap((curve) => [...curve.data.y, ...curve.data.marks.map(([, value]) => value)]);
  const spread = series.flatMap((curve) => [...curve.data.y, ...curve.data.low, ...curve.data.high]).sort((a, b) => a - b);
  // One wild step must not flatten all the others.
  let low = Math.min(spread[Math.floor(0.005 * spread.length)], ...series.map((curve) => curve.data.y.at(-1)));
  let high = Math.max(spread[Math.ceil(0.995 * spread.length) - 1], ...series.map((curve) => curve.data.y[0]));
  for (const curve of series) for (const [, value] of curve.data.marks) [low, high] = [Math.min(low, value), Math.max(high, value)];
  if (data.reference && !log) [low, high] = [Math.min(low, data.reference[0]), Math.max(high, data.reference[0])];
  const logged = log && Math.min(...all) > 0;
  const pad = 0.04 * (high - low) || 0.05 * Math.abs(high) || 1;
  [low, high] = logged ? [low / 1.04, high * 1.02] : [low - pad, high + pad];
  const scale = logged ? Math.log : (number) => number;
  const up = (number) => 100 - 100 * Math.min(Math.max((scale(Math.max(number, logged ? 1e-12 : -Infinity)) - scale(low)) / (scale(high) - scale(low)), 0), 1);
  const last = Math.max(1, ...series.map((curve) => curve.data.last));
  const left = (step) => (100 * step) / last;
  const ticks = logged ? LADDER.filter((value) => value >= low && value <= high) : niceTicks(low, high, 4).filter((value) => !share || (value >= 0 && value <= 1));
  const step = ticks.length > 1 ? ticks[1] - ticks[0] : 1;
  const name = (value) => (share ? percent(value) : logged ? String(value) : Math.abs(high) >= 10_000 ? count(value) : tick(value, step));
  const short = (number) => (share ? percent(number) : Math.abs(number) >= 10_000 ? count(number) : decimal(number, digits));
  const ends = series.flatMap((curve, lane) => [
    { kind: `value lane-${lane}`, at: up(curve.data.y.at(-1)), text: short(curve.data.y.at(-1)) },
    ...(curve.data.marks.length && series.length === 1 ? [{ kind: "held", at: up(curve.data.marks.at(-1)[1]), text: short(curve.data.marks.at(-1)[1]) }] : []),
  ]);
  if (ends.length > 1 && Math.abs(ends[1].at - ends[0].at) < 9) ends[1].at = ends[0].at + (ends[1].at > ends[0].at ? 9 : -9);
  return {
    series, up, left, last, ends,
    steps: [...new Set(series.flatMap((curve) => curve.data.x))].sort((a, b) => a - b),
    yTicks: ticks.map((value) => [up(value), name(value)]),
    xTicks: niceTicks(0, last, 4).filter(Number.isInteger).map((value) => [left(value), whole(value)]),
  };
}

function picture(series, { up, left, yTicks }) {
  const [{ data }] = series;
  const line = (x, y) => x.map((step, index) => `${left(step).toFixed(2)} ${up(y[index]).toFixed(2)}`);
  return s("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" },
    yTicks.map(([position]) => s("path", { class: "rule", d: `M0 ${position}H100` })),
    data.reference ? s("path", { class: "reference", d: `M0 ${up(data.reference[0])}H100` }) : null,
    data.turn && series.length === 1 ? s("path", { class: "turn", d: `M${left(data.turn)} 0V100` }) : null,
    series.map((curve, lane) => [
      s("path", { class: `band lane-${lane}`, d: `M${[...line(curve.data.x, curve.data.high), ...line(curve.data.x, curve.data.low).reverse()].join("L")}Z` }),
      s("path", { class: `line lane-${lane}`, d: `M${line(curve.data.x, curve.data.y).join("L")}` }),
    ]));
}

function marksOf(series, { up, left }) {
  return s("svg", { "aria-hidden": "true" }, series.map((curve, lane) => curve.data.marks.map(([step, value]) =>
    s("circle", { class: `held lane-${lane}`, r: 3.5, cx: `${left(step)}%`, cy: `${up(value)}%` }))));
}

function labels(data, { up, left, series }) {
  const elements = [];
  if (data.reference) elements.push(h("span", { class: "label", style: { right: "0.25rem", top: `calc(${up(data.reference[0])}% - 0.5rem)` } }, data.reference[1]));
  if (data.turn && series.length === 1) {
    const offset = left(data.turn);
    const side = offset < 55 ? { left: `calc(${offset}% + 0.25rem)` } : { right: `calc(${100 - offset}% + 0.25rem)` };
    elements.push(h("span", { class: "label", style: { top: "0", ...side } }, "learning rate falls from here"));
  }
  return elements;
}

function wording(data, number) {
  return data.share ? `${percent(number)} ${data.unit}` : `${Math.abs(number) >= 10_000 ? count(number) : decimal(number, data.digits)} ${data.unit}`.trim();
}

function nearest(sorted, wanted) {
  let [low, high] = [0, sorted.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < wanted) low = middle;
    else high = middle;
  }
  return Math.abs(sorted[low] - wanted) <= Math.abs(sorted[high] - wanted) ? low : high;
}
