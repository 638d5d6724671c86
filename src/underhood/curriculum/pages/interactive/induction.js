// The rule that an induction head follows: look for where the last letters were before, and copy what came next.

interactive((kit) => {
  const text = kit.text({ name: "text", label: "Text", value: "the cat sat on the mat and the rat sat on the hat" });
  const agree = kit.slider({ name: "agree", label: "Letters that must agree", min: 1, max: 4, step: 1, value: 2, words: String });
  const at = kit.slider({ name: "at", label: "Read up to letter", min: 1, max: 100, step: 1, value: 33, words: String });
  const set = kit.readings({ matches: "earlier matches", chance: "chance that it gives the next letter", right: "of all letters it copies rightly", bet: "it bets at" });
  const shown = kit.add("p", { className: "letters" });

  // Places after earlier occurrences of the letters that end before `end`: what the head attends to.
  function attended(letters, end) {
    const ending = letters.slice(end - agree.value, end);
    const places = [];
    for (let after = agree.value; after < end; after++) {
      if (letters.slice(after - agree.value, after) === ending) places.push(after);
    }
    return end < agree.value ? [] : places;
  }
  function chance(letters, end) {
    const places = attended(letters, end);
    return places.length ? places.filter((after) => letters[after] === letters[end]).length / places.length : 0;
  }

  return () => {
    const letters = text.value;
    const end = Math.min(at.value, Math.max(0, letters.length - 1));
    const places = attended(letters, end);
    const ends = Array.from({ length: Math.max(0, letters.length - 1) }, (_, index) => index + 1);
    set("matches", places.length, String(places.length));
    set("chance", chance(letters, end));
    set("right", ends.length ? ends.reduce((sum, each) => sum + chance(letters, each), 0) / ends.length : 0);
    const bets = ends.filter((each) => attended(letters, each).length).length;
    set("bet", bets, `${bets} of ${ends.length}`);
    shown.replaceChildren(...[...letters].map((letter, index) => {
      const names = [places.includes(index) ? "vowel" : "", index > end ? "later" : "", index === end ? "now" : ""];
      return element("span", { textContent: letter === " " ? "·" : letter, className: names.join(" ").trim() });
    }));
  };
});
