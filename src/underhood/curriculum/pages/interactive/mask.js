// The causal mask on the scores of a trained head: before the softmax, or after it, with and without dividing again.

interactive((kit, data) => {
  const { tokens, query, key } = data;
  const COUNT = tokens.length;
  const WAYS = ["no mask", "−∞ before the softmax", "0 after the softmax", "0 after it, then divide by the sum"];
  const way = kit.choice({ name: "way", label: "Mask", options: WAYS, value: WAYS[1] });
  const head = kit.choice({ name: "head", label: "Head", options: query.map((_, number) => String(number + 1)) });
  const at = kit.slider({ name: "at", label: "Token that looks", min: 0, max: COUNT - 1, step: 1, value: 5,
    words: (index) => `${index + 1}: ${shown(tokens[index])}` });
  const set = kit.readings({ later: "of its weight on later tokens", total: "sum of its weights", most: "its largest weight" });
  const drawing = kit.drawing({ height: 430 });

  function shown(token) {
    return token.replace(" ", "·");
  }
  const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);

  function weights(row) {
    const number = Number(head.value) - 1;
    const [q, keys] = [query[number][row], key[number]];
    const chosen = WAYS.indexOf(way.value);
    const scores = keys.map((k) => dot(q, k) / 1e4 / Math.sqrt(q.length));
    const powers = scores.map((score, column) => (chosen === 1 && column > row ? 0 : Math.exp(score - Math.max(...scores))));
    const sum = powers.reduce((total, power) => total + power, 0);
    const shares = powers.map((power, column) => (chosen > 1 && column > row ? 0 : power / sum));
    const left = shares.reduce((total, share) => total + share, 0);
    return chosen === 3 ? shares.map((share) => share / left) : shares;
  }

  return () => {
    const row = weights(at.value);
    const later = row.slice(at.value + 1).reduce((sum, share) => sum + share, 0);
    set("later", later, `${inWords(100 * later)} %`);
    set("total", row.reduce((sum, share) => sum + share, 0));
    set("most", Math.max(...row), `${shown(tokens[row.indexOf(Math.max(...row))])} (${inWords(100 * Math.max(...row))} %)`);
    const across = Math.max(260, drawing.clear());
    const LEFT = 64;
    const side = Math.min(22, (across - LEFT) / COUNT);
    const top = 68;
    tokens.forEach((token, column) => {
      const x = LEFT + column * side + side / 2 + 4;
      drawing.add("text", { x, y: top - 6, transform: `rotate(-90 ${x} ${top - 6})`, class: column === at.value ? "strong" : "" }, shown(token));
    });
    tokens.forEach((token, line) => {
      const y = top + line * side;
      drawing.add("text", { x: LEFT - 6, y: y + side * 0.7, "text-anchor": "end", class: line === at.value ? "strong" : "" }, shown(token));
      weights(line).forEach((share, column) => {
        const cell = { x: LEFT + column * side, y, width: side - 1, height: side - 1 };
        drawing.add("rect", { class: "box", ...cell });
        if (share > 0) drawing.add("rect", { class: `fill hue-${column > line ? 1 : 2}`, ...cell, opacity: Math.sqrt(share) });
      });
    });
    drawing.add("rect", { class: "box now", fill: "none", style: "fill: none", x: LEFT - 1, y: top + at.value * side - 1, width: COUNT * side + 1, height: side + 1 });
  };
});
