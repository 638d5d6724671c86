// All answers of a tiny policy: best-of-n, the best policy at a β, and where training with each KL term goes.

interactive((kit, data) => {
  const { answers, ref, gold, proxy } = data;
  const RATE = 0.2; // of a step; a log-probability moves by at most 1 in it
  const BETAS = [5, 3, 2, 1.5, 1, 0.7, 0.5, 0.35, 0.25, 0.2, 0.15, 0.1, 0.07, 0.05];
  const COUNTS = Array.from({ length: 17 }, (_, power) => 2 ** power);
  const SHOWN = ["best policy at this β", "best of n", "trained"];
  // The part of the gradient by which a sampled answer's log-probability is pushed down, besides the reward.
  const TERMS = {
    "k1 in the reward": (ratio) => Math.log(ratio),
    "k3 in the reward": (ratio) => 1 / ratio - 1 + Math.log(ratio),
    "k1 as a loss": () => 0,
    "k2 as a loss": (ratio) => Math.log(ratio),
    "k3 as a loss": (ratio) => 1 - 1 / ratio,
  };
  const beta = kit.slider({ name: "beta", label: "β, price of distance", values: BETAS, value: 0.5 });
  const count = kit.slider({ name: "n", label: "n of best-of-n", values: COUNTS, value: 8, words: (value) => value.toLocaleString("en") });
  const steps = kit.slider({ name: "steps", label: "Steps of training", min: 0, max: 300, step: 5, value: 100, words: String });
  const term = kit.choice({ name: "term", label: "KL term", options: Object.keys(TERMS) });
  const shown = kit.choice({ name: "shown", label: "Bars show", options: SHOWN, value: SHOWN[2] });
  const set = kit.readings({ gold: "true reward", proxy: "fitted reward", kl: "KL from the reference", entropy: "entropy", distance: "from the best policy", answer: "likeliest answer" });
  const frontier = kit.drawing({ height: 280 });
  const bars = kit.drawing({ height: 190 });

  const sum = (values) => values.reduce((total, value) => total + value, 0);
  const mean = (probs, values) => sum(probs.map((p, at) => p * values[at]));
  const kl = (probs) => sum(probs.map((p, at) => (p > 0 ? p * Math.log(p / ref[at]) : 0)));
  const normalised = (weights) => {
    const total = sum(weights);
    return weights.map((value) => value / total);
  };
  const softmax = (logits) => {
    const top = Math.max(...logits);
    return normalised(logits.map((value) => Math.exp(value - top)));
  };
  const best = (price) => softmax(ref.map((p, at) => Math.log(p) + proxy[at] / price));

  const levels = [...new Set(proxy)].sort((a, b) => a - b);
  const mass = levels.map((level) => sum(ref.filter((_, at) => proxy[at] === level)));
  function bestOf(n) {
    let below = 0;
    const chance = new Map();
    levels.forEach((level, at) => {
      const upTo = at === levels.length - 1 ? 1 : below + mass[at];
      chance.set(level, (upTo ** n - below ** n) / mass[at]);
      below = upTo;
    });
    return normalised(ref.map((p, at) => p * chance.get(proxy[at])));
  }

  // The expected update of a policy gradient, all answers summed, in its natural metric: every answer's log-probability
  // moves by how much better than average the answer is.
  function trained(price, push, count) {
    let logits = ref.map(Math.log);
    for (let step = 0; step < count; step++) {
      const probs = softmax(logits);
      const gain = probs.map((p, at) => proxy[at] - price * push(Math.max(p, 1e-300) / ref[at]));
      const average = mean(probs, gain);
      logits = logits.map((value, at) => value + Math.max(-1, Math.min(1, RATE * (gain[at] - average))));
    }
    return softmax(logits);
  }

  const point = (probs) => ({ kl: kl(probs), gold: mean(probs, gold), proxy: mean(probs, proxy) });
  const pathBest = Array.from({ length: 60 }, (_, at) => point(best(8 * 0.004 ** (at / 59))));
  const pathCount = COUNTS.map((n) => point(bestOf(n)));
  const order = answers.map((_, at) => at).sort((a, b) => proxy[a] - proxy[b] || gold[a] - gold[b]);

  return () => {
    const optimum = best(beta.value);
    const policies = [optimum, bestOf(count.value), trained(beta.value, TERMS[term.value], steps.value)];
    const probs = policies[SHOWN.indexOf(shown.value)];
    const likeliest = probs.indexOf(Math.max(...probs));
    set("gold", mean(probs, gold));
    set("proxy", mean(probs, proxy));
    set("kl", kl(probs));
    set("entropy", -sum(probs.map((p) => (p > 0 ? p * Math.log(p) : 0))));
    set("distance", sum(probs.map((p, at) => Math.abs(p - optimum[at]))) / 2);
    set("answer", likeliest, answers[likeliest]);

    const far = Math.max(...pathBest.map((at) => at.kl), ...policies.map(kl)) + 0.3;
    const ends = [mean(ref, gold) - 0.6, Math.max(...proxy) + 0.3];
    const chart = frontier.chart({ x: [0, far], y: ends, titles: ["KL from the reference, nats", "reward"] });
    chart.line(pathBest.map((at) => [at.kl, at.proxy]), 6, { class: "curve-line hue-6 dashed" });
    chart.line(pathBest.map((at) => [at.kl, at.gold]), 6);
    chart.line(pathCount.map((at) => [at.kl, at.gold]), 1);
    chart.words(far * 0.99, pathBest.at(-1).proxy, "fitted", { "text-anchor": "end", dy: -8, class: "hue-text hue-6" });
    chart.words(far * 0.99, pathBest.at(-1).gold, "true", { "text-anchor": "end", dy: 18, class: "hue-text hue-6" });
    const names = [`β = ${inWords(beta.value)}`, `n = ${count.value.toLocaleString("en")}`, "trained"];
    policies.map(point).forEach((at, which) => {
      const hue = [6, 1, 0][which];
      chart.dot(at.kl, at.gold, hue);
      chart.dot(at.kl, at.proxy, hue).setAttribute("class", `hollow hue-${hue}`);
      const high = at.kl > far * 0.8;
      chart.words(at.kl, at.gold, names[which], { "text-anchor": high || which === 1 ? "end" : "start", dx: high || which === 1 ? -8 : 8, dy: [-12, 6, 18][which], class: `hue-text hue-${hue}` });
    });

    const width = bars.clear();
    const room = width / order.length;
    const top = Math.max(...probs, ...ref);
    bars.add("text", { x: 2, y: 12 }, `all ${answers.length} answers, by fitted reward (lines: the reference)`);
    const hue = [6, 1, 0][SHOWN.indexOf(shown.value)];
    order.forEach((at, rank) => {
      const tall = (130 * probs[at]) / top;
      bars.add("rect", { class: `fill hue-${hue}`, x: room * rank + 1, y: 160 - tall, width: Math.max(1, room - 2), height: tall });
      bars.add("path", { class: "axis", d: `M${room * rank} ${160 - (130 * ref[at]) / top}h${room}` });
    });
    const rank = order.indexOf(likeliest);
    const x = room * (rank + 0.5);
    bars.add("text", { x, y: 178, "text-anchor": x < width * 0.25 ? "start" : x > width * 0.75 ? "end" : "middle", class: "ink" }, `“${answers[likeliest]}”`);
  };
});
