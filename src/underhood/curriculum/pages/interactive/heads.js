// Attention weights of a trained model: for a token that looks, what each head of a layer takes from the tokens so far.

interactive((kit, data) => {
  const { tokens, weights } = data;
  const layer = kit.choice({ name: "layer", label: "Layer", options: weights.map((_, number) => String(number + 1)) });
  const at = kit.slider({ name: "at", label: "Token that looks (or point at one)", min: 0, max: tokens.length - 1, step: 1, value: 4,
    words: (index) => `${index + 1}: ${shown(tokens[index])}` });
  const set = kit.readings(Object.fromEntries(weights[0].map((_, head) => [`head${head + 1}`, `head ${head + 1} looks most at`])));
  const HABITS = [["the token before", (row) => row[row.length - 2]], ["the token itself", (row) => row[row.length - 1]], ["the first token", (row) => row[0]]];

  function shown(token) {
    return token.replace(" ", "·");
  }
  // What a head does on average over the tokens from the third on, where the three habits differ.
  function habit(rows) {
    const later = rows.slice(2);
    const means = HABITS.map(([words, pick]) => [later.reduce((sum, row) => sum + pick(row), 0) / later.length / 1000, words]);
    const [mean, words] = means.sort((a, b) => b[0] - a[0])[0];
    return `on average ${Math.round(100 * mean)} % on ${words}`;
  }

  const strips = weights[0].map((_, head) => {
    const words = kit.add("p", { className: "head-habit" });
    const strip = kit.add("p", { className: `letters tokens hue-${head}` });
    tokens.forEach((token, index) => {
      const piece = element("span", { textContent: shown(token) });
      piece.addEventListener("pointerover", () => {
        at.value = index;
        kit.changed();
      });
      strip.append(piece, "\u200b");
    });
    return { words, pieces: [...strip.querySelectorAll("span")] };
  });

  return () => {
    weights[Number(layer.value) - 1].forEach((rows, head) => {
      const row = rows[at.value];
      const most = row.indexOf(Math.max(...row));
      set(`head${head + 1}`, row[most] / 1000, `${shown(tokens[most])} (${Math.round(row[most] / 10)} %)`);
      const { words, pieces } = strips[head];
      words.textContent = `Head ${head + 1}: ${habit(rows)}`;
      pieces.forEach((piece, index) => {
        piece.className = index > at.value ? "later" : index === at.value ? "now" : "";
        piece.style.setProperty("--weight", (row[index] ?? 0) / 1000);
        piece.title = index > at.value ? "not seen yet" : `${(row[index] / 10).toFixed(1)} %`;
      });
    });
  };
});
