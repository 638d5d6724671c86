// Reverse mode on L = (tanh(w x + b) − y)²: values forwards, then adjoints backwards, one operation at a time.

interactive((kit) => {
  const inputs = {
    w: kit.slider({ name: "w", label: "w", min: -2, max: 2, step: 0.1, value: 0.8 }),
    x: kit.slider({ name: "x", label: "x", min: -2, max: 2, step: 0.1, value: 1.5 }),
    b: kit.slider({ name: "b", label: "b", min: -2, max: 2, step: 0.1, value: -0.4 }),
    y: kit.slider({ name: "y", label: "y", min: -1, max: 1, step: 0.1, value: 1 }),
  };
  // Operations in the order of the tape: name, words, inputs, value, and what the adjoint is multiplied with per input.
  const TAPE = [
    ["p", "w · x", ["w", "x"], (v) => v.w * v.x, (v) => [v.x, v.w]],
    ["s", "p + b", ["p", "b"], (v) => v.p + v.b, () => [1, 1]],
    ["t", "tanh s", ["s"], (v) => Math.tanh(v.s), (v) => [1 - v.t * v.t]],
    ["d", "t − y", ["t", "y"], (v) => v.t - v.y, () => [1, -1]],
    ["L", "d²", ["d"], (v) => v.d * v.d, (v) => [2 * v.d]],
  ];
  const LAST = 2 * TAPE.length;
  const at = kit.slider({
    name: "at", label: "Operation", min: 0, max: LAST, step: 1, value: 0,
    words: (step) => (step === 0 ? "nothing yet" : step <= TAPE.length ? `forwards, ${step} of 5` : `backwards, ${step - 5} of 5`),
  });
  kit.button("Next operation", () => (at.value = Math.min(LAST, at.value + 1)));
  kit.button("Back", () => (at.value = Math.max(0, at.value - 1)));
  const set = kit.readings({ L: "loss L", dw: "∂L/∂w", dx: "∂L/∂x", db: "∂L/∂b" });
  const note = kit.add("p", { className: "small soft", role: "status" });
  const drawing = kit.drawing({ height: 372 });

  return () => {
    const values = Object.fromEntries(Object.entries(inputs).map(([name, input]) => [name, input.value]));
    const adjoints = {};
    note.textContent = "Next operation begins at the inputs and goes to the loss; then it comes back.";
    TAPE.slice(0, at.value).forEach(([name, words, , compute]) => {
      values[name] = compute(values);
      note.textContent = `${name} = ${words} = ${inWords(values[name])}`;
    });
    let current = at.value > 0 && at.value <= TAPE.length ? TAPE[at.value - 1][0] : null;
    if (at.value > TAPE.length) {
      adjoints.L = 1;
      for (const [name, , sources, , local] of TAPE.slice(LAST - at.value).reverse()) {
        local(values).forEach((factor, number) => {
          adjoints[sources[number]] = (adjoints[sources[number]] ?? 0) + adjoints[name] * factor;
        });
        const told = sources.map((source, number) => `∂L/∂${source} += ${inWords(adjoints[name])} · ${inWords(local(values)[number])}`);
        note.textContent = `${name} passes its adjoint on: ${told.join(", ")}`;
        current = name;
      }
    }
    set("L", values.L ?? NaN);
    for (const name of ["w", "x", "b"]) set(`d${name}`, adjoints[name] ?? NaN);

    const width = drawing.clear();
    const size = Math.min(120, (width - 24) / 4);
    const middle = (column) => 4 + size / 2 + column * (size + 5);
    const centre = { w: [middle(0), 24], x: [middle(1), 24], b: [middle(2), 24], y: [middle(3), 24],
      p: [middle(0.5), 90], s: [middle(1), 156], t: [middle(1), 222], d: [middle(2), 288], L: [middle(2), 348] };
    for (const [name, , sources] of TAPE) {
      for (const source of sources) {
        const [from, to] = [centre[source], centre[name]];
        const lit = name === current ? "curve-line hue-0" : "wire";
        drawing.add("path", { class: lit, d: `M${from[0]} ${from[1] + 22}C${from[0]} ${from[1] + 40} ${to[0]} ${to[1] - 40} ${to[0]} ${to[1] - 22}` });
      }
    }
    const words = Object.fromEntries(TAPE.map(([name, operation]) => [name, `${name} = ${operation}`]));
    for (const [name, [x, y]] of Object.entries(centre)) {
      drawing.add("rect", { class: `box${name === current ? " now" : ""}`, x: x - size / 2, y: y - 22, width: size, height: 44, rx: 5 });
      const lines = [[words[name] ?? name, "strong"]];
      if (values[name] !== undefined) lines.push([inWords(values[name]), "ink"]);
      if (adjoints[name] !== undefined) lines.push([`∂L ${inWords(adjoints[name])}`, "hue-text hue-1"]);
      lines.forEach(([text, look], line) => {
        const baseline = y + 4 + 13 * (line - (lines.length - 1) / 2);
        drawing.add("text", { x, y: baseline, "text-anchor": "middle", class: `${look} in-box` }, text);
      });
    }
  };
});
