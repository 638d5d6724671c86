// The net 64-16-16-10 on a picture of 8 × 8 pixels that the reader changes; every unit of it is drawn.

interactive((kit, data) => {
  const sigmoid = (z) => 1 / (1 + Math.exp(-z));
  let ink = [...data.pictures[3]];
  let cursor = 27;
  const example = kit.slider({ name: "digit", label: "Show it a", min: 0, max: 9, step: 1, value: 3, words: String });
  example.input.addEventListener("input", () => {
    ink = [...data.pictures[example.value]];
    kit.changed();
  });
  kit.button("Noise", () => {
    const random = seeded(Date.now());
    ink = ink.map(() => Math.round(16 * random()));
  });
  kit.button("Clear", () => ink.fill(0));
  const set = kit.readings({ answer: "it reads", output: "output for that", second: "then comes" });
  const drawing = kit.drawing({ height: 340, label: "Picture of 8 by 8 pixels. Click a pixel to give it ink, or move with the arrow keys and press the space bar." });
  drawing.svg.setAttribute("tabindex", 0);
  const CELL = 20;

  // The layers' activities; the last row of a layer's weights is its biases.
  function activities() {
    const layers = [ink.map((level) => level / 16)];
    for (const weights of data.weights) {
      const below = layers[layers.length - 1];
      const biases = weights[weights.length - 1];
      layers.push(biases.map((bias, unit) => sigmoid(below.reduce((sum, value, at) => sum + value * weights[at][unit], bias))));
    }
    return layers;
  }
  const toggle = (at) => {
    ink[at] = ink[at] > 7 ? 0 : 16;
    kit.changed();
  };
  drawing.svg.addEventListener("pointerdown", (event) => {
    const box = drawing.svg.getBoundingClientRect();
    const [column, row] = [(event.clientX - box.left) / CELL, (event.clientY - box.top - 90) / CELL].map(Math.floor);
    if (row >= 0 && row < 8 && column >= 0 && column < 8) toggle((cursor = 8 * row + column));
  });
  drawing.svg.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -8, ArrowDown: 8 };
    if (event.key in moves) cursor = (cursor + moves[event.key] + 64) % 64;
    else if (event.key !== " ") return;
    else toggle(cursor);
    event.preventDefault();
    kit.changed();
  });

  return () => {
    const layers = activities();
    const outputs = layers[3];
    const order = outputs.map((_, digit) => digit).sort((a, b) => outputs[b] - outputs[a]);
    set("answer", order[0], String(order[0]));
    set("output", outputs[order[0]]);
    set("second", order[1], `${order[1]} (${inWords(outputs[order[1]])})`);
    const width = drawing.clear();
    drawing.svg.setAttribute("data-picture", ink.join(","));
    ink.forEach((level, at) => {
      const corner = { x: (at % 8) * CELL, y: 90 + Math.floor(at / 8) * CELL, width: CELL, height: CELL };
      drawing.add("rect", { class: "box", ...corner });
      drawing.add("rect", { class: "fill ink-pixel", ...corner, opacity: (level / 16).toFixed(3) });
    });
    const mark = { x: (cursor % 8) * CELL, y: 90 + Math.floor(cursor / 8) * CELL, width: CELL, height: CELL };
    drawing.add("rect", { class: "hollow hue-0", "fill-opacity": 0, opacity: 0.6, ...mark });
    const left = (layer) => 175 + ((width - 205) * layer) / 3;
    const top = (layer, unit) => 12 + (unit + 0.5) * (320 / layers[layer].length);
    for (const layer of [2, 3]) {
      layers[layer].forEach((_, unit) => layers[layer - 1].forEach((activity, at) => {
        const strength = activity * data.weights[layer - 1][at][unit];
        if (Math.abs(strength) > 1) {
          drawing.add("path", { class: `curve-line hue-${strength < 0 ? 0 : 1}`, d: `M${left(layer - 1)} ${top(layer - 1, at)}L${left(layer)} ${top(layer, unit)}`,
            "stroke-width": Math.min(3, Math.abs(strength) / 3), opacity: 0.6, "stroke-dasharray": strength < 0 ? "5 3" : "none" });
        }
      }));
    }
    for (const layer of [1, 2, 3]) {
      layers[layer].forEach((activity, unit) => {
        drawing.add("circle", { class: "box", cx: left(layer), cy: top(layer, unit), r: 8 });
        drawing.add("circle", { class: "fill hue-2", cx: left(layer), cy: top(layer, unit), r: 7.5 * Math.sqrt(activity) });
        if (layer === 3) drawing.add("text", { x: left(3) + 13, y: top(3, unit) + 4, class: unit === order[0] ? "strong" : "" }, String(unit));
      });
    }
  };
});
