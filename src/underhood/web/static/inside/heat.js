// The heat map: crisp cells on a canvas as large as the screen shows of it, headers that stay, a cross-hair that is
// read out; a click or the arrow keys select. Thousands of rows cost no more than those on the screen.

import { h } from "../dom.js";
import { onTheme } from "./colours.js";

const TEXT_ROOM = 30;
const FLAT = 44; // wide enough for a token's name
const NAMES_MEASURED = 64; // columns whose names decide whether all fit in flat
const LINE = 14; // height of a name

// options: { name, rows, columns, rowName(r), columnName(c), paint(r, c) → { fill, ink }, text(r, c), read(r, c),
// selected() → { row, column }, onPick(row, column), width, height, most, head, top }
export function heatMap(options) {
  const { name, rowName, columnName, paint, text = null, read, selected = () => ({}), onPick = null } = options;
  const { width, height, head = 52, most = 420 } = options;
  let { rows, columns } = options;
  const canvas = h("canvas", { "aria-hidden": "true" });
  const sizer = h("div", { class: "heat-sizer" }, canvas);
  const box = h("div", { class: "heat", tabindex: "0", role: "group", "aria-roledescription": "heat map" }, sizer);
  const reading = h("p", { class: "heat-read" });
  const element = h("div", { class: "heat-view" }, box, reading);
  let over = null;
  let cell = width;
  let top = options.top ?? 60; // room for the names of columns: less where they fit in flat
  let flat = false;
  let ready = false;

  const here = () => ({ row: 0, column: 0, ...Object.fromEntries(Object.entries(selected()).filter(([, at]) => at !== undefined)) });

  function tell() {
    const { row, column } = over ?? here();
    const words = rows && columns ? read(Math.min(row, rows - 1), Math.min(column, columns - 1)) : "";
    reading.textContent = words;
    if (!over) box.setAttribute("aria-label", `${name}. ${words}`);
  }

  function draw() {
    if (!element.isConnected || !box.clientWidth) return;
    const room = box.clientWidth;
    cell = options.fit ? Math.max(width, Math.floor((room - head) / Math.max(columns, 1))) : width;
    if (options.fit) cell = Math.min(cell, options.widest ?? 96);
    const pen = canvas.getContext("2d");
    flat = cell > FLAT || namesFit(pen);
    top = Math.min(options.top ?? 60, flat ? 24 : Infinity);
    const fullWidth = head + columns * cell;
    const fullHeight = top + rows * height;
    sizer.style.width = `${fullWidth}px`;
    sizer.style.height = `${fullHeight}px`;
    box.style.height = `${Math.min(fullHeight, most) + (fullWidth > room ? 14 : 0)}px`;
    const [wide, high] = [Math.min(room, fullWidth), Math.min(box.clientHeight, fullHeight)];
    const ratio = devicePixelRatio || 1;
    canvas.width = Math.round(wide * ratio);
    canvas.height = Math.round(high * ratio);
    canvas.style.width = `${wide}px`;
    canvas.style.height = `${high}px`;
    pen.scale(ratio, ratio);
    paintAll(pen, wide, high);
    ready = true;
  }

  // Whether every column has room for its name in flat, as numbers of heads mostly do.
  function namesFit(pen) {
    if (columns > NAMES_MEASURED) return false;
    pen.font = `bold 12px ${getComputedStyle(box).getPropertyValue("--mono")}`;
    return Array.from({ length: columns }, (_, column) => pen.measureText(columnName(column)).width).every((wide) => wide <= cell - 3);
  }

  function paintAll(pen, wide, high) {
    const style = getComputedStyle(box);
    const [left, above] = [box.scrollLeft, box.scrollTop];
    const mono = style.getPropertyValue("--mono");
    const [ground, ink, soft, accent] = ["--ground", "--ink", "--soft", "--accent"].map((each) => resolved(each));
    const [firstRow, firstColumn] = [Math.floor(above / height), Math.floor(left / cell)];
    const lastRow = Math.min(rows, Math.ceil((above + high - top) / height));
    const lastColumn = Math.min(columns, Math.ceil((left + wide - head) / cell));
    const [gapX, gapY] = [cell > 5 ? 1 : 0, height > 5 ? 1 : 0];
    pen.fillStyle = ground;
    pen.fillRect(0, 0, wide, high);
    pen.font = `12px ${mono}`;
    pen.textBaseline = "middle";
    for (let row = firstRow; row < lastRow; row++) {
      const y = top + row * height - above;
      for (let column = firstColumn; column < lastColumn; column++) {
        const x = head + column * cell - left;
        const colour = paint(row, column);
        if (!colour) continue;
        pen.fillStyle = colour.fill;
        pen.fillRect(x, y, cell - gapX, height - gapY);
        if (text && cell > TEXT_ROOM) {
          pen.fillStyle = colour.ink;
          pen.textAlign = "left";
          pen.fillText(fitted(pen, text(row, column), cell - 8), x + 4, y + height / 2);
        }
      }
    }
    const { row, column } = here();
    const mark = (at, colour, line) => {
      pen.strokeStyle = colour;
      pen.lineWidth = line;
      pen.strokeRect(head + at.column * cell - left + line / 2 - 1, top + at.row * height - above + line / 2 - 1, Math.max(cell, 4) - line + 1, Math.max(height, 4) - line + 1);
    };
    if (over) mark(over, soft, 1);
    mark({ row: Math.min(row, rows - 1), column: Math.min(column, columns - 1) }, accent, 2);
    pen.fillStyle = ground;
    pen.fillRect(0, 0, wide, top);
    pen.fillRect(0, 0, head, high);
    pen.textAlign = "right";
    const everyRow = Math.max(1, Math.ceil(LINE / height));
    pen.save();
    pen.beginPath();
    pen.rect(0, top, head, high - top);
    pen.clip();
    for (let each = firstRow; each < lastRow; each++) {
      if (hidden(each, row, everyRow, height)) continue;
      pen.fillStyle = each === row ? ink : soft;
      pen.font = `${each === row ? "bold " : ""}12px ${mono}`;
      pen.fillText(fitted(pen, rowName(each), head - 8), head - 6, top + each * height - above + height / 2);
    }
    pen.restore();
    pen.save();
    pen.beginPath();
    pen.rect(head, 0, wide - head, top);
    pen.clip();
    const everyColumn = Math.max(1, Math.ceil(LINE / cell));
    for (let each = firstColumn; each < lastColumn; each++) {
      if (hidden(each, column, everyColumn, flat ? LINE : cell)) continue;
      pen.fillStyle = each === column ? ink : soft;
      pen.font = `${each === column ? "bold " : ""}12px ${mono}`;
      const middle = head + each * cell - left + cell / 2;
      pen.save();
      pen.translate(middle, top - 6);
      if (!flat) pen.rotate(-Math.PI / 2);
      pen.textAlign = flat ? "center" : "left";
      pen.textBaseline = flat ? "alphabetic" : "middle";
      pen.fillText(fitted(pen, columnName(each), flat ? cell - 4 : top - 10), 0, 0);
      pen.restore();
    }
    pen.restore();
  }

  function resolved(variable) {
    probe.style.color = `var(${variable})`;
    return getComputedStyle(probe).color;
  }
  const probe = h("span", { hidden: true });
  element.append(probe);

  function cellAt(event) {
    const frame = box.getBoundingClientRect();
    const column = Math.floor((event.clientX - frame.left - box.clientLeft - head + box.scrollLeft) / cell);
    const row = Math.floor((event.clientY - frame.top - box.clientTop - top + box.scrollTop) / height);
    const inside = event.clientX - frame.left >= head && event.clientY - frame.top >= top;
    return inside && row >= 0 && column >= 0 && row < rows && column < columns && paint(row, column) ? { row, column } : null;
  }

  function show({ row, column }) {
    const [x, y] = [column * cell, row * height];
    if (x < box.scrollLeft) box.scrollLeft = x;
    else if (x + cell > box.scrollLeft + box.clientWidth - head) box.scrollLeft = x + cell - box.clientWidth + head;
    if (y < box.scrollTop) box.scrollTop = y;
    else if (y + height > box.scrollTop + box.clientHeight - top) box.scrollTop = y + height - box.clientHeight + top;
  }

  box.addEventListener("scroll", draw, { passive: true });
  box.addEventListener("pointermove", (event) => {
    over = cellAt(event);
    tell();
    draw();
  });
  box.addEventListener("pointerleave", () => {
    over = null;
    tell();
    draw();
  });
  box.addEventListener("click", (event) => {
    const at = cellAt(event);
    if (at) onPick?.(at.row, at.column);
  });
  box.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], PageUp: [-8, 0], PageDown: [8, 0], Home: [0, -1e9], End: [0, 1e9] };
    if (!(event.key in moves) || event.metaKey || event.ctrlKey || event.altKey) return;
    const { row, column } = here();
    const within = (at, count) => Math.min(Math.max(at, 0), count - 1);
    event.preventDefault();
    event.stopPropagation();
    over = null;
    onPick?.(within(row + moves[event.key][0], rows), within(column + moves[event.key][1], columns));
  });
  new ResizeObserver(draw).observe(box);
  const forget = onTheme(() => (element.isConnected ? draw() : forget()));

  // Draws anew: with other sizes if given, and with the selected cell in sight.
  function update(sizes = {}, { follow = true } = {}) {
    ({ rows = rows, columns = columns } = sizes);
    tell();
    draw();
    if (follow && ready) show(here());
    draw();
  }

  return { element, update };
}

// Whether a name is left out: one of those between, or one that the selected one's would cover.
const hidden = (at, chosen, every, size) => at !== chosen && (at % every !== 0 || Math.abs(at - chosen) * size < LINE);

// A text that fits into a width, with … where it was cut.
function fitted(pen, words, room) {
  if (pen.measureText(words).width <= room) return words;
  let [low, high] = [0, words.length];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (pen.measureText(`${words.slice(0, middle)}…`).width <= room) low = middle;
    else high = middle - 1;
  }
  return low ? `${words.slice(0, low)}…` : "";
}
