// Difference quotients of x³ at a point, in this computer's own float64 arithmetic.

interactive((kit) => {
  const cube = (x) => x * x * x;
  const step = kit.slider({
    name: "power", label: "Step h", values: Array.from({ length: 65 }, (_, at) => at / 4 - 16), value: -1,
    words: (power) => inWords(10 ** power, 2),
  });
  const point = kit.slider({ name: "x", label: "at x", min: 0.5, max: 1.5, step: 0.1, value: 1 });
  const set = kit.readings({
    slope: "true slope", forward: "one-sided", central: "central", forward_error: "error, one-sided",
    central_error: "error, central",
  });
  const picture = kit.drawing({ height: 250 });
  const errors = kit.drawing({ height: 270 });

  function differences(x, h) {
    const forward = (cube(x + h) - cube(x)) / h;
    const central = (cube(x + h) - cube(x - h)) / (2 * h);
    const slope = 3 * x * x;
    return { forward, central, slope, forward_error: Math.abs(forward - slope) / slope, central_error: Math.abs(central - slope) / slope };
  }

  return () => {
    const x = point.value;
    const h = Number(`1e${step.value}`) || 10 ** step.value;
    const now = differences(x, h);
    for (const name of Object.keys(now)) set(name, now[name], inWords(now[name], name.endsWith("error") ? 2 : 8));
    const curve = picture.chart({ x: [-0.5, 2.5], y: [-2, 12], titles: ["x", "x³, its tangent (dashed) and the two cuts"] });
    const grid = Array.from({ length: 121 }, (_, at) => -0.5 + at / 40).filter((at) => cube(at) <= 12);
    curve.line(grid.map((at) => [at, cube(at)]), 6);
    const tangent = (slope, from) => [-0.5, 2.5].map((at) => [at, from + slope * (at - x)]);
    const clipped = (ends) => {
      const [[x1, y1], [x2, y2]] = ends;
      const at = (y) => x1 + ((y - y1) / (y2 - y1)) * (x2 - x1);
      return [[y1 < -2 ? at(-2) : x1, Math.max(y1, -2)], [y2 > 12 ? at(12) : x2, Math.min(y2, 12)]];
    };
    curve.line(clipped(tangent(now.slope, cube(x))), 6, { "stroke-dasharray": "5 4" });
    curve.line(clipped(tangent(now.forward, cube(x))), 1);
    curve.line(clipped(tangent(now.central, (cube(x + h) + cube(x - h)) / 2)), 0);
    curve.dot(x, cube(x), 6);
    const plot = errors.chart({ x: [1e-16, 1], y: [1e-16, 10], log: "xy", titles: ["step h", "relative error of the slope"] });
    const steps = Array.from({ length: 129 }, (_, at) => 10 ** (at / 8 - 16));
    for (const [name, hue] of [["forward_error", 1], ["central_error", 0]]) {
      plot.line(steps.map((size) => [size, Math.min(10, Math.max(differences(x, size)[name], 1e-16))]), hue);
      plot.dot(h, Math.min(10, Math.max(now[name], 1e-16)), hue);
    }
    plot.words(3e-6, 1e-3, "one-sided", { class: "hue-text hue-1", "text-anchor": "end" });
    plot.words(1e-3, 3e-11, "central", { class: "hue-text hue-0" });
  };
});
