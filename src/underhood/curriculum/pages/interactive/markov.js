// Markov's count: how often a vowel follows a vowel, and a consonant, up to a letter of the text.

interactive((kit) => {
  const vowels = new Set("aeiouyаеёиоуыэюяäöüéèêáàóíúâîôû");
  const ignored = new Set("ъь");
  const text = kit.text({
    name: "text",
    label: "Text",
    value: "Мой дядя самых честных правил, Когда не в шутку занемог, Он уважать себя заставил И лучше выдумать не мог. " +
      "Его пример другим наука; Но, боже мой, какая скука С больным сидеть и день и ночь, Не отходя ни шагу прочь!",
  });
  const read = kit.slider({ name: "letters", label: "Letters read", min: 2, max: 200, step: 1, value: 200 });
  const set = kit.readings({
    vowel: "share of vowels", after_vowel: "vowel after a vowel", after_consonant: "vowel after a consonant",
  });
  const shown = kit.add("p", { className: "letters" });
  const drawing = kit.drawing({ height: 150 });

  return () => {
    const letters = [...text.value].filter((sign) => /\p{L}/u.test(sign) && !ignored.has(sign.toLowerCase()));
    const atVowel = letters.map((letter) => vowels.has(letter.toLowerCase()));
    read.input.max = Math.max(2, letters.length);
    read.value = Math.min(read.value, Math.max(2, letters.length));
    const count = Math.min(read.value, letters.length);
    const pairs = { true: [0, 0], false: [0, 0] };
    for (let at = 1; at < count; at++) pairs[atVowel[at - 1]][Number(atVowel[at])] += 1;
    const share = ([consonants, after]) => after / (consonants + after);
    const values = [atVowel.slice(0, count).filter(Boolean).length / count, share(pairs.true), share(pairs.false)];
    ["vowel", "after_vowel", "after_consonant"].forEach((name, at) => set(name, values[at]));
    let letter = -1;
    shown.replaceChildren(...[...text.value].map((sign) => {
      const counts = /\p{L}/u.test(sign) && !ignored.has(sign.toLowerCase());
      if (counts) letter += 1;
      const classes = [letter >= count ? "later" : "", counts && atVowel[letter] ? "vowel" : ""];
      if (counts && letter === count - 1) classes.push("now");
      return element("span", { className: classes.join(" ").trim(), textContent: sign });
    }));
    const width = drawing.clear();
    const room = width - 190;
    const markov = [0.432, 0.128, 0.663];
    ["vowels at all", "after a vowel", "after a consonant"].forEach((name, at) => {
      const top = 14 + 44 * at;
      drawing.add("text", { x: 0, y: top + 15, class: "ink" }, name);
      drawing.add("rect", { class: "box", x: 120, y: top, width: room, height: 22 });
      if (Number.isFinite(values[at])) {
        drawing.add("rect", { class: `fill hue-${at}`, x: 120, y: top, width: room * values[at], height: 22 });
        drawing.add("text", { x: 130 + room, y: top + 15, class: "strong" }, inWords(values[at]));
      }
      drawing.add("path", { class: "axis", d: `M${120 + room * markov[at]} ${top - 3}v28` });
      drawing.add("text", { x: 120 + room * markov[at], y: top + 36, "text-anchor": "middle" }, `Markov ${markov[at]}`);
    });
  };
});
