// A small curve over layers or steps, read off by the pointer or the arrow keys; the selected point is marked.

import { h, s } from "../dom.js";
import { decimal, whole } from "../numbers.js";

export function lineChart(title, unit) {
  const read = h("p", { class: "read" });
  const area = h("div", { class: "area", role: "slider", tabindex: "0", "aria-valuemin": 0, "aria-valuemax": 0, "aria-valuenow": 0, "aria-label": title });
  const [yAxis, xAxis] = ["y", "x"].map((name) => h("div", { class: name, "aria-hidden": "true" }));
  const element = h("figure", { class: "curve plain chart" }, read, h("div", { class: "plot" }, yAxis, area, h("div", { class: "end" }), xAxis));
  let settings = {};
  let values = [];
  let at = 0;
  const cursor = h("div", { class: "cursor" });
  const dot = h("div", { class: "dot" });

  // `values`: numbers, or several series of them; settings: { log, inverted, name(i), read(i), at, onPick(i), marks, names }
  function update(given, options) {
    settings = options;
    const series = Array.isArray(given[0]) ? given : [given];
    values = series[0];
    const flat = series.flat().filter(Number.isFinite);
    const scale = options.log ? (value) => Math.log10(Math.max(value, 1e-9)) : (value) => value;
    let [low, high] = [Math.min(...flat), Math.max(...flat)];
    if (options.low !== undefined) low = Math.min(low, options.low);
    if (options.high !== undefined) high = Math.max(high, options.high);
    const span = scale(high) - scale(low) || 1;
    const up = (value) => {
      const share = (scale(value) - scale(low)) / span;
      return options.inverted ? 4 + 92 * share : 96 - 92 * share;
    };
    const left = (index) => (values.length > 1 ? (100 * index) / (values.length - 1) : 50);
    const path = (line) => `M${line.map((value, index) => [value, index]).filter(([value]) => Number.isFinite(value)).map(([value, index]) => `${left(index).toFixed(2)} ${up(value).toFixed(2)}`).join("L")}`;
    area.replaceChildren(
      s("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" },
        series.map((line, index) => s("path", { class: `line series-${index}`, d: path(line) }))),
      ...(options.names ?? []).map((words, index) => {
        const at = clearest(series, index, up);
        return words && h("span", { class: `label series-label series-${index}`, style: { top: `calc(${up(series[index][at])}% - 0.6rem)`, right: `${Math.min(100 - left(at), 80)}%` } }, words);
      }).filter(Boolean),
      cursor, dot);
    const ticks = low === high ? [low] : options.log ? powers(low, high) : [low, (low + high) / 2, high];
    const word = (value) => (Math.abs(value) >= 100 || Number.isInteger(value) ? whole(value) : decimal(value, 2));
    yAxis.replaceChildren(...ticks.map((value) => h("span", { style: { top: `${up(value)}%` } }, word(value))));
    const every = Math.max(1, Math.ceil(values.length / 8));
    xAxis.replaceChildren(...values.map((_, index) => index).filter((index) => index % every === 0 || index === values.length - 1)
      .filter((index, number, all) => number === all.length - 1 || all.at(-1) - index >= every / 2 || index === all.at(-1))
      .map((index) => h("span", { style: { left: `${left(index)}%` } }, options.name(index))), h("span", { class: "what" }, unit));
    settings.place = (index) => [left(index), up(values[index])];
    area.setAttribute("aria-valuemax", values.length - 1);
    show(options.at ?? values.length - 1);
  }

  function show(index) {
    if (!values.length) return;
    at = Math.min(Math.max(index, 0), values.length - 1);
    const [x, y] = settings.place(at);
    cursor.style.left = dot.style.left = `${x}%`;
    dot.style.top = `${y}%`;
    read.textContent = settings.read(at);
    area.setAttribute("aria-valuenow", at);
    area.setAttribute("aria-valuetext", read.textContent);
  }

  const pointed = (event) => {
    const frame = area.getBoundingClientRect();
    return Math.round(((event.clientX - frame.left) / frame.width) * (values.length - 1));
  };
  area.addEventListener("pointermove", (event) => show(pointed(event)));
  area.addEventListener("pointerleave", () => show(settings.at ?? values.length - 1));
  area.addEventListener("click", (event) => settings.onPick?.(pointed(event)));
  area.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, Home: -1e9, End: 1e9 };
    if (!(event.key in moves)) return;
    event.preventDefault();
    event.stopPropagation();
    show(at + moves[event.key]);
    settings.onPick?.(at);
  });
  return { element, update };
}

// Where a series is farthest from the others: its name is read best there.
function clearest(series, own, up) {
  const gap = (index) => Math.min(...series.filter((_, other) => other !== own).map((line) => Math.abs(up(line[index]) - up(series[own][index]))));
  return series[own].reduce((best, _, index) => (gap(index) >= gap(best) ? index : best), 0);
}

// Powers of ten between two numbers, with the ends where there are none.
function powers(low, high) {
  const ticks = [];
  for (let power = Math.ceil(Math.log10(low) - 1e-9); power <= Math.log10(high) + 1e-9; power++) ticks.push(10 ** power);
  return ticks.length > 1 ? ticks : [low, high];
}
