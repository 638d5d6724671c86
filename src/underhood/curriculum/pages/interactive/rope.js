// Rotary positions: the pairs of a query and a key as arrows that turn with the position of their token.

interactive((kit, data) => {
  const { pieces, query, key } = data.rotary;
  const last = pieces.length - 1;
  const size = query[0][0].length;
  const pairs = size / 2;
  const shared = query.length / key.length;
  const token = (index) => `${pieces[index]} (${index})`;
  const head = kit.choice({ name: "head", label: "Attention head", options: query.map((_, index) => String(index + 1)) });
  const asks = kit.slider({ name: "asks", label: "Token of the query", min: 0, max: last, step: 1, value: Math.min(last, 12), words: token });
  const looked = kit.slider({ name: "looked", label: "Token of the key", min: 0, max: last, step: 1, value: 2, words: token });
  const shift = kit.slider({ name: "shift", label: "Move both by", min: 0, max: 200, step: 1, value: 0, words: String });
  const apart = kit.slider({ name: "apart", label: "Move them apart by", min: 0, max: 100, step: 1, value: 0, words: String });
  const set = kit.readings({ positions: "positions", distance: "distance", score: "score of the pair (q · k / √16)", unturned: "without turning" });
  const text = kit.add("p", { className: "letters" });
  kit.add("p", { className: "legend", textContent: "Solid, orange: query. Dashed, blue: key. Each dial is one pair of numbers; below it is its own share of the score." });
  const dials = kit.drawing();
  const curve = kit.drawing({ height: 200 });

  const turned = (vector, pair, position) => {
    const angle = position * 10000 ** (-pair / pairs);
    const [x, y] = [vector[pair], vector[pair + pairs]];
    return [x * Math.cos(angle) - y * Math.sin(angle), x * Math.sin(angle) + y * Math.cos(angle)];
  };
  const contribution = (q, k, pair, m, n) => {
    const [a, b] = [turned(q, pair, m), turned(k, pair, n)];
    return (a[0] * b[0] + a[1] * b[1]) / Math.sqrt(size);
  };
  const score = (q, k, m, n) => Array.from({ length: pairs }, (_, pair) => contribution(q, k, pair, m, n)).reduce((sum, value) => sum + value, 0);

  function drawDials(q, k, m, n) {
    const across = dials.clear() < 560 ? 2 : 4;
    const tall = across === 4 ? 160 : 150;
    const width = dials.clear((pairs / across) * tall);
    const longest = Math.max(...Array.from({ length: pairs }, (_, pair) => [Math.hypot(...turned(q, pair, 0)), Math.hypot(...turned(k, pair, 0))]).flat());
    for (let pair = 0; pair < pairs; pair++) {
      const [x, y] = [((pair % across) + 0.5) * (width / across), Math.floor(pair / across) * tall + 76];
      const radius = 52;
      const turn = 2 * Math.PI * 10000 ** (pair / pairs);
      dials.add("text", { x, y: y - 62, "text-anchor": "middle" }, `a turn in ${inWords(turn, 2)} tokens`);
      dials.add("circle", { class: "wire", cx: x, cy: y, r: radius });
      for (const [vector, position, hue, dashed] of [[k, n, 0, " dashed"], [q, m, 1, ""]]) {
        const [right, up] = turned(vector, pair, position);
        const [endX, endY] = [x + (radius * right) / longest, y - (radius * up) / longest];
        dials.add("path", { class: `curve-line hue-${hue}${dashed}`, d: `M${x} ${y}L${endX.toFixed(2)} ${endY.toFixed(2)}`, "stroke-width": 2.5 });
        dials.add("circle", { class: `spot hue-${hue}`, cx: endX, cy: endY, r: 4 });
      }
      const value = contribution(q, k, pair, m, n);
      dials.add("text", { class: "strong", x, y: y + 70, "text-anchor": "middle" }, `${value < 0 ? "" : "+"}${inWords(value, 2)}`);
    }
  }

  return () => {
    const q = query[Number(head.value) - 1][asks.value];
    const k = key[Math.floor((Number(head.value) - 1) / shared)][looked.value];
    const [m, n] = [asks.value + shift.value + apart.value, looked.value + shift.value];
    set("positions", m, `${m} and ${n}`);
    set("distance", m - n, String(m - n));
    set("score", score(q, k, m, n));
    set("unturned", score(q, k, 0, 0));
    text.replaceChildren(...pieces.map((piece, index) => element("span", { textContent: piece,
      className: `${index === asks.value ? "vowel" : ""} ${index === looked.value ? "now" : ""}`.trim() })));
    drawDials(q, k, m, n);
    const points = Array.from({ length: 129 }, (_, distance) => [distance, score(q, k, distance, 0)]);
    const values = points.map((point) => point[1]);
    const ends = [Math.min(0, ...values), Math.max(0.1, ...values)];
    const axes = curve.chart({ x: [0, 128], y: ends, titles: ["distance in tokens", "score of this query and key"] });
    axes.line(points, 2);
    if (m - n >= 0 && m - n <= 128) axes.dot(m - n, score(q, k, m, n), 1);
  };
});
