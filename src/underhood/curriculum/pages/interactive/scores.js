// Scores of one query with eight keys, as they are and divided by √d: what the softmax makes of both.

interactive((kit) => {
  const KEYS = 8;
  const WIDEST = 1024;
  let seed = 1;
  const width = kit.slider({ name: "d", label: "Dimensions d of query and keys", values: Array.from({ length: 11 }, (_, power) => 2 ** power),
    value: 64, words: String });
  kit.button("Other vectors", () => {
    seed += 1;
  });
  const set = kit.readings({ spread: "spread of the scores", most: "largest weight", slope: "slope there",
    spread_divided: "divided: spread", most_divided: "largest weight", slope_divided: "slope there" });
  const drawing = kit.drawing({ height: 330 });

  // Normal numbers with variance 1 (Box and Muller), the same for every width: a query, then the keys.
  function vectors() {
    const random = seeded(seed);
    const normal = () => Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
    return Array.from({ length: KEYS + 1 }, () => Array.from({ length: WIDEST }, normal));
  }
  function softmax(scores) {
    const most = Math.max(...scores);
    const powers = scores.map((score) => Math.exp(score - most));
    const sum = powers.reduce((total, power) => total + power, 0);
    return powers.map((power) => power / sum);
  }
  function spread(scores) {
    const mean = scores.reduce((total, score) => total + score, 0) / KEYS;
    return Math.sqrt(scores.reduce((total, score) => total + (score - mean) ** 2, 0) / KEYS);
  }

  return () => {
    const d = width.value;
    const [query, ...keys] = vectors();
    const scores = keys.map((key) => key.slice(0, d).reduce((sum, value, at) => sum + value * query[at], 0));
    const arms = [["", "as they are", scores, 1], ["_divided", `divided by √d = ${inWords(Math.sqrt(d))}`, scores.map((score) => score / Math.sqrt(d)), 0]];
    const across = drawing.clear();
    arms.forEach(([name, title, given, hue], panel) => {
      const weights = softmax(given);
      const most = Math.max(...weights);
      set(`spread${name}`, spread(given));
      set(`most${name}`, most, `${inWords(100 * most)} %`);
      set(`slope${name}`, most * (1 - most));
      const top = 24 + 165 * panel;
      const step = across / KEYS;
      drawing.add("text", { x: 0, y: top - 8, class: "strong" }, `Weights of scores ${title}`);
      drawing.add("path", { class: "axis", d: `M0 ${top + 110}H${across}` });
      weights.forEach((weight, key) => {
        const tall = Math.max(1, 96 * weight);
        const x = key * step + 0.15 * step;
        drawing.add("rect", { class: `fill hue-${hue}`, x, y: top + 110 - tall, width: 0.7 * step, height: tall });
        drawing.add("text", { x: key * step + step / 2, y: top + 126, "text-anchor": "middle" }, inWords(Number(given[key].toFixed(1)), 2));
      });
    });
  };
});
