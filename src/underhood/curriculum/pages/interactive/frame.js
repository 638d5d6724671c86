// Frame of interactive figures: controls, readings and drawings that redraw when something changes.
//
// A figure's script calls `interactive(build)`. `build(kit, data)` adds controls, readings and drawings in their order
// and returns the function that shows the present state; the frame calls it at the start, after every change and when
// the width changes. Every reading has its exact number in `data-value`, so that a test can compare it with Python's.

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function svgElement(tag, attributes = {}, text = null) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== null) made.textContent = text;
  return made;
}

// A number for readers: three or four digits, a real minus, powers of ten where the number is very large or small.
function inWords(value, digits = 3) {
  if (value === null || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 1e-3 || size >= 1e7) {
    const [mantissa, power] = value.toExponential(1).split("e");
    const raised = [...String(Number(power))].map((sign) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[sign] ?? "⁻").join("");
    return mantissa === "1.0" ? `10${raised}` : `${mantissa.replace("-", "−")} · 10${raised}`;
  }
  const rounded = value.toLocaleString("en", { maximumSignificantDigits: Math.max(digits, Math.ceil(Math.log10(size + 1))) });
  return rounded.replace("-", "−");
}

function interactive(build) {
  const figure = document.querySelector(".interactive");
  const data = JSON.parse(figure.querySelector("script").textContent);
  let show = () => {};
  const changed = () => show();

  const line = () => figure.appendChild(element("div", { className: "controls" }));
  let controls = null;
  const control = (...children) => (controls ??= line()).append(...children);
  const buttons = () => {
    const last = controls?.lastElementChild;
    if (last?.className === "buttons") return last;
    control(element("div", { className: "buttons" }));
    return controls.lastElementChild;
  };

  const kit = {
    // A slider. `values` lists its positions, or `min`, `max` and `step` do; `words` tells a value to the reader.
    slider({ name, label, min = 0, max = 1, step = "any", values = null, value, words = inWords }) {
      const input = element("input", { type: "range", name, min: values ? 0 : min, max: values ? values.length - 1 : max,
        step: values ? 1 : step });
      const output = element("output");
      const slider = {
        input,
        get value() {
          return values ? values[Number(input.value)] : Number(input.value);
        },
        set value(next) {
          input.value = values ? values.indexOf(next) : next;
          output.textContent = words(slider.value);
          input.setAttribute("aria-valuetext", output.textContent);
        },
      };
      input.addEventListener("input", () => {
        slider.value = slider.value;
        changed();
      });
      slider.value = value;
      control(element("label", {}, element("span", { textContent: label }), input, output));
      return slider;
    },

    // A line of text that the reader can change.
    text({ name, label, value, size = 40 }) {
      const input = element("input", { type: "text", name, value, size, autocomplete: "off", spellcheck: false });
      input.addEventListener("input", changed);
      control(element("label", { className: "wide" }, element("span", { textContent: label }), input));
      return input;
    },

    choice({ name, label, options, value = options[0] }) {
      const select = element("select", { name }, ...options.map((option) => element("option", { textContent: option })));
      select.value = value;
      select.addEventListener("change", changed);
      control(element("label", {}, element("span", { textContent: label }), select));
      return select;
    },

    button(label, action) {
      const button = element("button", { type: "button", textContent: label });
      button.addEventListener("click", () => {
        action();
        changed();
      });
      buttons().append(button);
      return button;
    },

    // Numbers below the controls. Returns the function that sets one: `set(name, value, words)`.
    readings(labels) {
      controls = null;
      const list = figure.appendChild(element("dl", { className: "readings" }));
      const cells = {};
      for (const [name, label] of Object.entries(labels)) {
        cells[name] = element("dd");
        cells[name].dataset.reading = name;
        list.append(element("div", {}, element("dt", { textContent: label }), cells[name]));
      }
      return (name, value, words = inWords(value)) => {
        cells[name].textContent = words;
        cells[name].dataset.value = value;
      };
    },

    // Any HTML element between the controls.
    add(tag, properties = {}) {
      controls = null;
      return figure.appendChild(element(tag, properties));
    },

    // A drawing of the figure's width and of `height` pixels. Its content is in the readings too.
    drawing({ height = 280, label = null } = {}) {
      controls = null;
      const svg = figure.appendChild(svgElement("svg", { class: "drawing" }));
      if (label === null) svg.setAttribute("aria-hidden", "true");
      else {
        svg.setAttribute("role", "group");
        svg.setAttribute("aria-label", label);
      }
      return {
        svg,
        // Empties the drawing; returns its width.
        clear(tall = height) {
          const width = Math.max(260, figure.clientWidth);
          svg.setAttribute("viewBox", `0 0 ${width} ${tall}`);
          svg.setAttribute("width", width);
          svg.setAttribute("height", tall);
          svg.replaceChildren();
          return width;
        },
        add(tag, attributes, text) {
          return svg.appendChild(svgElement(tag, attributes, text));
        },
        chart(options) {
          const width = this.clear();
          const tall = options.square ? Math.min(height, width - SIDES + ENDS) : height;
          return chart(this, { width: this.clear(tall), height: tall, ...options });
        },
      };
    },
    changed,
  };

  figure.hidden = false;
  show = build(kit, data);
  show();
  let width = figure.clientWidth;
  new ResizeObserver(() => {
    if (figure.clientWidth === width) return;
    width = figure.clientWidth;
    show();
  }).observe(figure);
}

// Round numbers between two ends: at most `count` of 1, 2 or 5 times a power of ten.
function ticks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const marks = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + 1e-9 * step; at++) marks.push(at * step);
  return marks;
}

const MARGIN = { left: 52, right: 14, top: 22, bottom: 38 };
const SIDES = MARGIN.left + MARGIN.right;
const ENDS = MARGIN.top + MARGIN.bottom;

// Axes with scales: `x` and `y` are the ends, `log` says which are logarithmic.
function chart(drawing, { width, height, x, y, log = "", titles = ["", ""], square = false }) {
  const margin = { ...MARGIN };
  if (square) {
    const side = Math.min(width - margin.left - margin.right, height - margin.top - margin.bottom);
    margin.right = width - margin.left - side;
    margin.bottom = height - margin.top - side;
  }
  const scale = (ends, isLog, from, to) => {
    const at = isLog ? Math.log10 : (value) => value;
    const [low, high] = ends.map(at);
    return (value) => from + ((at(Math.max(value, isLog ? 1e-300 : -Infinity)) - low) / (high - low)) * (to - from);
  };
  const right = width - margin.right;
  const bottom = height - margin.bottom;
  const toX = scale(x, log.includes("x"), margin.left, right);
  const toY = scale(y, log.includes("y"), bottom, margin.top);
  const marks = (ends, isLog, count) => {
    if (!isLog) return ticks(...ends, count);
    const powers = ticks(...ends.map(Math.log10), count).filter(Number.isInteger);
    return powers.map((power) => 10 ** power);
  };
  for (const value of marks(y, log.includes("y"), 5)) {
    drawing.add("path", { class: "rule", d: `M${margin.left} ${toY(value)}H${right}` });
    drawing.add("text", { x: margin.left - 8, y: toY(value) + 4, "text-anchor": "end" }, inWords(value));
  }
  for (const value of marks(x, log.includes("x"), Math.min(6, Math.floor(width / 90)))) {
    const words = inWords(value);
    const atEnd = toX(value) + 4 * words.length > width;
    drawing.add("text", { x: atEnd ? width : toX(value), y: bottom + 17, "text-anchor": atEnd ? "end" : "middle" }, words);
  }
  drawing.add("path", { class: "axis", d: `M${margin.left} ${bottom}H${right}` });
  drawing.add("text", { x: right, y: bottom + 33, "text-anchor": "end" }, titles[0]);
  drawing.add("text", { x: 2, y: 12 }, titles[1]);
  return {
    toX,
    toY,
    fromX: (at) => x[0] + ((at - margin.left) / (right - margin.left)) * (x[1] - x[0]),
    fromY: (at) => y[0] + ((at - bottom) / (margin.top - bottom)) * (y[1] - y[0]),
    // A line through the points; one outside the axes interrupts it.
    line(points, hue, extra = {}) {
      let pen = "M";
      let d = "";
      for (const [a, b] of points) {
        const inside = a >= x[0] - 1e-9 && a <= x[1] + 1e-9 && b >= y[0] - 1e-9 && b <= y[1] + 1e-9;
        if (inside) d += `${pen}${toX(a).toFixed(2)} ${toY(b).toFixed(2)}`;
        pen = inside ? "L" : "M";
      }
      return drawing.add("path", { class: `curve-line hue-${hue}`, d: d || "M0 0", ...extra });
    },
    dot(a, b, hue, radius = 5) {
      return drawing.add("circle", { class: `spot hue-${hue}`, cx: toX(a), cy: toY(b), r: radius });
    },
    words(a, b, text, attributes = {}) {
      return drawing.add("text", { x: toX(a), y: toY(b), ...attributes }, text);
    },
  };
}

// Random numbers in [0, 1) that are the same for everybody: a linear congruential generator (Numerical Recipes).
function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
