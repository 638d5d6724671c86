// Byte-pair encoding on the reader's text: the most frequent pair of neighbours gets a number, again and again.

interactive((kit) => {
  const text = kit.text({ name: "text", label: "Text", value: "she sells sea shells by the sea shore, the shells she sells" });
  const at = kit.slider({
    name: "merges", label: "Merges", min: 0, max: 60, step: 1, value: 0,
    words: (merges) => (merges === 0 ? "none yet" : String(merges)),
  });
  kit.button("Next merge", () => (at.value = Math.min(60, at.value + 1)));
  kit.button("Back", () => (at.value = Math.max(0, at.value - 1)));
  const cut = kit.choice({ name: "cut", label: "Cut into words first", options: ["yes", "no"] });
  const set = kit.readings({
    tokens: "tokens", bytes: "bytes", ratio: "bytes per token", vocabulary: "tokens in the vocabulary",
  });
  const note = kit.add("p", { className: "small soft", role: "status" });
  const strip = kit.add("p", { className: "letters" });
  strip.tabIndex = 0;
  strip.setAttribute("role", "region");
  strip.setAttribute("aria-label", "The text in tokens");

  // GPT-2's pattern: contractions, words and numbers with the space before them, punctuation, spaces.
  const WORDS = /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+/gu;
  const toBytes = new TextEncoder();
  const toText = new TextDecoder();

  // The pair that occurs most often, of equals the one with the smaller numbers, and how often.
  function mostFrequent(pieces) {
    const counts = new Map();
    for (const ids of pieces) {
      for (let i = 0; i + 1 < ids.length; i++) {
        const key = ids[i] * 65536 + ids[i + 1];
        counts.set(key, (counts.get(key) ?? 0) + 1);
      }
    }
    let [best, most] = [null, 1];
    for (const [key, count] of counts) if (count > most || (count === most && best !== null && key < best)) [best, most] = [key, count];
    return best === null ? null : { left: Math.floor(best / 65536), right: best % 65536, count: most };
  }

  function merged(ids, { left, right }, id) {
    const result = [];
    for (let i = 0; i < ids.length; i++) {
      const isPair = ids[i] === left && ids[i + 1] === right;
      result.push(isPair ? id : ids[i]);
      if (isPair) i++;
    }
    return result;
  }

  const spelled = (bytes) => toText.decode(Uint8Array.from(bytes)).replaceAll(" ", "␣");

  return () => {
    const words = cut.value === "yes" ? (text.value.match(WORDS) ?? []) : [text.value];
    let pieces = words.map((word) => [...toBytes.encode(word)]);
    const size = pieces.reduce((sum, ids) => sum + ids.length, 0);
    const vocabulary = Array.from({ length: 256 }, (_, byte) => [byte]);
    let last = null;
    let done = 0;
    while (done < at.value) {
      const pair = mostFrequent(pieces);
      if (pair === null) break;
      const id = vocabulary.length;
      vocabulary.push([...vocabulary[pair.left], ...vocabulary[pair.right]]);
      pieces = pieces.map((ids) => merged(ids, pair, id));
      last = { ...pair, id };
      done++;
    }
    const next = mostFrequent(pieces);
    const told = [];
    if (last !== null) told.push(`Merge ${done}: “${spelled(vocabulary[last.left])}” and “${spelled(vocabulary[last.right])}”, ${last.count} times, become ${last.id}.`);
    if (next === null) told.push("No pair is left that occurs twice.");
    else told.push(`Next: “${spelled(vocabulary[next.left])}” and “${spelled(vocabulary[next.right])}”, ${next.count} times.`);
    note.textContent = told.join(" ");
    const ids = pieces.flat();
    set("tokens", ids.length);
    set("bytes", size);
    set("ratio", ids.length ? size / ids.length : NaN);
    set("vocabulary", vocabulary.length);
    strip.replaceChildren();
    ids.forEach((id, order) => {
      const token = element("span", { textContent: spelled(vocabulary[id]), title: `token ${id}` });
      token.className = id === last?.id ? "token now" : "token";
      strip.append(token);
      if (order + 1 < ids.length) strip.append("\u200b");
    });
  };
});
