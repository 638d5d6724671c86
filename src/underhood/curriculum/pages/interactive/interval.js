// Arithmetic coding with counts that are learned while reading: every letter narrows an interval by its probability.

interactive((kit) => {
  const ALPHABET = "abcdefghijklmnopqrstuvwxyz ";
  const text = kit.text({ name: "text", label: "Text", value: "how much wood would a woodchuck chuck if a woodchuck could chuck wood" });
  const order = kit.slider({ name: "order", label: "Letters looked back", min: 0, max: 4, step: 1, value: 2, words: String });
  const sent = kit.slider({ name: "sent", label: "Letters sent", min: 1, max: 200, step: 1, value: 200, words: String });
  const set = kit.readings({ bits: "bits so far", mean: "bits per letter", plain: "without a model", last: "the last letter took" });
  const shown = kit.add("p", { className: "letters" });
  const drawing = kit.drawing({ height: 96 });

  // P(letter | history): counts of the longest history, filled up with one unit of the next shorter one's prediction.
  function chances(counts, past, size) {
    let chance = new Array(27).fill(1 / 27);
    for (let length = 0; length <= Math.min(size, past.length); length++) {
      const row = counts.get(past.slice(past.length - length));
      if (!row) break;
      const total = row.reduce((sum, count) => sum + count, 0);
      chance = chance.map((shorter, letter) => (row[letter] + shorter) / (total + 1));
    }
    return chance;
  }

  function learn(counts, past, size, letter) {
    for (let length = 0; length <= Math.min(size, past.length); length++) {
      const key = past.slice(past.length - length);
      if (!counts.has(key)) counts.set(key, new Array(27).fill(0));
      counts.get(key)[letter] += 1;
    }
  }

  return () => {
    const letters = [...text.value.toLowerCase().replace(/[^a-z]+/g, " ")];
    sent.input.max = Math.max(1, letters.length);
    sent.value = Math.min(sent.value, Math.max(1, letters.length));
    const counts = new Map();
    let past = "";
    let bits = 0;
    let chance = [];
    const costs = letters.slice(0, sent.value).map((letter) => {
      const symbol = ALPHABET.indexOf(letter);
      chance = chances(counts, past, order.value);
      learn(counts, past, order.value, symbol);
      past += letter;
      const cost = -Math.log2(chance[symbol]);
      bits += cost;
      return cost;
    });
    if (!costs.length) {
      for (const name of ["bits", "mean", "plain", "last"]) set(name, NaN, "needs a letter");
      return;
    }
    set("bits", bits, inWords(bits, 4));
    set("mean", bits / costs.length);
    set("plain", costs.length * Math.log2(27), `${inWords(costs.length * Math.log2(27))} bits`);
    set("last", costs.at(-1), `${inWords(costs.at(-1))} bits`);
    shown.replaceChildren(...letters.map((letter, at) => {
      const span = element("span", { textContent: letter, className: at < costs.length ? "" : "later" });
      if (at < costs.length) {
        span.style.background = `color-mix(in oklab, var(--accent) ${Math.min(60, 8 * costs[at])}%, transparent)`;
        span.title = `${inWords(costs[at])} bits`;
      }
      if (at === costs.length - 1) span.classList.add("now");
      return span;
    }));
    const width = drawing.clear();
    drawing.add("text", { x: 0, y: 12 }, "Before the last letter, by probability:");
    const last = ALPHABET.indexOf(letters[costs.length - 1]);
    let left = 0;
    chance.forEach((share, letter) => {
      const size = share * width;
      drawing.add("rect", { class: letter === last ? "fill hue-0" : "box", x: left, y: 24, width: size, height: 34 });
      if (size > 11) {
        drawing.add("text", { x: left + size / 2, y: 74, "text-anchor": "middle", class: letter === last ? "strong" : "ink" },
          { " ": "␣" }[ALPHABET[letter]] ?? ALPHABET[letter]);
      }
      left += size;
    });
  };
});
