// Cover's count: of the 2^P labellings of P points in general position, a unit with N weights can learn C(P, N).

interactive((kit) => {
  const weights = kit.slider({ name: "weights", label: "Weights", values: [1, 2, 3, 5, 10, 20, 50, 100, 200], value: 10, words: String });
  const points = kit.slider({ name: "points", label: "Points per weight", min: 0.5, max: 4, step: 0.1, value: 2 });
  const set = kit.readings({ count: "points", share: "labellings it can learn", bits: "bits it can hold per weight" });
  const drawing = kit.drawing({ height: 290 });

  // 2 Σ_{k < N} binom(P − 1, k) / 2^P, with every term in logarithms.
  function share(count, size) {
    if (count <= size) return 1;
    let term = 0; // ln binom(P − 1, k)
    let sum = 0;
    for (let k = 0; k < size; k++) {
      sum += Math.exp(term + (1 - count) * Math.LN2);
      term += Math.log(count - 1 - k) - Math.log(k + 1);
    }
    return sum;
  }

  return () => {
    const size = weights.value;
    const count = Math.max(1, Math.round(points.value * size));
    const learned = share(count, size);
    set("count", count, count.toLocaleString("en"));
    set("share", learned, learned > 0.9995 && learned < 1 ? "almost all" : `${inWords(100 * learned)} %`);
    set("bits", (Math.log2(learned) + count) / size);
    const axes = drawing.chart({ x: [0, 4], y: [0, 1.05], titles: ["points per weight", "share of labellings that can be learned"] });
    for (const [other, hue] of [[3, 6], [20, 6], [200, 6], [size, 0]]) {
      const course = [];
      for (let p = 1; p <= 4 * other; p++) course.push([p / other, share(p, other)]);
      axes.line(course, hue, hue === 6 ? { "stroke-width": 1 } : {});
    }
    axes.line([[2, 0], [2, 1.05]], 6, { "stroke-dasharray": "4 4" });
    axes.dot(count / size, learned, 0, 6);
    axes.words(2.05, 0.97, "two per weight");
  };
});
