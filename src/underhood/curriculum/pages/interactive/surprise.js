// Entropy, cross-entropy and divergence of two distributions over three kinds of weather.

interactive((kit) => {
  const KINDS = ["sun", "rain", "snow"];
  const real = KINDS.map((kind, at) => kit.slider({ name: `p_${kind}`, label: `days of ${kind}`, min: 0, max: 10, step: 1, value: [7, 2, 1][at], words: String }));
  const forecast = KINDS.map((kind, at) =>
    kit.slider({ name: `q_${kind}`, label: `forecast of ${kind}`, min: 0, max: 10, step: 1, value: [4, 3, 3][at], words: String }));
  const set = kit.readings({ entropy: "entropy H(p)", cross: "cross-entropy H(p, q)", divergence: "divergence D(p ‖ q)", perplexity: "perplexity of q" });
  const drawing = kit.drawing({ height: 250 });

  return () => {
    const shares = (sliders) => {
      const weights = sliders.map((slider) => slider.value);
      const total = weights.reduce((sum, weight) => sum + weight, 0);
      return weights.map((weight) => weight / total);
    };
    const [p, q] = [shares(real), shares(forecast)];
    const bits = (chance) => -Math.log2(chance);
    const expected = (of) => p.reduce((sum, chance, at) => (chance > 0 ? sum + chance * bits(of[at]) : sum), 0);
    const [entropy, cross] = p.some(Number.isNaN) || q.some(Number.isNaN) ? [NaN, NaN] : [expected(p), expected(q)];
    set("entropy", entropy, `${inWords(entropy)} bits`);
    set("cross", cross, `${inWords(cross)} bits`);
    set("divergence", cross === Infinity ? Infinity : cross - entropy, `${inWords(cross - entropy)} bits`);
    set("perplexity", 2 ** cross);
    const width = drawing.clear();
    const column = width / 3;
    KINDS.forEach((kind, at) => {
      const left = at * column + column * 0.12;
      for (const [number, [name, chance]] of [["p", p[at]], ["q", q[at]]].entries()) {
        if (Number.isNaN(chance)) continue;
        const x = left + number * column * 0.4;
        const tall = 150 * chance;
        drawing.add("rect", { class: `fill hue-${number}`, x, y: 180 - tall, width: column * 0.34, height: tall });
        drawing.add("text", { x: x + column * 0.17, y: 174 - tall, "text-anchor": "middle", class: "strong" }, `${name} ${inWords(chance, 2)}`);
      }
      drawing.add("text", { x: left + column * 0.37, y: 202, "text-anchor": "middle", class: "strong" }, kind);
      drawing.add("text", { x: left + column * 0.37, y: 222, "text-anchor": "middle" }, `${width < 480 ? "" : "a surprise of "}${inWords(bits(q[at]), 2)} bits`);
    });
    drawing.add("path", { class: "axis", d: `M0 180H${width}` });
  };
});
