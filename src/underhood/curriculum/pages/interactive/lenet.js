// LeNet of 1989 on a digit that the reader draws: 16 × 16 pixels, two layers of shared weights, ten answers.

interactive((kit, data) => {
  const SIDE = 16;
  const layers = Object.fromEntries(Object.entries(data.layers).map(([name, { scale, bytes }]) => [
    name, Float64Array.from(atob(bytes), (sign) => ((sign.charCodeAt(0) << 24) >> 24) * scale),
  ]));
  // Strokes of the digits in a square of side 1, for those who do not draw.
  const STROKES = [
    [[[0.5, 0.05], [0.25, 0.15], [0.15, 0.5], [0.25, 0.85], [0.5, 0.95], [0.75, 0.85], [0.85, 0.5], [0.75, 0.15], [0.5, 0.05]]],
    [[[0.4, 0.2], [0.55, 0.05], [0.5, 0.95]]],
    [[[0.2, 0.25], [0.35, 0.07], [0.65, 0.07], [0.78, 0.28], [0.6, 0.55], [0.2, 0.92], [0.85, 0.92]]],
    [[[0.2, 0.15], [0.5, 0.05], [0.75, 0.2], [0.65, 0.42], [0.42, 0.48], [0.7, 0.55], [0.8, 0.75], [0.55, 0.95], [0.2, 0.85]]],
    [[[0.3, 0.05], [0.2, 0.55], [0.8, 0.55]], [[0.72, 0.1], [0.65, 0.95]]],
    [[[0.8, 0.06], [0.32, 0.06], [0.25, 0.45], [0.6, 0.4], [0.8, 0.65], [0.6, 0.92], [0.2, 0.9]]],
    [[[0.65, 0.05], [0.35, 0.35], [0.22, 0.7], [0.4, 0.94], [0.68, 0.88], [0.72, 0.65], [0.5, 0.55], [0.25, 0.68]]],
    [[[0.15, 0.08], [0.82, 0.08], [0.55, 0.5], [0.42, 0.95]]],
    [[[0.5, 0.48], [0.25, 0.28], [0.48, 0.05], [0.72, 0.22], [0.5, 0.48], [0.25, 0.75], [0.5, 0.95], [0.75, 0.75], [0.5, 0.48]]],
    [[[0.75, 0.25], [0.5, 0.05], [0.27, 0.25], [0.42, 0.48], [0.72, 0.35], [0.75, 0.25], [0.68, 0.6], [0.58, 0.95]]],
  ];
  let ink = new Float64Array(SIDE * SIDE);
  let cursor = [8, 8];
  let last = null;

  // A round brush: full ink near the point, none beyond a pixel and a half.
  function paint(x, y) {
    for (let row = 0; row < SIDE; row++) {
      for (let column = 0; column < SIDE; column++) {
        const away = Math.hypot(column + 0.5 - x, row + 0.5 - y);
        ink[row * SIDE + column] = Math.max(ink[row * SIDE + column], Math.min(1, Math.max(0, 1.45 - away)));
      }
    }
  }
  function stroke(from, to) {
    const steps = Math.ceil(4 * Math.hypot(to[0] - from[0], to[1] - from[1])) || 1;
    for (let at = 0; at <= steps; at++) paint(from[0] + ((to[0] - from[0]) * at) / steps, from[1] + ((to[1] - from[1]) * at) / steps);
  }
  function write(digit) {
    ink.fill(0);
    for (const points of STROKES[digit]) {
      const scaled = points.map(([x, y]) => [3.6 + 8.8 * x, 2.6 + 10.8 * y]);
      for (let at = 1; at < scaled.length; at++) stroke(scaled[at - 1], scaled[at]);
    }
  }

  const example = kit.slider({ name: "digit", label: "Write a", min: 0, max: 9, step: 1, value: 3, words: String });
  example.input.addEventListener("input", () => {
    write(example.value);
    kit.changed();
  });
  kit.button("Clear", () => ink.fill(0));
  const set = kit.readings({ answer: "the network reads", output: "its output for that", second: "then comes" });
  const board = kit.drawing({ height: 268, label: "Board of 16 by 16 pixels. Draw with the pointer, or move with the arrow keys and put ink with the space bar." });
  const inside = kit.drawing({ height: 150 });
  board.svg.setAttribute("tabindex", 0);
  board.svg.style.touchAction = "none";

  // The ink moved so that its centre of mass is in the middle, as in the pictures that the network learned from.
  function centred() {
    let [sum, sumX, sumY] = [0, 0, 0];
    ink.forEach((value, at) => {
      sum += value;
      sumX += value * (at % SIDE);
      sumY += value * Math.floor(at / SIDE);
    });
    const [shiftX, shiftY] = sum ? [Math.round(7.5 - sumX / sum), Math.round(7.5 - sumY / sum)] : [0, 0];
    const moved = new Float64Array(SIDE * SIDE).fill(-1);
    ink.forEach((value, at) => {
      const [x, y] = [(at % SIDE) + shiftX, Math.floor(at / SIDE) + shiftY];
      if (x >= 0 && x < SIDE && y >= 0 && y < SIDE) moved[y * SIDE + x] = 2 * Math.round(100 * value) / 100 - 1;
    });
    return moved;
  }

  // Maps of half the side: 5 × 5 windows with a stride of two over the listed maps; outside is paper.
  function convolve(maps, side, weights, biases, sources) {
    const half = side / 2;
    const depth = sources[0].length;
    return sources.map((seen, number) => {
      const made = new Float64Array(half * half);
      for (let row = 0; row < half; row++) {
        for (let column = 0; column < half; column++) {
          let sum = biases[(number * half + row) * half + column];
          seen.forEach((map, channel) => {
            for (let u = 0; u < 5; u++) {
              for (let v = 0; v < 5; v++) {
                const [y, x] = [2 * row + u - 2, 2 * column + v - 2];
                const value = y < 0 || x < 0 || y >= side || x >= side ? -1 : maps[map][y * side + x];
                sum += value * weights[((number * depth + channel) * 5 + u) * 5 + v];
              }
            }
          });
          made[row * half + column] = Math.tanh(sum);
        }
      }
      return made;
    });
  }
  const range = (from, to) => Array.from({ length: to - from }, (_, at) => from + at);
  const THIRDS = [range(0, 8), range(4, 12), [...range(0, 4), ...range(8, 12)]];
  const dense = (values, weights, biases) =>
    Array.from(biases, (bias, to) => values.reduce((sum, value, from) => sum + value * weights[from * biases.length + to], bias));

  function read(picture) {
    const first = convolve([picture], SIDE, layers.h1, layers.b1, range(0, 12).map(() => [0]));
    const second = convolve(first, 8, layers.h2, layers.b2, range(0, 12).map((number) => THIRDS[Math.floor(number / 4)]));
    const hidden = dense(second.flatMap((map) => [...map]), layers.h3, layers.b3).map(Math.tanh);
    return { first, outputs: dense(hidden, layers.out, layers.b_out) };
  }

  const toBoard = (event) => {
    const box = board.svg.getBoundingClientRect();
    return [((event.clientX - box.left) / 256) * SIDE, ((event.clientY - box.top - 4) / 256) * SIDE];
  };
  board.svg.addEventListener("pointerdown", (event) => {
    last = toBoard(event);
    paint(...last);
    board.svg.setPointerCapture(event.pointerId);
    kit.changed();
  });
  board.svg.addEventListener("pointermove", (event) => {
    if (last === null) return;
    const next = toBoard(event);
    stroke(last, next);
    last = next;
    kit.changed();
  });
  for (const name of ["pointerup", "pointercancel"]) board.svg.addEventListener(name, () => (last = null));
  board.svg.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key in moves) cursor = cursor.map((at, axis) => Math.min(15, Math.max(0, at + moves[event.key][axis])));
    else if (event.key === " ") paint(cursor[0] + 0.5, cursor[1] + 0.5);
    else return;
    event.preventDefault();
    kit.changed();
  });
  write(example.value);

  function pixels(drawing, values, side, left, top, size, low) {
    values.forEach((value, at) => {
      const share = (value - low) / (1 - low);
      drawing.add("rect", { class: "fill ink-pixel", x: left + (at % side) * size, y: top + Math.floor(at / side) * size, width: size, height: size,
        opacity: share.toFixed(3) });
    });
  }

  return () => {
    const picture = centred();
    const { first, outputs } = read(picture);
    const order = range(0, 10).sort((a, b) => outputs[b] - outputs[a]);
    set("answer", order[0]);
    set("output", outputs[order[0]]);
    set("second", order[1], `${order[1]} with ${inWords(outputs[order[1]])}`);
    board.svg.dataset.picture = [...picture].join(",");
    const beside = board.clear() - 300 > 60;
    const width = board.clear(beside ? 264 : 264 + 10 * 18);
    board.add("rect", { class: "box", x: 0, y: 4, width: 256, height: 256 });
    pixels(board, ink, SIDE, 0, 4, 16, 0);
    board.add("rect", { class: "hollow hue-0", "fill-opacity": 0, x: cursor[0] * 16, y: 4 + cursor[1] * 16, width: 16, height: 16, opacity: 0.5 });
    const left = beside ? 292 : 16;
    const room = beside ? width - 300 : Math.min(240, width - 16);
    outputs.forEach((output, digit) => {
      const [y, tall] = beside ? [8 + 25 * digit, 18] : [270 + 17 * digit, 12];
      const share = Math.max(0, Math.min(1, (output + 1) / 2));
      board.add("text", { x: left - 16, y: y + tall - (beside ? 4 : 2), class: "strong" }, String(digit));
      board.add("rect", { class: "box", x: left, y, width: room, height: tall });
      board.add("rect", { class: `fill hue-${digit === order[0] ? 0 : 6}`, x: left, y, width: room * share, height: tall });
    });
    const columns = 6;
    const cell = Math.min(8, Math.floor((inside.clear() - 30) / (columns * 8.8)));
    inside.clear(24 + 2 * cell * 8.6);
    inside.add("text", { x: 0, y: 12 }, "Its twelve first maps: where each feature is");
    first.forEach((map, number) => {
      const [left, top] = [(number % columns) * cell * 8.8, 20 + Math.floor(number / columns) * cell * 8.6];
      inside.add("rect", { class: "box", x: left, y: top, width: 8 * cell, height: 8 * cell });
      pixels(inside, map, 8, left, top, cell, -1);
    });
  };
});
