// Search over everything that exists, with the scores of `underhood path search`: BM25F postings are added up, words of
// newcomers are replaced by the field's. The analysis repeats underhood.curriculum.search.analysis and retrieve.stemming.

function searchIndex(data) {
  const { entries, postings, expansions, named, stop, suffixes, limits } = data;
  const stopped = new Set(stop);
  // Porter's steps 1 and 5 -------------------------------------------------------------------------------------------------

  function letters(word) {
    let kinds = "";
    for (const letter of word) {
      kinds += "aeiou".includes(letter) || (letter === "y" && kinds.endsWith("C")) ? "V" : "C";
    }
    return kinds;
  }
  const measure = (word) => (letters(word).match(/V+C+/g) ?? []).length;
  const isShort = (word) => letters(word).endsWith("CVC") && !"wxy".includes(word.at(-1));
  const cut = (word, count) => word.slice(0, word.length - count);

  function withoutPlural(word) {
    if (word.endsWith("sses") || word.endsWith("ies")) return cut(word, 2);
    return word.endsWith("s") && !word.endsWith("ss") ? cut(word, 1) : word;
  }

  function withoutEdAndIng(word) {
    if (word.endsWith("eed")) return measure(cut(word, 3)) > 0 ? cut(word, 1) : word;
    for (const ending of ["ed", "ing"]) {
      if (!word.endsWith(ending)) continue;
      const rest = cut(word, ending.length);
      if (!letters(rest).includes("V")) return word;
      if (/(at|bl|iz)$/.test(rest)) return `${rest}e`;
      const last = rest.at(-1);
      if (rest.length > 1 && last === rest.at(-2) && letters(rest).endsWith("C") && !"lsz".includes(last)) return cut(rest, 1);
      return measure(rest) === 1 && isShort(rest) ? `${rest}e` : rest;
    }
    return word;
  }

  function withoutFinalE(word) {
    let shorter = word;
    if (shorter.endsWith("e")) {
      const count = measure(cut(shorter, 1));
      if (count > 1 || (count === 1 && !isShort(cut(shorter, 1)))) shorter = cut(shorter, 1);
    }
    return shorter.endsWith("ll") && measure(cut(shorter, 1)) > 1 ? cut(shorter, 1) : shorter;
  }

  function stem(word) {
    if (word.length <= 2 || !/^[a-z]+$/.test(word)) return word;
    const bare = withoutEdAndIng(withoutPlural(word));
    return withoutFinalE(bare.endsWith("y") && letters(cut(bare, 1)).includes("V") ? `${cut(bare, 1)}i` : bare);
  }

  // Words of a question ----------------------------------------------------------------------------------------------------

  function american(term) {
    const spelt = term.length > 6 ? term.replace(/is(|ation|er)$/, "iz$1") : term;
    return spelt.replace(/(?<=[a-z]{3})our$/, "or");
  }

  function rootOf(term) {
    for (const suffix of suffixes) {
      if (term.endsWith(suffix) && term.length - suffix.length >= limits.root) {
        const rest = cut(term, suffix.length);
        return suffix === "ization" || suffix === "izer" ? `${rest}iz` : rest;
      }
    }
    return term;
  }

  function questionWords(question) {
    const plain = question.toLowerCase().normalize("NFD").replace(/\p{M}/gu, "").replaceAll("’", "'").replace(/'[a-z]{1,2}\b/g, "");
    const words = plain.match(/[a-z0-9]+/g) ?? [];
    return words.filter((word) => !stopped.has(word)).map((word) => american(stem(word)));
  }

  const roots = new Map();
  for (const term of Object.keys(postings)) {
    const root = rootOf(term);
    if (!roots.has(root)) roots.set(root, []);
    roots.get(root).push(term);
  }

  function parse(words) {
    const terms = new Map();
    const offer = (word, other, weight) => {
      if (!terms.get(word).has(other)) terms.get(word).set(other, weight);
    };
    for (const word of words) {
      if (terms.has(word)) continue;
      terms.set(word, new Map([[word, 1]]));
      for (const other of roots.get(rootOf(word)) ?? []) offer(word, other, limits.derived);
    }
    for (let at = 0; at + 1 < words.length; at += 1) {
      const joined = words[at] + words[at + 1];
      if (!Object.hasOwn(postings, joined)) continue;
      offer(words[at], joined, limits.joined);
      offer(words[at + 1], joined, limits.joined);
    }
    for (let length = 1; length <= limits.phrase; length += 1) {
      for (let start = 0; start + length <= words.length; start += 1) {
        const phrase = words.slice(start, start + length);
        const key = phrase.join(" ");
        for (const other of Object.hasOwn(expansions, key) ? expansions[key] : []) {
          for (const word of phrase) offer(word, other, limits.expansion);
        }
      }
    }
    return [...terms.values()];
  }

  // Scores -----------------------------------------------------------------------------------------------------------------

  const total = entries.length;
  const postingsOf = (term) => (Object.hasOwn(postings, term) ? postings[term] : []);
  const idf = (term) => {
    const holding = postingsOf(term).length / 2;
    return Math.log1p((total - holding + 0.5) / (holding + 0.5));
  };

  return function search(question, most = 8) {
    const words = questionWords(question);
    const scores = new Float64Array(total);
    const covered = new Float64Array(total);
    let weightOfAll = 0;
    for (const alternatives of parse(words)) {
      let weightOfTerm = 0;
      for (const [other, weight] of alternatives) weightOfTerm = Math.max(weightOfTerm, idf(other) * weight);
      weightOfAll += weightOfTerm;
      const best = new Map();
      for (const [other, weight] of alternatives) {
        const pairs = postingsOf(other);
        for (let at = 0; at < pairs.length; at += 2) {
          const score = weight * pairs[at + 1] / limits.unit;
          const previous = best.get(pairs[at]);
          if (!previous || score > previous[0]) best.set(pairs[at], [score, weight]);
        }
      }
      for (const [number, [score, weight]] of best) {
        scores[number] += score;
        covered[number] += weight * weightOfTerm;
      }
    }
    let highest = 0;
    for (let number = 0; number < total; number += 1) {
      scores[number] *= entries[number].weight * (limits.alone + ((1 - limits.alone) * covered[number]) / Math.max(weightOfAll, 1e-9));
      highest = Math.max(highest, scores[number]);
    }
    const key = words.join(" ");
    const start = question.toLowerCase().trimStart();
    const sentence = limits.asking.some((word) => start.startsWith(word));
    for (const number of words.length && Object.hasOwn(named, key) ? named[key] : []) {
      scores[number] += (sentence && entries[number].kind === "milestone" ? limits.asked : limits.named) * words.length;
    }
    const hits = [];
    for (let number = 0; number < total; number += 1) {
      if (scores[number] > limits.relevant * highest) hits.push({ entry: entries[number], score: scores[number] });
    }
    hits.sort((a, b) => b.score - a.score);
    const best = hits.slice(0, most);
    return [...best.filter((hit) => hit.entry.kind !== "topic"), ...best.filter((hit) => hit.entry.kind === "topic")];
  };
}
