// Three optimizers on a ravine, f(x, y) = ½ (x² + steepness · y²), from the same point.

interactive((kit) => {
  const START = [-4, 1];
  const rate = kit.slider({
    name: "rate", label: "Learning rate", values: Array.from({ length: 37 }, (_, at) => Number((10 ** (at / 12 - 3)).toPrecision(3))),
    value: 0.0681,
  });
  const steepness = kit.slider({ name: "steepness", label: "Steepness", values: [1, 2, 5, 10, 20, 40], value: 20 });
  const steps = kit.slider({ name: "steps", label: "Steps", min: 1, max: 200, step: 1, value: 60 });
  const set = kit.readings({ sgd: "loss, gradient descent", momentum: "loss, momentum 0.9", adam: "loss, Adam" });
  const drawing = kit.drawing({ height: 330 });
  const NAMES = ["sgd", "momentum", "adam"];
  const LABELS = ["gradient descent", "momentum", "Adam"];

  const RULES = {
    sgd: (gradient) => gradient,
    momentum(gradient, state) {
      state.speed = 0.9 * (state.speed ?? 0) + gradient;
      return state.speed;
    },
    adam(gradient, state, step) {
      state.mean = 0.9 * (state.mean ?? 0) + 0.1 * gradient;
      state.square = 0.999 * (state.square ?? 0) + 0.001 * gradient * gradient;
      return state.mean / (1 - 0.9 ** step) / (Math.sqrt(state.square / (1 - 0.999 ** step)) + 1e-8);
    },
  };

  function descend(rule, curvature) {
    const states = [{}, {}];
    const path = [START];
    for (let step = 1; step <= steps.value; step++) {
      const here = path.at(-1);
      path.push(here.map((value, axis) => value - rate.value * RULES[rule](curvature[axis] * value, states[axis], step)));
    }
    return path;
  }

  return () => {
    const curvature = [1, steepness.value];
    const loss = (point) => 0.5 * (curvature[0] * point[0] ** 2 + curvature[1] * point[1] ** 2);
    const axes = drawing.chart({ x: [-5, 5], y: [-2.5, 2.5], titles: ["along the valley", "across"] });
    for (const level of [0.05, 0.5, 2, 6, 14, 30]) {
      const ring = Array.from({ length: 121 }, (_, at) => {
        const angle = (2 * Math.PI * at) / 120;
        return [Math.sqrt(2 * level) * Math.cos(angle), Math.sqrt((2 * level) / curvature[1]) * Math.sin(angle)];
      });
      axes.line(ring, 6, { "stroke-width": 0.75, opacity: 0.5 });
    }
    NAMES.forEach((name, hue) => {
      const path = descend(name, curvature);
      const end = loss(path.at(-1));
      set(name, end, end > 1e6 ? "it flies apart" : inWords(end));
      const outside = path.findIndex(([x, y]) => Math.abs(x) > 5 || Math.abs(y) > 2.5);
      const inside = outside < 0 ? path : path.slice(0, outside);
      axes.line(inside, hue, { "stroke-dasharray": ["none", "6 3", "2 3"][hue] });
      for (const [x, y] of inside) axes.dot(x, y, hue, 2);
      axes.dot(...inside.at(-1), hue, 5);
      drawing.add("text", { x: [40, 168, 256][hue], y: 34, class: `hue-text hue-${hue}` }, LABELS[hue]);
    });
  };
});
