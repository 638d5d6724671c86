// The net of 1986: six inputs, two hidden units, one output. It learns which of 64 patterns are symmetric.

interactive((kit, data) => {
  const [RATE, MOMENTUM] = [0.1, 0.9];
  const PATTERNS = Array.from({ length: 64 }, (_, pattern) => Array.from({ length: 6 }, (__, bit) => (pattern >> bit) & 1));
  const TARGETS = PATTERNS.map((bits) => Number(bits.every((bit, at) => bit === bits[5 - at])));
  const sigmoid = (z) => 1 / (1 + Math.exp(-z));
  let hidden, output, speeds, sweeps; // hidden: 7 × 2 with the biases last; output: 3

  function restart() {
    hidden = data.hidden.map((pair) => [...pair]);
    output = [...data.output];
    speeds = { hidden: hidden.map(() => [0, 0]), output: [0, 0, 0] };
    sweeps = 0;
  }

  function answer(bits) {
    const units = [0, 1].map((unit) => sigmoid(bits.reduce((sum, bit, at) => sum + bit * hidden[at][unit], hidden[6][unit])));
    return { units, value: sigmoid(units[0] * output[0] + units[1] * output[1] + output[2]) };
  }

  // The gradient of ½ Σ (y − d)² over all patterns, backwards from the output.
  function gradient() {
    const slopes = { hidden: hidden.map(() => [0, 0]), output: [0, 0, 0] };
    PATTERNS.forEach((bits, number) => {
      const { units, value } = answer(bits);
      const atOutput = (value - TARGETS[number]) * value * (1 - value);
      slopes.output[2] += atOutput;
      units.forEach((activity, unit) => {
        slopes.output[unit] += atOutput * activity;
        const atHidden = atOutput * output[unit] * activity * (1 - activity);
        bits.forEach((bit, at) => (slopes.hidden[at][unit] += atHidden * bit));
        slopes.hidden[6][unit] += atHidden;
      });
    });
    return slopes;
  }

  function sweep() {
    const slopes = gradient();
    const step = (weights, speed, slope, at) => {
      speed[at] = MOMENTUM * speed[at] - RATE * slope[at];
      weights[at] += speed[at];
    };
    hidden.forEach((pair, at) => [0, 1].forEach((unit) => step(pair, speeds.hidden[at], slopes.hidden[at], unit)));
    output.forEach((_, at) => step(output, speeds.output, slopes.output, at));
    sweeps += 1;
  }
  const solved = () => PATTERNS.filter((bits, number) => (answer(bits).value > 0.5) === (TARGETS[number] === 1)).length;

  kit.button("One step", sweep);
  kit.button("100 steps", () => {
    for (let round = 0; round < 100; round++) sweep();
  });
  kit.button("Until solved", () => {
    for (let round = 0; round < 5000 && solved() < 64; round++) sweep();
  });
  kit.button("Start again", restart);
  const pattern = kit.slider({ name: "pattern", label: "Show it pattern", min: 0, max: 63, step: 1, value: 33,
    words: (number) => PATTERNS[number].join(" ") });
  const set = kit.readings({ sweeps: "steps", error: "error", solved: "patterns right", answer: "its answer (1 is symmetric)", slope: "largest slope" });
  const drawing = kit.drawing({ height: 330 });
  restart();

  return () => {
    const bits = PATTERNS[pattern.value];
    const { units, value } = answer(bits);
    const slopes = gradient();
    set("sweeps", sweeps, sweeps.toLocaleString("en"));
    set("error", PATTERNS.reduce((sum, each, number) => sum + 0.5 * (answer(each).value - TARGETS[number]) ** 2, 0));
    set("solved", solved(), `${solved()} of 64`);
    set("answer", value);
    set("slope", Math.max(...slopes.hidden.flat().map(Math.abs), ...slopes.output.map(Math.abs)));
    const width = drawing.clear();
    const inputAt = (at) => [(width * (at + 0.5)) / 6, 290];
    const hiddenAt = (unit) => [width * (unit ? 0.7 : 0.3), 140];
    const top = [width / 2, 26];
    const wire = ([x1, y1], [x2, y2], weight, share, shift) => {
      const hue = weight < 0 ? 0 : 1;
      drawing.add("path", { class: `curve-line hue-${hue}`, d: `M${x1} ${y1}L${x2} ${y2}`, "stroke-width": Math.min(7, 0.5 + Math.abs(weight) / 2),
        opacity: 0.75, "stroke-dasharray": weight < 0 ? "6 4" : "none" });
      drawing.add("text", { x: x1 + (x2 - x1) * share + shift, y: y1 + (y2 - y1) * share, "text-anchor": "middle", class: `hue-text hue-${hue}` },
        weight.toFixed(1).replace("-", "−"));
    };
    for (const unit of [0, 1]) {
      bits.forEach((_, at) => wire(inputAt(at), hiddenAt(unit), hidden[at][unit], unit ? 0.34 : 0.17, unit ? 8 : -8));
      wire(hiddenAt(unit), top, output[unit], 0.5, unit ? 18 : -18);
    }
    const node = ([x, y], activity, words) => {
      drawing.add("circle", { class: "box", cx: x, cy: y, r: 15 });
      drawing.add("circle", { class: "fill hue-2", cx: x, cy: y, r: 14 * Math.sqrt(activity) });
      drawing.add("text", { x: x + 19, y: y + 4, class: "strong" }, words);
    };
    bits.forEach((bit, at) => node(inputAt(at), bit, String(bit)));
    units.forEach((activity, unit) => node(hiddenAt(unit), activity, inWords(activity, 2)));
    node(top, value, inWords(value, 2));
  };
});
