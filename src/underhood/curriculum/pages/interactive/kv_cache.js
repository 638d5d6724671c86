// KV cache: what each pass computes anew and what it reads, while a small model writes; and the memory of large ones.

interactive((kit, data) => {
  const { prompt, pieces, weights } = data.written;
  const KINDS = ["keep all keys and values", "keep the last 8", "keep nothing"];
  const MODELS = {
    "Llama-2 7B": { layers: 32, heads: 32, shared: 32, width: 128, billions: 6.74 },
    "Mistral 7B": { layers: 32, heads: 32, shared: 8, width: 128, billions: 7.24, window: 4096 },
    "Llama-2 70B": { layers: 80, heads: 64, shared: 8, width: 128, billions: 68.98 },
    "Llama 3 8B": { layers: 32, heads: 32, shared: 8, width: 128, billions: 8.03 },
  };
  const WINDOW = 8;
  const kind = kit.choice({ name: "kind", label: "The cache", options: KINDS });
  const upTo = kit.slider({ name: "tokens", label: "Tokens so far", min: prompt, max: pieces.length, step: 1, value: prompt + 6, words: String });
  kit.button("Write the next token", () => {
    if (upTo.value < pieces.length) upTo.value = upTo.value + 1;
  });
  const set = kit.readings({
    fresh: "tokens run through the model now",
    read: "keys and values read from the cache",
    total: "run through it since the start",
    kept: "kept for the next pass",
  });
  const text = kit.add("p", { className: "letters" });
  const steps = kit.drawing();
  kit.add("p", { className: "legend", textContent: "Rows are passes through the model, columns are tokens. Full: computed in that pass. Pale: read from the " +
    "cache. Empty: not used, or still to come. Attention is the mean over the small model's eight heads." });

  // Tokens that the pass ending at `length` runs through the model, and those that it reads from the cache: [first, end).
  function pass(length) {
    if (kind.value === KINDS[2]) return { fresh: [0, length], read: [0, 0] };
    const start = length === prompt ? 0 : length - 1;
    const oldest = kind.value === KINDS[1] ? Math.max(0, length - WINDOW) : 0;
    return { fresh: [start, length], read: [Math.min(oldest, start), start] };
  }
  const count = ([first, end]) => end - first;

  function drawPasses(length) {
    const column = Math.min(20, Math.floor((steps.clear() - 2) / pieces.length));
    const [row, bars] = [12, 48];
    const passes = pieces.length - prompt + 1;
    const top = bars + 26;
    steps.clear(top + passes * row + 4);
    const oldest = kind.value === KINDS[1] ? Math.max(0, length - WINDOW) : 0;
    const seen = weights[length - 1].slice(oldest);
    const [sum, most] = [seen.reduce((total, weight) => total + weight, 0), Math.max(...seen)];
    steps.add("text", { x: 0, y: 12 }, `attention of the newest token (highest: ${inWords(most / sum, 2)})`);
    steps.add("path", { class: "axis", d: `M0 ${top - 4}H${pieces.length * column}` });
    seen.forEach((weight, index) => {
      const high = (weight / most) * (bars - 4);
      steps.add("rect", { class: "fill hue-1", x: (oldest + index) * column, y: top - 4 - high, width: column - 2, height: high });
    });
    for (let at = 0; at < passes; at++) {
      const { fresh, read } = pass(prompt + at);
      const done = prompt + at <= length;
      for (let token = 0; token < prompt + at; token++) {
        const box = { x: token * column + 0.5, y: top + at * row + 0.5, width: column - 3, height: row - 3, rx: 2 };
        if (!done || token < read[0] && token < fresh[0]) steps.add("rect", { ...box, class: "rule" });
        else steps.add("rect", { ...box, class: "fill hue-2", opacity: token >= fresh[0] ? 1 : 0.28 });
      }
    }
    steps.add("text", { x: length * column + 4, y: top + (length - prompt + 1) * row - 3, class: "strong" }, "◂ now");
  }

  const model = kit.choice({ name: "model", label: "A large model", options: Object.keys(MODELS) });
  const sharing = kit.choice({ name: "sharing", label: "Its key–value heads", options: ["as it is", "one per query head", "one for all"] });
  const context = kit.slider({ name: "context", label: "Tokens in the context", values: Array.from({ length: 11 }, (_, power) => 128 * 2 ** power), value: 4096 });
  const texts = kit.slider({ name: "texts", label: "Texts at once", values: [1, 2, 4, 8, 16, 32, 64, 128], value: 1, words: String });
  const setBytes = kit.readings({ token: "kept per token", bytes: "kept in all, 16 bits", share: "of the size of its weights" });
  const memory = kit.drawing({ height: 240 });
  const inBytes = (value) => {
    const power = Math.min(4, Math.floor(Math.log10(value) / 3));
    return `${inWords(value / 1000 ** power)} ${["B", "kB", "MB", "GB", "TB"][power]}`;
  };

  function drawMemory() {
    const chosen = MODELS[model.value];
    const perToken = (heads) => 2 * chosen.layers * heads * chosen.width * 2;
    const heads = { "as it is": chosen.shared, "one per query head": chosen.heads, "one for all": 1 }[sharing.value];
    const visible = (length) => (sharing.value === "as it is" && chosen.window ? Math.min(length, chosen.window) : length);
    const bytes = perToken(heads) * visible(context.value) * texts.value;
    setBytes("token", perToken(heads), inBytes(perToken(heads)));
    setBytes("bytes", bytes, inBytes(bytes));
    const share = bytes / (2e9 * chosen.billions);
    setBytes("share", share, `${inWords(100 * share)} %`);
    const axes = memory.chart({ x: [128, 131072], y: [1e-3, 1e4], log: "xy", titles: ["tokens in the context", "gigabytes of keys and values"] });
    const lengths = Array.from({ length: 41 }, (_, at) => 128 * 2 ** (at / 4));
    const line = (each, hue, extra = {}) => axes.line(lengths.map((length) => [length, (each(length) * texts.value) / 1e9]), hue, extra);
    line((length) => perToken(chosen.heads) * length, 6);
    line((length) => perToken(1) * length, 6);
    for (const [count, words] of [[chosen.heads, "one per query head"], [1, "one for all"]]) {
      const at = 131072 * 0.8;
      axes.words(at, ((perToken(count) * at * texts.value) / 1e9) * (count === 1 ? 0.12 : 2.4), words, { "text-anchor": "end" });
    }
    line((length) => perToken(heads) * visible(length), 2, { "stroke-width": 3 });
    axes.line([[128, 2 * chosen.billions], [131072, 2 * chosen.billions]], 1, { class: "curve-line dashed hue-1" });
    axes.words(140, 2 * chosen.billions * 1.35, "its weights", { class: "hue-text hue-1" });
    axes.dot(context.value, bytes / 1e9, 2);
  }

  return () => {
    const length = upTo.value;
    const { fresh, read } = pass(length);
    set("fresh", count(fresh), String(count(fresh)));
    set("read", count(read), String(count(read)));
    let total = 0;
    for (let at = prompt; at <= length; at++) total += count(pass(at).fresh);
    set("total", total, String(total));
    const kept = kind.value === KINDS[2] ? 0 : kind.value === KINDS[1] ? Math.min(length, WINDOW) : length;
    set("kept", kept, String(kept));
    text.replaceChildren(...pieces.map((piece, index) => element("span", { textContent: piece, className: index >= length ? "later" : index === length - 1 ? "now" : "" })));
    drawPasses(length);
    drawMemory();
  };
});
