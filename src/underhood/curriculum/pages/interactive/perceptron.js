// Rosenblatt's rule on points in the plane, one mistake at a time; the third input is always 1.

interactive((kit) => {
  const EXAMPLES = {
    "two groups": [[-0.8, 0.5, 1], [-0.5, 0.8, 1], [-0.2, 0.3, 1], [-0.7, -0.1, 1], [0.1, 0.7, 1],
      [0.7, -0.5, -1], [0.4, -0.8, -1], [0.8, 0.1, -1], [0.2, -0.4, -1], [0.5, -0.1, -1]],
    "XOR": [[-0.6, -0.6, -1], [-0.6, 0.6, 1], [0.6, -0.6, 1], [0.6, 0.6, -1]],
    "a narrow gap": [[-0.6, 0.1, 1], [-0.2, 0.05, 1], [0.3, 0.12, 1], [0.7, 0.2, 1],
      [-0.5, -0.1, -1], [0, -0.08, -1], [0.4, -0.05, -1], [0.8, 0.02, -1]],
  };
  const example = kit.choice({ name: "example", label: "Points", options: Object.keys(EXAMPLES) });
  let points, weights, mistakes, next, clean, last;

  function forget() {
    [weights, mistakes, next, clean, last] = [[0, 0, 0], 0, 0, 0, null];
  }
  const restart = () => {
    points = EXAMPLES[example.value].map((point) => [...point]);
    forget();
  };
  const output = ([x, y]) => weights[0] * x + weights[1] * y + weights[2];
  const isWrong = (point) => point[2] * output(point) <= 0;

  // Goes on to the next mistake and corrects it; false when a whole sweep had none.
  function correct() {
    while (clean < points.length) {
      const point = points[next];
      next = (next + 1) % points.length;
      if (!isWrong(point)) {
        clean += 1;
        continue;
      }
      weights = [weights[0] + point[2] * point[0], weights[1] + point[2] * point[1], weights[2] + point[2]];
      [mistakes, clean, last] = [mistakes + 1, 0, point];
      return true;
    }
    last = null;
    return false;
  }

  example.addEventListener("change", () => {
    restart();
    kit.changed();
  });
  kit.button("Correct one mistake", correct);
  kit.button("Up to 1,000 mistakes", () => {
    for (let round = 0; round < 1000 && correct(); round++);
  });
  kit.button("Forget", forget);
  const set = kit.readings({ mistakes: "mistakes corrected", wrong: "points still wrong", weights: "weights" });
  const drawing = kit.drawing({ height: 380, label: "Points in the plane. Arrow keys move the focused one, Enter changes its class." });
  restart();

  return () => {
    const wrong = points.filter(isWrong).length;
    set("mistakes", mistakes, String(mistakes));
    set("wrong", wrong, wrong === 0 && mistakes ? "none: it has learned" : String(wrong));
    set("weights", weights.join(","), weights.map((weight) => inWords(weight)).join(", "));
    const focused = drawing.svg.contains(document.activeElement) ? Number(document.activeElement.dataset.point) : null;
    const axes = drawing.chart({ x: [-1, 1], y: [-1, 1], square: true });
    if (weights[0] || weights[1]) {
      // The line w · x = 0: through the point nearest to the middle, along the direction at right angles to w.
      const length = weights[0] ** 2 + weights[1] ** 2;
      const foot = [(-weights[2] * weights[0]) / length, (-weights[2] * weights[1]) / length];
      const along = [-weights[1], weights[0]].map((side) => side / Math.sqrt(length));
      const inside = [];
      for (let t = -4; t <= 4; t += 0.01) {
        const [x, y] = [foot[0] + t * along[0], foot[1] + t * along[1]];
        if (Math.abs(x) <= 1 && Math.abs(y) <= 1) inside.push([x, y]);
      }
      if (inside.length > 1) axes.line([inside[0], inside.at(-1)], 6);
    }
    points.forEach((point, number) => {
      const [x, y, label] = point;
      if (isWrong(point)) {
        drawing.add("circle", { class: "hollow hue-6 dashed", cx: axes.toX(x), cy: axes.toY(y), r: 13 });
      }
      const mark = label > 0
        ? axes.dot(x, y, 0, 8)
        : drawing.add("rect", { class: "spot hue-1", x: axes.toX(x) - 7, y: axes.toY(y) - 7, width: 14, height: 14 });
      mark.setAttribute("tabindex", 0);
      mark.setAttribute("role", "button");
      mark.setAttribute("aria-label", `point ${number + 1}, ${label > 0 ? "circle" : "square"}, at ${inWords(x)}, ${inWords(y)}`
        + (isWrong(point) ? ", wrong" : ""));
      mark.dataset.point = number;
      if (point === last) mark.setAttribute("stroke", "currentColor");
      if (number === focused) mark.focus();
      mark.addEventListener("pointerdown", (event) => drag(event, point, axes));
      mark.addEventListener("keydown", (event) => {
        const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
        if (event.key in moves) move(point, x + 0.05 * moves[event.key][0], y + 0.05 * moves[event.key][1]);
        else if (event.key === "Enter") {
          point[2] = -label;
          clean = 0;
        } else return;
        event.preventDefault();
        kit.changed();
      });
    });
  };

  function move(point, x, y) {
    const held = (value) => Math.round(100 * Math.min(Math.max(value, -0.95), 0.95)) / 100;
    [point[0], point[1], clean] = [held(x), held(y), 0];
  }

  function drag(event, point, axes) {
    event.preventDefault();
    const follow = (moved) => {
      const box = drawing.svg.getBoundingClientRect();
      move(point, axes.fromX(moved.clientX - box.left), axes.fromY(moved.clientY - box.top));
      kit.changed();
    };
    addEventListener("pointermove", follow);
    addEventListener("pointerup", () => removeEventListener("pointermove", follow), { once: true });
  }
});
