// Shannon's approximations: the next letter is drawn from those that followed the same letters in a real text.

interactive((kit, data) => {
  const order = kit.slider({ name: "order", label: "Letters looked back", min: 0, max: 6, step: 1, value: 2, words: String });
  let written = "the ";
  let random = seeded(7);
  const add = (count) => {
    for (let at = 0; at < count; at++) written += draw(followers(context()));
  };
  kit.button("One letter", () => add(1));
  kit.button("100 letters", () => add(100));
  kit.button("Start again", () => ([written, random] = ["the ", seeded(7)]));
  const set = kit.readings({ seen: "times this was read", different: "different letters after it", bits: "surprise to expect, bits" });
  const shown = kit.add("p", { className: "letters" });
  const drawing = kit.drawing({ height: 120 });
  const tables = new Map();

  // Counts of the letters after every history of `size` letters.
  function table(size) {
    if (!tables.has(size)) {
      const counts = new Map();
      for (let at = size; at < data.text.length; at++) {
        const history = data.text.slice(at - size, at);
        if (!counts.has(history)) counts.set(history, new Map());
        const row = counts.get(history);
        row.set(data.text[at], (row.get(data.text[at]) ?? 0) + 1);
      }
      tables.set(size, counts);
    }
    return tables.get(size);
  }
  const context = () => written.slice(Math.max(0, written.length - order.value));

  function followers(history) {
    for (let size = history.length; ; size--) {
      const row = table(size).get(history.slice(history.length - size));
      if (row || size === 0) return row;
    }
  }

  function draw(row) {
    let left = random() * [...row.values()].reduce((sum, count) => sum + count, 0);
    for (const [letter, count] of row) {
      left -= count;
      if (left < 0) return letter;
    }
    return " ";
  }

  return () => {
    const row = followers(context());
    const total = [...row.values()].reduce((sum, count) => sum + count, 0);
    set("seen", total, total.toLocaleString("en"));
    set("different", row.size);
    set("bits", [...row.values()].reduce((sum, count) => sum - (count / total) * Math.log2(count / total), 0));
    shown.replaceChildren(written.slice(0, -1), element("span", { className: "now", textContent: written.at(-1) }));
    const best = [...row].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).slice(0, 12);
    const width = drawing.clear();
    const column = width / 12;
    best.forEach(([letter, count], at) => {
      const tall = (80 * count) / best[0][1];
      drawing.add("rect", { class: "fill hue-0", x: at * column + 3, y: 92 - tall, width: column - 6, height: tall });
      drawing.add("text", { x: (at + 0.5) * column, y: 108, "text-anchor": "middle", class: "strong" }, letter === " " ? "␣" : letter);
    });
  };
});
