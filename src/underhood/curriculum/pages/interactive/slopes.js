// How hard a wrong unit is pulled: the slope of squared error and of cross-entropy at the unit's input z, target 1.

interactive((kit) => {
  const z = kit.slider({ name: "z", label: "Input z (it should say 1)", min: -8, max: 8, step: 0.1, value: -4 });
  const set = kit.readings({ output: "its answer", squared: "slope of ½ (a − 1)²", entropy: "slope of −ln a", steps_squared: "steps until 0.9, squared error", steps_entropy: "with cross-entropy" });
  const drawing = kit.drawing({ height: 280 });
  const sigmoid = (value) => 1 / (1 + Math.exp(-value));
  const SLOPES = {
    squared: (value) => (sigmoid(value) - 1) * sigmoid(value) * (1 - sigmoid(value)),
    entropy: (value) => sigmoid(value) - 1,
  };

  function steps(slope) {
    let value = z.value;
    let count = 0;
    while (sigmoid(value) < 0.9 && count < 100000) {
      value -= slope(value);
      count += 1;
    }
    return count;
  }

  return () => {
    set("output", sigmoid(z.value));
    const axes = drawing.chart({ x: [-8, 8], y: [-1.05, 0.05], titles: ["input z", "slope"] });
    for (const [hue, name] of ["squared", "entropy"].entries()) {
      set(name, SLOPES[name](z.value));
      const count = steps(SLOPES[name]);
      set(`steps_${name}`, count, count === 100000 ? "more than 100,000" : count.toLocaleString("en"));
      axes.line(Array.from({ length: 161 }, (_, at) => [at / 10 - 8, SLOPES[name](at / 10 - 8)]), 1 - hue);
      axes.dot(z.value, SLOPES[name](z.value), 1 - hue, 6);
    }
    axes.words(-7.8, -0.24, "squared error", { class: "hue-text hue-1" });
    axes.words(0.6, -0.62, "cross-entropy", { class: "hue-text hue-0" });
  };
});
