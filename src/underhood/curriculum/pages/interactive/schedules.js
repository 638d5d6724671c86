// The course of a learning rate: warm-up, plateau, decay. The same function as train/schedule.py.

interactive((kit) => {
  const STEPS = 1000;
  const percent = (share) => `${Math.round(100 * share)} %`;
  const warmup = kit.slider({ name: "warmup", label: "Warm-up", min: 0, max: 0.5, step: 0.01, value: 0.1, words: percent });
  const decay = kit.slider({ name: "decay", label: "Decay", min: 0, max: 1, step: 0.01, value: 0.9, words: percent });
  const floor = kit.slider({ name: "floor", label: "Floor", min: 0, max: 0.5, step: 0.05, value: 0.1, words: percent });
  const shape = kit.choice({ name: "shape", label: "Shape", options: ["cosine", "linear"] });
  const step = kit.slider({ name: "step", label: "Step", min: 0, max: STEPS - 1, step: 1, value: 550, words: String });
  const set = kit.readings({ factor: "share of the peak rate at that step", mean: "mean over the run" });
  const drawing = kit.drawing({ height: 280 });

  function factor(at) {
    const [rise, fall] = [warmup.value * STEPS, decay.value * STEPS];
    if (at + 1 < rise) return (at + 1) / rise;
    const left = fall >= 1 ? (STEPS - at) / (fall + 1) : 1;
    if (left >= 1) return 1;
    const shaped = shape.value === "linear" ? left : 0.5 - 0.5 * Math.cos(Math.PI * left);
    return floor.value + (1 - floor.value) * shaped;
  }

  return () => {
    decay.value = Math.min(decay.value, Math.round(100 * (1 - warmup.value)) / 100);
    const course = Array.from({ length: STEPS }, (_, at) => [at, factor(at)]);
    set("factor", factor(step.value), percent(factor(step.value)));
    set("mean", course.reduce((sum, [, value]) => sum + value, 0) / STEPS);
    const axes = drawing.chart({ x: [0, STEPS], y: [0, 1.05], titles: ["step", "share of the peak rate"] });
    axes.line(course, 0);
    axes.line([[step.value, 0], [step.value, factor(step.value)]], 6, { "stroke-dasharray": "4 4" });
    axes.dot(step.value, factor(step.value), 0, 6);
  };
});
