// A one-layer GPT that was trained to learn labels from its context: it answers after the examples that one gives it.

interactive((kit, data) => {
  const WORDS = ["fox", "tea", "sun", "car"]; // items 0 to 3 of the sixteen
  const LABELS = ["A", "B", "C", "D"];
  const ITEMS = 16;
  const ORDER = [0, 1, 2, 3, 1, 0, 3, 2]; // the items of the examples
  const w = data.weights;
  const width = w.embed[0].length;
  const size = width / data.heads;

  const question = kit.choice({ name: "question", label: "Asked for", options: WORDS, value: "sun" });
  const count = kit.slider({ name: "examples", label: "Examples in the context", min: 0, max: 8, step: 1, value: 4 });
  const order = kit.slider({ name: "order", label: "Their labels", min: 0, max: 23, step: 1, value: 0, words: (value) => permutation(value).map((label) => LABELS[label]).join(" ") });
  const set = kit.readings({ answer: "its answer", right: "probability of the right label", best: "best possible", attention: "attention to the same word" });
  const drawing = kit.drawing({ height: 330 });

  function permutation(number) {
    const left = [0, 1, 2, 3];
    return [6, 2, 1, 1].map((factor) => {
      const at = Math.floor(number / factor) % left.length;
      return left.splice(at, 1)[0];
    });
  }

  const times = (x, matrix) => matrix[0].map((_, column) => x.reduce((sum, value, row) => sum + value * matrix[row][column], 0));
  const plus = (a, b) => a.map((value, at) => value + b[at]);

  function normed(x, name) {
    const mean = x.reduce((sum, value) => sum + value, 0) / x.length;
    const variance = x.reduce((sum, value) => sum + (value - mean) ** 2, 0) / x.length;
    return x.map((value, at) => ((value - mean) / Math.sqrt(variance + 1e-5)) * w[`${name}_scale`][0][at] + w[`${name}_shift`][0][at]);
  }

  // Abramowitz and Stegun 7.1.26, to 1.5e-7.
  function erf(x) {
    const t = 1 / (1 + 0.3275911 * Math.abs(x));
    const tail = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
    return Math.sign(x) * (1 - tail * Math.exp(-x * x));
  }
  const gelu = (x) => 0.5 * x * (1 + erf(x / Math.SQRT2));

  function softmax(scores) {
    const best = Math.max(...scores);
    const exps = scores.map((score) => Math.exp(score - best));
    const total = exps.reduce((sum, value) => sum + value, 0);
    return exps.map((value) => value / total);
  }

  // Probabilities of the labels at the last position, and each head's attention from there.
  function forward(inputs) {
    const streams = inputs.map((input, at) => plus(times(input, w.embed), w.positions[at]));
    const rows = streams.map((stream) => times(normed(stream, "0_norm1"), w["0_qkv"]));
    const last = rows.length - 1;
    const attention = [];
    const gathered = [];
    for (let head = 0; head < data.heads; head++) {
      const piece = (row, kind) => row.slice(kind * width + head * size, kind * width + (head + 1) * size);
      const q = piece(rows[last], 0);
      const weights = softmax(rows.map((row) => piece(row, 1).reduce((sum, value, at) => sum + value * q[at], 0) / Math.sqrt(size)));
      attention.push(weights);
      for (let at = 0; at < size; at++) gathered.push(rows.reduce((sum, row, position) => sum + weights[position] * piece(row, 2)[at], 0));
    }
    let x = plus(streams[last], times(gathered, w["0_output"]));
    const hidden = plus(times(normed(x, "0_norm2"), w["0_up"]), w["0_up_bias"][0]).map(gelu);
    x = plus(x, plus(times(hidden, w["0_down"]), w["0_down_bias"][0]));
    return { probs: softmax(times(normed(x, "final"), w.unembed)), attention };
  }

  return () => {
    const labels = permutation(order.value);
    const item = WORDS.indexOf(question.value);
    const examples = ORDER.slice(0, count.value);
    const input = (word, label) => {
      const vector = new Array(ITEMS + LABELS.length).fill(0);
      vector[word] = 1;
      if (label !== null) vector[ITEMS + label] = 1;
      return vector;
    };
    const inputs = [...examples.flatMap((word) => [input(word, null), input(word, labels[word])]), input(item, null)];
    const { probs, attention } = forward(inputs);
    const seen = new Set(examples);
    const answer = probs.indexOf(Math.max(...probs));
    const mean = inputs.map((_, at) => attention.reduce((sum, weights) => sum + weights[at], 0) / attention.length);
    set("answer", answer, LABELS[answer]);
    set("right", probs[labels[item]]);
    set("best", seen.has(item) ? 1 : 1 / (LABELS.length - seen.size));
    set("attention", examples.reduce((sum, word, at) => sum + (word === item ? mean[2 * at + 1] : 0), 0));

    const wide = drawing.clear();
    drawing.add("text", { x: 2, y: 14 }, "the context, and the attention to each example");
    const column = (wide - 60) / 8;
    const largest = Math.max(0.2, ...mean);
    examples.forEach((word, at) => {
      const x = 6 + column * at;
      const tall = (90 * mean[2 * at + 1]) / largest;
      drawing.add("rect", { class: "fill hue-0", x: x + 4, y: 120 - tall, width: column - 10, height: tall });
      drawing.add("text", { x: x + column / 2, y: 138, "text-anchor": "middle", class: word === item ? "strong" : "" }, WORDS[word]);
      drawing.add("text", { x: x + column / 2, y: 154, "text-anchor": "middle", class: word === item ? "strong" : "" }, LABELS[labels[word]]);
    });
    const end = 6 + column * examples.length + 20;
    drawing.add("text", { x: end, y: 138, "text-anchor": "middle", class: "strong" }, WORDS[item]);
    drawing.add("text", { x: end, y: 154, "text-anchor": "middle", class: "strong" }, "?");
    drawing.add("text", { x: 2, y: 190 }, "its probabilities");
    probs.forEach((value, label) => {
      const y = 204 + 30 * label;
      drawing.add("text", { x: 14, y: y + 15, class: label === labels[item] ? "strong" : "" }, LABELS[label]);
      drawing.add("rect", { class: `fill hue-${label === labels[item] ? 0 : 6}`, x: 34, y, width: (wide - 110) * value, height: 20 });
      drawing.add("text", { x: 40 + (wide - 110) * value, y: y + 15, class: "ink" }, inWords(value));
    });
  };
});
