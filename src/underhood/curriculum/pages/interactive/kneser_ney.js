// Bigrams smoothed in three ways: not at all, by adding one, and by interpolated Kneser–Ney with one discount.

interactive((kit) => {
  const text = kit.text({
    name: "text", label: "Training text",
    value: "we flew to san francisco and saw san francisco by night . san francisco is far . the glasses are new . my glasses broke . " +
      "she has two glasses . reading is fun",
  });
  const history = kit.text({ name: "history", label: "after the word", value: "reading", size: 12 });
  const next = kit.text({ name: "next", label: "how likely is", value: "glasses", size: 12 });
  const discount = kit.slider({ name: "discount", label: "Discount", min: 0.05, max: 0.95, step: 0.05, value: 0.75 });
  const set = kit.readings({ count: "times seen", ml: "by counting", add_one: "one added", kneser_ney: "Kneser–Ney", lefts: "different words before it" });
  const drawing = kit.drawing({ height: 300 });

  function counted(words) {
    const pairs = new Map();
    const lefts = new Map();
    const singles = new Map();
    words.forEach((word, at) => {
      singles.set(word, (singles.get(word) ?? 0) + 1);
      if (!at) return;
      const row = pairs.get(words[at - 1]) ?? new Map();
      if (!row.has(word)) lefts.set(word, (lefts.get(word) ?? 0) + 1);
      pairs.set(words[at - 1], row.set(word, (row.get(word) ?? 0) + 1));
    });
    return { pairs, lefts, singles };
  }

  return () => {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const { pairs, lefts, singles } = counted(words);
    const vocabulary = [...new Set([...singles.keys(), next.value.trim().toLowerCase()])].filter(Boolean);
    const row = pairs.get(history.value.trim().toLowerCase()) ?? new Map();
    const total = [...row.values()].reduce((sum, count) => sum + count, 0);
    const types = [...lefts.values()].reduce((sum, count) => sum + count, 0);
    const d = discount.value;
    const taken = (count) => Math.max(count - d, 0);
    // Of the shorter history: after how many different words it was seen, the rest spread over the vocabulary.
    const continuation = (word) => (taken(lefts.get(word) ?? 0) + (d * lefts.size) / vocabulary.length) / types;
    const chances = (word) => ({
      count: row.get(word) ?? 0,
      ml: total ? (row.get(word) ?? 0) / total : NaN,
      add_one: ((row.get(word) ?? 0) + 1) / (total + vocabulary.length),
      kneser_ney: total ? (taken(row.get(word) ?? 0) + d * row.size * continuation(word)) / total : continuation(word),
      lefts: lefts.get(word) ?? 0,
    });
    if (!types) {
      for (const name of ["count", "ml", "add_one", "kneser_ney", "lefts"]) set(name, NaN, "needs more words");
      drawing.clear();
      return;
    }
    const chosen = chances(next.value.trim().toLowerCase());
    for (const name of Object.keys(chosen)) set(name, chosen[name]);
    const best = vocabulary.map((word) => [word, chances(word)]).sort((a, b) => b[1].kneser_ney - a[1].kneser_ney).slice(0, 9);
    const width = drawing.clear(40 + 30 * best.length);
    const largest = Math.max(...best.map(([, chance]) => Math.max(chance.kneser_ney, chance.add_one)));
    drawing.add("text", { x: 100, y: 12, class: "hue-text hue-0" }, "Kneser–Ney");
    drawing.add("text", { x: 190, y: 12, class: "hue-text hue-6" }, "one added");
    best.forEach(([word, chance], at) => {
      const y = 24 + 30 * at;
      drawing.add("text", { x: 92, y: y + 14, "text-anchor": "end", class: "strong" }, word.length > 13 ? `${word.slice(0, 12)}…` : word);
      const room = width - 170;
      drawing.add("rect", { class: "fill hue-0", x: 100, y, width: (room * chance.kneser_ney) / largest, height: 11 });
      drawing.add("rect", { class: "fill hue-6", x: 100, y: y + 12, width: (room * chance.add_one) / largest, height: 6 });
      drawing.add("text", { x: 106 + (room * Math.max(chance.kneser_ney, chance.add_one)) / largest, y: y + 12, class: "ink" }, inWords(chance.kneser_ney));
    });
  };
});
