// A small curve over layers or steps, read off by the pointer or the arrow keys; the selected point is marked.

import { h, s } from "../dom.js";
import { decimal, whole } from "../numbers.js";

const LETTER = 7; // pixels of a label's letter
const LINE = 15; // and of its height

export function lineChart(title, unit) {
  const read = h("p", { class: "read" });
  const area = h("div", { class: "area", role: "slider", tabindex: "0", "aria-valuemin": 0, "aria-valuemax": 0, "aria-valuenow": 0, "aria-label": title });
  const [yAxis, xAxis] = ["y", "x"].map((name) => h("div", { class: name, "aria-hidden": "true" }));
  const end = h("div", { class: "end", "aria-hidden": "true" });
  const element = h("figure", { class: "curve plain chart" }, read, h("div", { class: "plot" }, yAxis, area, end, xAxis));
  let settings = {};
  let values = [];
  let given = [];
  let at = 0;
  let width = 0;
  const cursor = h("div", { class: "cursor" });
  const dot = h("div", { class: "dot" });

  // `values`: numbers, or several series of them; settings: { log, inverted, name(i), read(i), at, onPick(i), names: at the ends of the lines }
  function update(numbers, options) {
    [given, settings, width] = [numbers, options, area.clientWidth];
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
      cursor, dot);
    const names = options.names ?? [];
    element.classList.toggle("named", names.some(Boolean));
    const heights = apart(series.map((line) => up(line.findLast(Number.isFinite) ?? low)), (100 * LINE) / (area.clientHeight || 144));
    end.replaceChildren(...names.map((words, index) => words && h("span", { class: `name series-${index}`, title: words, style: { top: `${heights[index]}%` } }, words)).filter(Boolean));
    const ticks = low === high ? [low] : options.log ? powers(low, high) : [low, (low + high) / 2, high];
    const word = (value) => (Math.abs(value) >= 100 || Number.isInteger(value) ? whole(value) : decimal(value, 2));
    yAxis.replaceChildren(...ticks.map((value) => h("span", { style: { top: `${up(value)}%` } }, word(value))));
    const longest = Math.max(...values.map((_, index) => options.name(index).length));
    const most = Math.max(2, Math.min(9, Math.floor((width || 280) / (LETTER * longest + 14))));
    const every = Math.max(1, Math.ceil((values.length - 1) / (most - 1)));
    const last = values.length - 1;
    xAxis.replaceChildren(...values.map((_, index) => index).filter((index) => index === last || (index % every === 0 && last - index >= every))
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
  new ResizeObserver(() => given.length && area.clientWidth !== width && update(given, settings)).observe(area);
  return { element, update };
}

// Heights of names at the ends of lines, in percent, moved so that none covers another.
function apart(heights, gap) {
  const order = heights.map((_, index) => index).sort((first, second) => heights[first] - heights[second]);
  const moved = [...heights];
  order.forEach((index, number) => {
    if (number) moved[index] = Math.max(moved[index], moved[order[number - 1]] + gap);
  });
  const over = Math.max(0, moved[order.at(-1)] - 100);
  return moved.map((height) => height - over);
}

// Powers of ten between two numbers, with the ends where there are none.
function powers(low, high) {
  const ticks = [];
  for (let power = Math.ceil(Math.log10(low) - 1e-9); power <= Math.log10(high) + 1e-9; power++) ticks.push(10 ** power);
  return ticks.length > 1 ? ticks : [low, high];
}
