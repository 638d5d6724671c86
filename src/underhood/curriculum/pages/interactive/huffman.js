// Huffman's tree of a text: the two lightest nodes are joined until one is left.

interactive((kit) => {
  const text = kit.text({ name: "text", label: "Text", value: "she sells sea shells" });
  const set = kit.readings({
    total: "bits for the text", mean: "bits per letter", entropy: "entropy per letter", fixed: "with codes of one length",
  });
  const drawing = kit.drawing({ height: 330 });
  const table = kit.add("div", { className: "scroll" });
  table.tabIndex = 0;
  table.setAttribute("role", "region");
  table.setAttribute("aria-label", "Codes");

  function tree(leaves) {
    const nodes = leaves.map((leaf, order) => ({ ...leaf, order }));
    let order = nodes.length;
    const lightest = () => {
      nodes.sort((a, b) => a.weight - b.weight || a.order - b.order);
      return nodes.shift();
    };
    while (nodes.length > 1) {
      const [left, right] = [lightest(), lightest()];
      nodes.push({ weight: left.weight + right.weight, order: order++, children: [left, right] });
    }
    return nodes[0];
  }

  function codes(node, code = "", into = []) {
    node.code = code;
    if (node.children) node.children.forEach((child, bit) => codes(child, code + bit, into));
    else into.push(node);
    return into;
  }

  return () => {
    const letters = [...text.value];
    const counts = new Map();
    for (const letter of letters) counts.set(letter, (counts.get(letter) ?? 0) + 1);
    if (counts.size < 2) {
      for (const name of ["total", "mean", "entropy", "fixed"]) set(name, NaN, "needs two letters");
      drawing.clear();
      table.replaceChildren();
      return;
    }
    const root = tree([...counts].map(([letter, weight]) => ({ letter, weight })));
    const leaves = codes(root);
    const total = leaves.reduce((sum, leaf) => sum + leaf.weight * leaf.code.length, 0);
    const shares = leaves.map((leaf) => leaf.weight / letters.length);
    set("total", total);
    set("mean", total / letters.length);
    set("entropy", -shares.reduce((sum, share) => sum + share * Math.log2(share), 0));
    set("fixed", letters.length * Math.ceil(Math.log2(counts.size)));

    const depth = Math.max(...leaves.map((leaf) => leaf.code.length));
    const level = Math.min(56, 270 / depth);
    const width = drawing.clear(50 + level * depth);
    leaves.forEach((leaf, at) => (leaf.x = ((at + 0.5) * width) / leaves.length));
    const settle = (node) => {
      if (node.children) node.x = node.children.map(settle).reduce((sum, x) => sum + x, 0) / 2;
      return node.x;
    };
    settle(root);
    const draw = (node) => {
      const y = 18 + level * node.code.length;
      for (const [bit, child] of (node.children ?? []).entries()) {
        drawing.add("path", { class: "wire", d: `M${node.x} ${y}L${child.x} ${y + level}` });
        if (leaves.length <= 24) {
          drawing.add("text", { x: (node.x + child.x) / 2 + (bit ? 6 : -12), y: y + level / 2 }, String(bit));
        }
        draw(child);
      }
      drawing.add("circle", { class: `${node.children ? "hollow hue-6" : "spot hue-0"}`, cx: node.x, cy: y, r: node.children ? 4 : 5 });
      if (!node.children) {
        const name = { " ": "␣" }[node.letter] ?? node.letter;
        drawing.add("text", { x: node.x, y: y + 20, "text-anchor": "middle", class: "strong" }, name);
      } else if (leaves.length <= 24) {
        drawing.add("text", { x: node.x + 8, y: y - 5 }, String(node.weight));
      }
    };
    draw(root);
    const ordered = [...leaves].sort((a, b) => b.weight - a.weight || a.order - b.order);
    const head = element("tr", {}, ...["letter", "count", "code"].map((name) => element("th", { scope: "col", textContent: name })));
    const lines = ordered.map((leaf) =>
      element("tr", {}, element("th", { scope: "row", textContent: { " ": "space" }[leaf.letter] ?? leaf.letter }),
        element("td", { textContent: leaf.weight }), element("td", {}, element("code", { textContent: leaf.code }))));
    table.replaceChildren(element("table", { className: "grid" }, element("thead", {}, head), element("tbody", {}, ...lines)));
  };
});
