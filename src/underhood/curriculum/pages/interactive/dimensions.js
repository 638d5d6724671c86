// The cosine between two random directions in d dimensions: its exact density is proportional to (1 − t²)^((d − 3) / 2).

interactive((kit) => {
  const dimensions = kit.slider({ name: "d", label: "Dimensions", values: [3, 4, 6, 8, 12, 16, 32, 64, 128, 256, 512, 768, 1024, 2048, 4096],
    value: 64, words: (d) => d.toLocaleString("en") });
  const bound = kit.slider({ name: "cosine", label: "Nearer than a cosine of", min: 0.02, max: 0.9, step: 0.02, value: 0.2 });
  const set = kit.readings({ typical: "typical |cosine|, 1 / √d", share: "share of pairs beyond it", angle: "that is an angle of" });
  const drawing = kit.drawing({ height: 290 });
  const CELLS = 4000;

  // Simpson's rule over the density, divided by its largest value so that nothing underflows.
  function area(d, low, high) {
    const value = (t) => Math.exp(((d - 3) / 2) * Math.log1p(-Math.min(t * t, 1 - 1e-16)));
    const width = (high - low) / CELLS;
    let sum = value(low) + value(high);
    for (let at = 1; at < CELLS; at++) sum += (at % 2 ? 4 : 2) * value(low + at * width);
    return (sum * width) / 3;
  }

  return () => {
    const d = dimensions.value;
    // Nearly all of it is within 12 / √d: a finer grid there, or many dimensions would be a single cell.
    const edge = Math.min(1, 12 / Math.sqrt(d));
    const whole = 2 * area(d, 0, edge);
    set("typical", 1 / Math.sqrt(d));
    set("share", bound.value >= edge ? 0 : (2 * area(d, bound.value, edge)) / whole);
    const degrees = (Math.acos(bound.value) * 180) / Math.PI;
    set("angle", degrees, `${inWords(degrees)}° or less`);
    const density = (t) => Math.exp(((d - 3) / 2) * Math.log1p(-Math.min(t * t, 1 - 1e-16))) / whole;
    const axes = drawing.chart({ x: [-1, 1], y: [0, 1.1 * density(0)], titles: ["cosine", "density"] });
    const points = Array.from({ length: 801 }, (_, at) => [at / 400 - 1, density(at / 400 - 1)]);
    for (const side of [-1, 1]) {
      const tail = points.filter(([t]) => side * t >= bound.value - 1e-9);
      const shape = tail.map(([t, height], at) => `${at ? "L" : "M"}${axes.toX(t)} ${axes.toY(height)}`).join("");
      drawing.add("path", { class: "fill hue-1", d: `${shape}L${axes.toX(tail.at(-1)[0])} ${axes.toY(0)}L${axes.toX(tail[0][0])} ${axes.toY(0)}Z` });
    }
    axes.line(points, 0);
    for (const side of [-1, 1]) {
      axes.line([[side * bound.value, 0], [side * bound.value, density(0)]], 1, { "stroke-dasharray": "4 4" });
    }
  };
});
