// One head of a trained decoder, step by step: from the embeddings to what is added to a token's vector.

interactive((kit, data) => {
  const { tokens } = data;
  const K = data.key[0][0].length;
  const POST = { rows: ["Thinking", "Machines"], scores: [112, 96], root: 8 };
  const STEPS = [
    ["Embedding", "Each token has a vector of 32 numbers, learnt in training. Orange is positive, blue negative."],
    ["Place", "The vector of its place (sines and cosines) is added."],
    ["Normalise", "Each vector is brought to mean 0 and variance 1, then scaled and shifted by learnt numbers."],
    ["Query, key, value", "Three learnt matrices make of each vector a query, a key and a value of 8 numbers."],
    ["Score", "The query of the chosen token, times the key of each token that it may see, number by number, added up."],
    ["Divide", "Divided by the root of the length of the keys."],
    ["Softmax", "e to the power of each score, divided by their sum: weights that sum to one."],
    ["Weigh the values", "Each value times its weight. Their sum is what the head reads."],
    ["All heads", "The four heads do the same with matrices of their own. Their results are put side by side."],
    ["Output", "One more matrix mixes it. The result is added to the token's vector, and the next layer goes on from there."],
  ];
  const example = kit.choice({ name: "example", label: "Numbers of", options: ["our decoder", "the post's two words"] });
  const head = kit.choice({ name: "head", label: "Head", options: data.key.map((_, number) => String(number + 1)) });
  const at = kit.slider({ name: "at", label: "Token that looks", min: 0, max: tokens.length - 1, step: 1, value: 4,
    words: (index) => `${index + 1}: ${shown(tokens[index])}` });
  const step = kit.slider({ name: "step", label: "Step", min: 1, max: STEPS.length, step: 1, value: 1, words: (number) => `${number}: ${STEPS[number - 1][0]}` });
  const move = (by) => () => {
    step.value = Math.min(STEPS.length, Math.max(1, step.value + by));
  };
  kit.button("Back", move(-1));
  kit.button("Next", move(1));
  const words = kit.add("p", { className: "step-words", ariaLive: "polite" });
  const board = kit.add("div", { className: "scroll" });
  const set = kit.readings({ score: "score of the first token", scaled: "divided", weight: "its weight", read: "first number that the head reads" });

  function shown(token) {
    return token.replace(" ", "·");
  }
  const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);
  const plus = (a, b) => a.map((value, index) => value + b[index]);
  const scaledBy = (factor, vector) => vector.map((value) => factor * value);

  // Whole hundredths to a row of cells; the colour is full at `most`.
  function strip(vector, most) {
    const cells = vector.map((value) => {
      const cell = element("i", { title: (value / 100).toFixed(2), className: value < 0 ? "minus" : "plus" });
      cell.style.setProperty("--size", Math.min(1, Math.abs(value) / 100 / most));
      return cell;
    });
    return element("span", { className: `strip ${vector.length > K ? "long" : ""}` }, ...cells);
  }
  function softmax(scores) {
    const most = Math.max(...scores);
    const powers = scores.map((score) => Math.exp(score - most));
    const sum = powers.reduce((total, power) => total + power, 0);
    return powers.map((power) => power / sum);
  }
  const number = (value) => inWords(Number(value.toFixed(2)));
  function share(weight) {
    const bar = element("span", { className: "weight-bar" });
    bar.style.setProperty("--size", weight);
    return element("span", {}, bar, `${(100 * weight).toFixed(weight < 0.1 ? 1 : 0)} %`);
  }
  function table(titles, rows) {
    const cells = (tag, values) => values.map((value) => element(tag, {}, value));
    const lines = rows.map(([first, ...rest]) => element("tr", {}, element("th", { scope: "row" }, first), ...cells("td", rest)));
    board.replaceChildren(element("table", { className: "tensors" },
      element("thead", {}, element("tr", {}, ...cells("th", titles))), element("tbody", {}, ...lines)));
  }

  function ours(now) {
    const h = Number(head.value) - 1;
    const seen = tokens.slice(0, at.value + 1).map((token, index) => [shown(token), index]);
    const stream = seen.map(([, index]) => plus(data.embedding[index], data.position[index]));
    const query = data.query[h][at.value];
    const scores = seen.map(([, index]) => dot(query, data.key[h][index]) / 1e4);
    const scaled = scores.map((score) => score / Math.sqrt(K));
    const weights = softmax(scaled);
    const parts = seen.map(([, index]) => scaledBy(weights[index], data.value[h][index]));
    const read = parts.reduce(plus);
    set("score", scores[0]);
    set("scaled", scaled[0]);
    set("weight", weights[0]);
    set("read", read[0] / 100);
    const rows = (...columns) => seen.map(([token, index]) => [token, ...columns.map((column) => column(index))]);
    const embedding = (index) => strip(data.embedding[index], 1);
    const sum = (index) => strip(stream[index], 2);
    const normed = (index) => strip(data.normed[index], 2);
    const [key, value] = [(index) => strip(data.key[h][index], 3), (index) => strip(data.value[h][index], 2)];
    const weight = (index) => share(weights[index]);
    const chosen = shown(tokens[at.value]);
    [
      () => table(["token", "embedding"], rows(embedding)),
      () => table(["token", "embedding", "place", "sum"], rows(embedding, (index) => strip(data.position[index], 1), sum)),
      () => table(["token", "sum", "normalised"], rows(sum, normed)),
      () => table(["token", "query", "key", "value"], rows((index) => strip(data.query[h][index], 3), key, value)),
      () => table(["token", `query of ${chosen}`, "key", "score"], rows(() => strip(query, 3), key, (index) => number(scores[index]))),
      () => table(["token", "score", `÷ √${K}`], rows((index) => number(scores[index]), (index) => number(scaled[index]))),
      () => table(["token", `÷ √${K}`, "weight"], rows((index) => number(scaled[index]), weight)),
      () => table(["token", "weight", "value", "weight × value"],
        [...rows(weight, value, (index) => strip(parts[index], 1)), ["sum", "100 %", "", strip(read, 1)]]),
      () => table(["head", "what it reads"], [...data.heads.map((vectors, index) => [String(index + 1), strip(vectors[at.value], 1)]),
        ["all", strip(data.heads.flatMap((vectors) => vectors[at.value]), 1)]]),
      () => table([chosen, "32 numbers"], [["all heads", strip(data.heads.flatMap((vectors) => vectors[at.value]), 1)],
        ["× matrix", strip(data.mixed[at.value], 1)], ["vector", strip(stream[at.value], 2)], ["new vector", strip(plus(stream[at.value], data.mixed[at.value]), 2)]]),
    ][now]();
  }

  function post(now) {
    const scaled = POST.scores.map((score) => score / POST.root);
    const weights = softmax(scaled);
    set("score", POST.scores[0]);
    set("scaled", scaled[0]);
    set("weight", weights[0]);
    set("read", NaN);
    const columns = [["score", POST.scores.map(number)], [`÷ √64`, scaled.map(number)], ["weight", weights.map(share)]];
    const some = columns.slice(0, Math.min(3, Math.max(1, now - 3)));
    table(["token", ...some.map(([title]) => title)], POST.rows.map((word, index) => [word, ...some.map(([, values]) => values[index])]));
  }

  return () => {
    const isPost = example.value !== "our decoder";
    head.disabled = at.input.disabled = isPost;
    const now = isPost ? Math.min(6, Math.max(4, step.value - 1)) : step.value - 1;
    words.textContent = isPost ? `The post gives numbers for steps 5 to 7 only. ${STEPS[now][1]}` : STEPS[now][1];
    (isPost ? post : ours)(now);
  };
});
