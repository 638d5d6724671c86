// Drawing the next token of a small GPT: temperature, then top-k, top-p and min-p on all its real scores.

interactive((kit, data) => {
  const BARS = 12;
  const texts = data.prompts.map((prompt) => prompt.text);
  const prompt = kit.choice({ name: "prompt", label: "The text so far", options: texts });
  const temperature = kit.slider({ name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05, value: 1, words: (value) => value === 0 ? "0: greedy" : inWords(value) });
  const topK = kit.slider({ name: "top_k", label: "Top-k", values: [1, 2, 3, 5, 10, 20, 50, 100, Infinity], value: Infinity, words: (value) => value === Infinity ? "off" : `${value}` });
  const topP = kit.slider({ name: "top_p", label: "Top-p", min: 0.05, max: 1, step: 0.05, value: 1, words: (value) => value > 0.999 ? "off" : inWords(value) });
  const minP = kit.slider({ name: "min_p", label: "Min-p", min: 0, max: 0.5, step: 0.01, value: 0, words: (value) => value === 0 ? "off" : inWords(value) });
  let drawn = new Map();
  let draws = 0;
  let next = seeded(1);
  let wanted = 0;
  kit.button("Draw 20 tokens", () => (wanted += 20));
  kit.button("Forget the draws", () => (draws = 0));
  const set = kit.readings({ kept: "tokens left", best: "the likeliest", entropy: "bits of surprise", cut: "probability cut off", draws: "drawn" });
  const drawing = kit.drawing({ height: 40 + 26 * BARS });

  function softmax(scores, heat) {
    const exps = scores.map((score) => Math.exp(score / heat));
    const total = exps.reduce((sum, value) => sum + value, 0);
    return exps.map((value) => value / total);
  }

  // Cuts one after the other, each on what the others left, as the library does.
  function distribution(scores) {
    const order = scores.map((_, id) => id).sort((a, b) => scores[b] - scores[a] || a - b);
    if (temperature.value === 0) return { order, plain: null, probs: scores.map((_, id) => Number(id === order[0])) };
    const plain = softmax(scores, temperature.value);
    const renormalised = (probs) => {
      const total = probs.reduce((sum, value) => sum + value, 0);
      return probs.map((value) => value / total);
    };
    let probs = plain;
    if (topK.value < scores.length) {
      const last = scores[order[topK.value - 1]];
      probs = renormalised(probs.map((value, id) => (scores[id] < last ? 0 : value)));
    }
    if (topP.value < 0.999) {
      let before = 0;
      const kept = [...probs];
      order.forEach((id, rank) => {
        if (rank > 0 && before >= topP.value) kept[id] = 0;
        before += probs[id];
      });
      probs = renormalised(kept);
    }
    if (minP.value > 0) {
      const floor = minP.value * Math.max(...probs);
      probs = renormalised(probs.map((value) => (value < floor ? 0 : value)));
    }
    return { order, plain, probs };
  }

  const shown = (token) => `“${token.replaceAll("\n", "↵").replaceAll(" ", "␣")}”`;
  let state = "";

  return () => {
    const now = [prompt.value, temperature.value, topK.value, topP.value, minP.value].join();
    if (now !== state || draws === 0) [drawn, draws, next, state] = [new Map(), 0, seeded(1), now];
    const scores = data.prompts[texts.indexOf(prompt.value)].scores;
    const { order, plain, probs } = distribution(scores);
    for (; wanted > 0; wanted--, draws++) {
      let left = next();
      let id = order.find((token) => (left -= probs[token]) < 0) ?? order[0];
      if (probs[id] === 0) id = order[0];
      drawn.set(id, (drawn.get(id) ?? 0) + 1);
    }
    const kept = probs.filter((value) => value > 0);
    set("kept", kept.length);
    set("best", Math.max(...probs));
    set("entropy", kept.reduce((sum, value) => sum - value * Math.log2(value), 0));
    set("cut", plain ? plain.reduce((sum, value, id) => sum + (probs[id] > 0 ? 0 : value), 0) : 0);
    set("draws", draws);
    const width = drawing.clear();
    drawing.add("text", { x: 100, y: 12, class: "hue-text hue-0" }, "probability");
    drawing.add("text", { x: 190, y: 12, class: "hue-text hue-6" }, draws ? "share of draws" : "");
    const room = width - 170;
    order.slice(0, BARS).forEach((id, rank) => {
      const y = 24 + 26 * rank;
      const share = draws ? (drawn.get(id) ?? 0) / draws : 0;
      drawing.add("text", { x: 92, y: y + 13, "text-anchor": "end", class: probs[id] ? "strong" : "" }, shown(data.tokens[id]));
      drawing.add("rect", { class: "fill hue-0", x: 100, y, width: room * probs[id], height: 11 });
      drawing.add("rect", { class: "fill hue-6", x: 100, y: y + 12, width: room * share, height: 5 });
      drawing.add("text", { x: 106 + room * Math.max(probs[id], share), y: y + 12, class: "ink" }, probs[id] ? inWords(probs[id]) : "cut off");
    });
  };
});
