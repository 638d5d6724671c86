// micrograd's demo: the net 2-16-16-1 learns two half moons, all 100 points in every step, gradients worked out here.

interactive((kit, data) => {
  const STEPS = 100;
  const DECAY = 1e-4;
  const count = data.x.length;
  const at = kit.slider({ name: "steps", label: "Steps", min: 0, max: STEPS, step: 1, value: 0, words: String });
  kit.button("Next step", () => (at.value = Math.min(STEPS, at.value + 1)));
  kit.button("10 steps", () => (at.value = Math.min(STEPS, at.value + 10)));
  kit.button("Back to the start", () => (at.value = 0));
  const rate = kit.slider({
    name: "rate", label: "Learning rate, times the demo's", values: [0.03, 0.1, 0.3, 1, 2, 4], value: 1,
  });
  const hidden = kit.choice({ name: "hidden", label: "Hidden units", options: ["ReLU", "linear"] });
  const set = kit.readings({ loss: "loss", right: "points on the right side", size: "length of the gradient" });
  const drawing = kit.drawing({ height: 330 });

  // Activities of each layer for one point; weights are (inputs × units) with the biases as another row.
  function forward(weights, point) {
    const layers = [point];
    weights.forEach((layer, number) => {
      const below = layers[number];
      const biases = layer[layer.length - 1];
      const last = number === weights.length - 1;
      layers.push(biases.map((bias, unit) => {
        const sum = below.reduce((total, value, input) => total + value * layer[input][unit], bias);
        return last || hidden.value === "linear" ? sum : Math.max(0, sum);
      }));
    });
    return layers;
  }

  // The loss, the share of right points, and the gradient of every weight: the chain rule, layer by layer.
  function lossAndGradients(weights) {
    const gradients = weights.map((layer) => layer.map((row) => row.map(() => 0)));
    let [loss, right] = [0, 0];
    data.x.forEach((point, number) => {
      const layers = forward(weights, point);
      const score = layers[weights.length][0];
      const label = data.y[number];
      const margin = 1 - label * score;
      if (label * score > 0) right++;
      if (margin <= 0) return;
      loss += margin / count;
      let above = [-label / count];
      for (let layer = weights.length - 1; layer >= 0; layer--) {
        const below = layers[layer];
        above.forEach((slope, unit) => {
          below.forEach((value, input) => (gradients[layer][input][unit] += value * slope));
          gradients[layer][below.length][unit] += slope;
        });
        if (layer === 0) break;
        const passes = (value) => (hidden.value === "linear" || value > 0 ? 1 : 0);
        above = below.map((value, input) => passes(value) * above.reduce((sum, slope, unit) => sum + slope * weights[layer][input][unit], 0));
      }
    });
    weights.forEach((layer, number) => layer.forEach((row, input) => row.forEach((weight, unit) => {
      loss += DECAY * weight * weight;
      gradients[number][input][unit] += 2 * DECAY * weight;
    })));
    return { loss, right: right / count, gradients };
  }

  let [history, settings] = [[data.weights], ""];
  return () => {
    const now = `${rate.value} ${hidden.value}`;
    if (now !== settings) [history, settings] = [[data.weights], now];
    while (history.length <= at.value) {
      const step = history.length - 1;
      const size = rate.value * (1 - (0.9 * step) / STEPS);
      const { gradients } = lossAndGradients(history[step]);
      history.push(history[step].map((layer, l) => layer.map((row, i) => row.map((weight, u) => weight - size * gradients[l][i][u]))));
    }
    const weights = history[at.value];
    const { loss, right, gradients } = lossAndGradients(weights);
    set("loss", loss);
    set("right", right, `${Math.round(right * 100)} of 100`);
    set("size", Math.hypot(...gradients.flat(2)));

    const axes = drawing.chart({ x: [-1.75, 2.75], y: [-1.25, 1.75], titles: ["first coordinate", "second"] });
    const [across, down] = [45, 30];
    for (let column = 0; column < across; column++) {
      for (let row = 0; row < down; row++) {
        const [x0, y0] = [-1.75 + (4.5 * column) / across, -1.25 + (3 * row) / down];
        const score = forward(weights, [x0 + 2.25 / across, y0 + 1.5 / down]).at(-1)[0];
        const [left, top] = [axes.toX(x0), axes.toY(y0 + 3 / down)];
        drawing.add("rect", { class: `fill hue-${score > 0 ? 1 : 0}`, x: left, y: top, width: axes.toX(x0 + 4.5 / across) - left,
          height: axes.toY(y0) - top, opacity: 0.08 + 0.3 * Math.tanh(Math.abs(score)) });
      }
    }
    data.x.forEach(([x, y], number) => {
      if (data.y[number] > 0) drawing.add("rect", { class: "spot hue-1", x: axes.toX(x) - 4, y: axes.toY(y) - 4, width: 8, height: 8 });
      else axes.dot(x, y, 0, 4.5);
    });
  };
});
