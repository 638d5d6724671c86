// Four words on a parallelogram: one softmax can't say "king or woman", a mixture of two can.

interactive((kit) => {
  const WORDS = [["king", 1, 1], ["queen", -1, 1], ["man", 1, -1], ["woman", -1, -1]];
  const degrees = (value) => `${value}°`;
  const angle = kit.slider({ name: "angle", label: "Direction of the context", min: -180, max: 180, step: 5, value: 45, words: degrees });
  const length = kit.slider({ name: "length", label: "Its length", min: 0, max: 6, step: 0.1, value: 1.5 });
  const second = kit.slider({ name: "second", label: "Share of a second softmax", min: 0, max: 1, step: 0.05, value: 0,
    words: (share) => `${Math.round(100 * share)} %` });
  const other = kit.slider({ name: "other", label: "Its direction", min: -180, max: 180, step: 5, value: -135, words: degrees });
  const set = kit.readings({ king: "king", queen: "queen", man: "man", woman: "woman", wrong: "queen or man", law: "king · woman over queen · man" });
  const drawing = kit.drawing({ height: 300 });

  function softmax(direction) {
    const [x, y] = [Math.cos, Math.sin].map((wave) => length.value * wave((direction * Math.PI) / 180));
    const scores = WORDS.map(([, right, up]) => Math.exp(x * right + y * up));
    const sum = scores.reduce((total, score) => total + score, 0);
    return scores.map((score) => score / sum);
  }

  return () => {
    const [first, two] = [softmax(angle.value), softmax(other.value)];
    const chances = first.map((chance, word) => (1 - second.value) * chance + second.value * two[word]);
    WORDS.forEach(([word], at) => set(word, chances[at]));
    set("wrong", chances[1] + chances[2]);
    set("law", (chances[0] * chances[3]) / (chances[1] * chances[2]));
    const width = drawing.clear();
    const at = (x, y) => [width / 2 + x * Math.min(150, width / 2 - 96), 150 - 95 * y];
    const corners = [WORDS[0], WORDS[1], WORDS[3], WORDS[2]].map(([, x, y]) => at(x, y).join(" "));
    drawing.add("path", { class: "rule", d: `M${corners.join("L")}Z` });
    WORDS.forEach(([word, x, y], number) => {
      const [left, top] = at(x, y);
      const hue = number === 0 || number === 3 ? 1 : 0;
      drawing.add("circle", { class: `fill hue-${hue}`, cx: left, cy: top, r: 3 + 40 * Math.sqrt(chances[number] / 2), opacity: 0.8 });
      drawing.add("text", { x: left + 42 * x, y: top + 4, "text-anchor": x > 0 ? "start" : "end", class: "strong" }, word);
    });
    const arrow = (direction, share, hue) => {
      const [x, y] = [Math.cos, Math.sin].map((wave) => (length.value / 6) * wave((direction * Math.PI) / 180));
      if (share > 0) drawing.add("path", { class: `curve-line hue-${hue}`, d: `M${at(0, 0).join(" ")}L${at(x, y).join(" ")}`, opacity: 0.3 + 0.7 * share });
    };
    arrow(angle.value, 1 - second.value, 2);
    arrow(other.value, second.value, 6);
  };
});
