// The weights of a GPT counted matrix by matrix: queries, keys and values of each head, outputs, MLPs, embeddings.

interactive((kit) => {
  const layers = kit.slider({ name: "layers", label: "Layers", values: [6, 12, 24, 36, 48, 96, 120], value: 96, words: String });
  const width = kit.slider({ name: "width", label: "Width", values: [128, 768, 1024, 1280, 1600, 4096, 12288], value: 12288,
    words: (number) => number.toLocaleString("en") });
  const headWidth = kit.choice({ name: "head", label: "Width of a head", options: ["128", "64"] });
  const vocabulary = kit.slider({ name: "vocabulary", label: "Vocabulary", values: [256, 32000, 50257, 128256], value: 50257,
    words: (number) => number.toLocaleString("en") });
  const set = kit.readings({ total: "weights", matrices: "matrices", mlp: "share in the MLPs", bytes: "gigabytes with two bytes each" });
  const drawing = kit.drawing({ height: 232 });

  return () => {
    const [L, D, V] = [layers.value, width.value, vocabulary.value];
    const heads = D / Number(headWidth.value);
    const kinds = [
      ["embedding", 1, V * D], ["queries", L * heads, (D * D) / heads], ["keys", L * heads, (D * D) / heads],
      ["values", L * heads, (D * D) / heads], ["outputs", L, D * D], ["MLP, up", L, 4 * D * D], ["MLP, down", L, 4 * D * D],
      ["unembedding", 1, V * D],
    ];
    const total = kinds.reduce((sum, [, count, size]) => sum + count * size, 0);
    const matrices = kinds.reduce((sum, [, count]) => sum + count, 0);
    set("total", total, total.toLocaleString("en"));
    set("matrices", matrices, matrices.toLocaleString("en"));
    set("mlp", (8 * L * D * D) / total, `${inWords((800 * L * D * D) / total)} %`);
    set("bytes", (2 * total) / 1e9);
    const room = drawing.clear() - 270;
    kinds.forEach(([name, count, size], row) => {
      const y = 6 + 28 * row;
      const share = (count * size) / total;
      drawing.add("text", { x: 96, y: y + 14, "text-anchor": "end", class: "strong" }, name);
      drawing.add("rect", { class: `fill hue-${name.startsWith("MLP") ? 0 : name.endsWith("embedding") ? 6 : 1}`, x: 104, y, width: Math.max(1, 3 * room * share), height: 19 });
      drawing.add("text", { x: 112 + Math.max(1, 3 * room * share), y: y + 14 }, `${count.toLocaleString("en")} × ${size.toLocaleString("en")}`);
    });
  };
});
