// Expert routing: the router's probabilities for each token of a text, the experts that it takes, and how busy each is.

interactive((kit, data) => {
  const names = data.texts.map((text) => text.pieces.join("").replaceAll("·", " ").replaceAll("⏎", " ").slice(0, 32) + "…");
  const experts = data.load[0].length;
  const chosenText = kit.choice({ name: "text", label: "Text", options: names });
  const layer = kit.choice({ name: "layer", label: "Layer", options: data.load.map((_, index) => String(index + 1)), value: "1" });
  const active = kit.slider({ name: "active", label: "Experts per token", min: 1, max: experts, step: 1, value: 2, words: String });
  const at = kit.slider({ name: "at", label: "Token", min: 1, max: 60, step: 1, value: 4, words: String });
  const set = kit.readings({
    first: "first expert",
    weight: "its weight",
    second: "second expert",
    rest: "probability that is left out",
    busiest: "the busiest expert's load here (even: 1)",
    idle: "feed-forward weights at rest",
  });
  const routing = kit.drawing();
  kit.add("p", { className: "legend", textContent: "Rows are tokens, columns experts. The stronger the colour, the likelier; framed: chosen. Below: share of the choices " +
    "in this text (bars) and in all held-out texts (lines)." });
  const table = kit.add("table");

  const ranked = (row) => row.map((probability, expert) => ({ probability, expert })).sort((a, b) => b.probability - a.probability);

  function drawRouting(pieces, rows, loads, general) {
    const [left, size] = [92, 19];
    const width = routing.clear();
    const column = Math.min(60, (width - left - 4) / experts);
    const bottom = 24 + rows.length * size;
    const bars = 56;
    routing.clear(bottom + bars + 26);
    for (let expert = 0; expert < experts; expert++) {
      routing.add("text", { x: left + (expert + 0.5) * column, y: 14, "text-anchor": "middle" }, String(expert + 1));
    }
    rows.forEach((row, index) => {
      const y = 24 + index * size;
      const isNow = index === at.value - 1;
      routing.add("text", { x: left - 10, y: y + 14, "text-anchor": "end", class: isNow ? "strong" : "" }, `${isNow ? "▸ " : ""}${pieces[index]}`);
      const taken = new Set(ranked(row).slice(0, active.value).map((each) => each.expert));
      row.forEach((probability, expert) => {
        const box = { x: left + expert * column + 1, y: y + 1, width: column - 2, height: size - 2, rx: 2 };
        routing.add("rect", { class: "fill hue-2", ...box, opacity: Math.max(0.04, probability) });
        if (taken.has(expert)) routing.add("rect", { ...box, fill: "none", stroke: "var(--ink)", "stroke-width": isNow ? 2.5 : 1.2 });
      });
    });
    const base = bottom + bars + 6;
    const scale = bars / Math.max(0.3, ...loads, ...general);
    routing.add("path", { class: "axis", d: `M${left} ${base}H${left + experts * column}` });
    routing.add("text", { x: left - 10, y: base - 4, "text-anchor": "end" }, "load");
    loads.forEach((load, expert) => {
      const x = left + expert * column;
      routing.add("rect", { class: "fill hue-1", x: x + 0.2 * column, y: base - scale * load, width: 0.6 * column, height: scale * load });
      routing.add("path", { class: "curve-line hue-6", d: `M${x + 2} ${base - scale * general[expert]}H${x + column - 2}` });
    });
  }

  function listTypical(typical) {
    const head = element("tr", {}, element("th", { textContent: "expert" }), element("th", { textContent: "typical tokens" }));
    const rows = typical.map((pieces, expert) => element("tr", {}, element("td", { textContent: expert + 1 }),
      element("td", {}, ...pieces.flatMap((piece) => [element("code", { textContent: piece }), " "]))));
    table.replaceChildren(element("thead", {}, head), element("tbody", {}, ...rows));
  }

  return () => {
    const { pieces, router } = data.texts[names.indexOf(chosenText.value)];
    const rows = router[Number(layer.value) - 1];
    at.input.max = pieces.length;
    at.value = Math.min(at.value, pieces.length);
    const order = ranked(rows[at.value - 1]);
    const taken = order.slice(0, active.value);
    const sum = taken.reduce((total, each) => total + each.probability, 0);
    set("first", order[0].expert + 1, String(order[0].expert + 1));
    set("weight", order[0].probability / sum);
    set("second", active.value > 1 ? order[1].expert + 1 : 0, active.value > 1 ? `${order[1].expert + 1}, weight ${inWords(order[1].probability / sum)}` : "none");
    set("rest", Math.max(0, 1 - sum));
    const counts = Array(experts).fill(0);
    for (const row of rows) for (const each of ranked(row).slice(0, active.value)) counts[each.expert]++;
    const loads = counts.map((count) => count / (rows.length * active.value));
    set("busiest", Math.max(...loads) * experts);
    set("idle", 1 - active.value / experts, `${Math.round(100 * (1 - active.value / experts))} %`);
    drawRouting(pieces, rows, loads, data.load[Number(layer.value) - 1]);
    listTypical(data.typical[Number(layer.value) - 1]);
  };
});
