// Sinusoidal positions as hands of clocks: a shift turns each hand by the same angle, wherever it begins.

interactive((kit) => {
  const D = 16;
  const PAIRS = D / 2;
  const speed = (pair) => 10000 ** ((-2 * pair) / D);
  const position = kit.slider({ name: "place", label: "Place i", min: 0, max: 200, step: 1, value: 10, words: String });
  const shift = kit.slider({ name: "shift", label: "Shift o", min: -50, max: 50, step: 1, value: 3, words: (o) => (o < 0 ? `−${-o}` : `+${o}`) });
  const set = kit.readings({ dot: "PE(i) · PE(i + o)", at_zero: "the same at i = 0", first: "the first hand is turned by", last: "the last one by" });
  const drawing = kit.drawing({ height: 500 });

  const encoding = (at) => Array.from({ length: PAIRS }, (_, pair) => [Math.sin(at * speed(pair)), Math.cos(at * speed(pair))]).flat();
  const dot = (from, o) => encoding(from).reduce((sum, value, at) => sum + value * encoding(from + o)[at], 0);
  const degrees = (angle) => `${inWords((angle * 180) / Math.PI)}°`;

  return () => {
    const [i, o] = [position.value, shift.value];
    set("dot", dot(i, o));
    set("at_zero", dot(0, o));
    set("first", o * speed(0), degrees(o * speed(0)));
    set("last", o * speed(PAIRS - 1), degrees(o * speed(PAIRS - 1)));
    const across = drawing.clear();
    const columns = across < 480 ? 4 : 8;
    const cell = across / columns;
    const radius = Math.min(34, cell * 0.4);
    const lines = PAIRS / columns;
    for (let pair = 0; pair < PAIRS; pair++) {
      const x = (pair % columns) * cell + cell / 2;
      const y = 44 + Math.floor(pair / columns) * 108;
      // Clock angles: 0 is up and turning goes right, so a hand shows its sine to the right and its cosine upwards.
      const tip = (at, length) => [x + length * Math.sin(at * speed(pair)), y - length * Math.cos(at * speed(pair))];
      drawing.add("circle", { class: "rule", cx: x, cy: y, r: radius });
      const turn = o * speed(pair);
      if (Math.abs(turn) < 2 * Math.PI && o !== 0) {
        const [from, to] = [tip(i, radius * 0.5), tip(i + o, radius * 0.5)];
        const flags = `${Math.abs(turn) > Math.PI ? 1 : 0} ${turn > 0 ? 1 : 0}`;
        drawing.add("path", { class: "wire", d: `M${from.join(" ")}A${radius * 0.5} ${radius * 0.5} 0 ${flags} ${to.join(" ")}` });
      }
      drawing.add("path", { class: "curve-line dashed hue-1", d: `M${x} ${y}L${tip(i + o, radius).join(" ")}` });
      drawing.add("path", { class: "curve-line hue-0", d: `M${x} ${y}L${tip(i, radius).join(" ")}` });
      drawing.add("circle", { class: "fill hue-0", cx: tip(i, radius)[0], cy: tip(i, radius)[1], r: 3.5 });
      drawing.add("circle", { class: "hollow hue-1", cx: tip(i + o, radius)[0], cy: tip(i + o, radius)[1], r: 3.5 });
      drawing.add("text", { x, y: y + radius + 16, "text-anchor": "middle" }, `${cell < 110 ? "" : "a turn "}in ${inWords((2 * Math.PI) / speed(pair), 2)}`);
    }
    const below = 44 + lines * 108;
    const [left, right, top, bottom] = [40, across - 10, below + 12, 480];
    const toX = (offset) => left + ((offset + 50) / 100) * (right - left);
    const toY = (value) => bottom - ((value + 2) / (PAIRS + 2)) * (bottom - top);
    drawing.add("text", { x: 0, y: below - 2, class: "strong" }, "Dot product with the place o further on");
    for (const value of [0, 4, 8]) {
      drawing.add("path", { class: "rule", d: `M${left} ${toY(value)}H${right}` });
      drawing.add("text", { x: left - 8, y: toY(value) + 4, "text-anchor": "end" }, String(value));
    }
    for (const offset of [-50, -25, 0, 25, 50]) drawing.add("text", { x: Math.min(toX(offset), across - 12), y: bottom + 16, "text-anchor": "middle" }, inWords(offset));
    const points = Array.from({ length: 101 }, (_, index) => `${toX(index - 50).toFixed(1)} ${toY(dot(i, index - 50)).toFixed(1)}`);
    drawing.add("path", { class: "curve-line hue-2", d: `M${points.join("L")}` });
    drawing.add("circle", { class: "fill hue-1", cx: toX(o), cy: toY(dot(i, o)), r: 5 });
  };
});
