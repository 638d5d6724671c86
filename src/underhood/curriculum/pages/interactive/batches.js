// The mean of ten numbers by gradient descent: all of them in every step, or one at random.

interactive((kit) => {
  const NUMBERS = [-2.1, -1.4, -0.9, -0.3, 0.2, 0.4, 0.9, 1.3, 1.8, 3.1];
  const START = 6;
  const PASSES = 12;
  const rate = kit.slider({ name: "rate", label: "Learning rate", min: 0.02, max: 1.98, step: 0.02, value: 0.3 });
  const falling = kit.choice({ name: "course", label: "of single steps", options: ["stays", "falls as 1 / k"] });
  const seed = kit.slider({ name: "seed", label: "Order", min: 0, max: 20, step: 1, value: 1, words: String });
  const set = kit.readings({ whole_one: "gap after one pass, all", single_one: "one at a time", whole: "gap at the end, all", single: "one at a time" });
  const drawing = kit.drawing({ height: 290 });

  return () => {
    const best = NUMBERS.reduce((sum, number) => sum + number, 0) / NUMBERS.length;
    const gap = (w) => 0.5 * (w - best) ** 2;
    const size = NUMBERS.length;
    const whole = [[0, START]];
    for (let pass = 1; pass <= PASSES; pass++) {
      const w = whole.at(-1)[1];
      whole.push([pass * size, w - rate.value * (w - best)]);
    }
    const random = seeded(seed.value);
    const single = [[0, START]];
    for (let step = 1; step <= PASSES * size; step++) {
      const number = NUMBERS[Math.floor(random() * size)];
      const w = single.at(-1)[1];
      const length = falling.value === "stays" ? rate.value : Math.min(rate.value, 1 / step);
      single.push([step, w - length * (w - number)]);
    }
    set("whole_one", gap(whole[1][1]));
    set("single_one", gap(single[size][1]));
    set("whole", gap(whole.at(-1)[1]));
    set("single", gap(single.at(-1)[1]));
    const axes = drawing.chart({ x: [0, PASSES * size], y: [1e-7, 100], log: "y", titles: ["numbers looked at", "gap to the least loss"] });
    const inside = (w) => Math.min(100, Math.max(gap(w), 1e-7));
    axes.line(whole.map(([at, w]) => [at, inside(w)]), 1);
    for (const [at, w] of whole) axes.dot(at, inside(w), 1, 3.5);
    axes.line(single.map(([at, w]) => [at, inside(w)]), 0);
    drawing.add("text", { x: 62, y: 34, class: "hue-text hue-1" }, "all in every step");
    drawing.add("text", { x: 182, y: 34, class: "hue-text hue-0" }, "one at a time");
  };
});
