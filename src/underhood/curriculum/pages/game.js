// Shannon's guessing game: the reader guesses letters; the n-gram and the model have guessed the same ones before.

{
  const board = document.getElementById("game");
  const { players, passages } = JSON.parse(board.querySelector("script").textContent);
  const names = ["you", ...players];
  const alphabet = [..."abcdefghijklmnopqrstuvwxyz "];
  const usual = " etaoinshrdlcumwfgypbvkjxqz"; // by how common they are: the order in which letters are given away
  const choice = board.querySelector("select");
  const text = board.querySelector(".passage");
  const input = board.querySelector("input");
  const keys = board.querySelector(".keyboard");
  const message = board.querySelector(".said");
  const rows = board.querySelector("tbody");
  const games = passages.map(() => ({ yours: [], tried: [] }));
  let now = 0;

  const make = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const spoken = (letter) => (letter === " " ? "space" : letter);
  const times = (count) => (count === 1 ? "1 guess" : `${count} guesses`);

  for (const letter of alphabet) {
    const key = make("button", { type: "button", textContent: spoken(letter) });
    key.dataset.letter = letter;
    keys.append(key);
  }

  // Lower and upper bound on the bits per letter, from how many guesses letters took (Shannon 1951, sections 5 and 6).
  function bounds(guesses) {
    const shares = new Array(27).fill(0);
    for (const guess of guesses) shares[guess - 1] += 1 / guesses.length;
    shares.sort((a, b) => b - a);
    let low = 0, high = 0;
    shares.forEach((share, index) => {
      low += (index + 1) * (share - (shares[index + 1] ?? 0)) * Math.log2(index + 1);
      if (share > 0) high -= share * Math.log2(share);
    });
    return [low, high];
  }

  function draw() {
    const { known, hidden } = passages[now];
    const { yours, tried } = games[now];
    const over = yours.length === hidden.length;
    const letters = [...hidden.slice(0, yours.length)].map((letter, index) => {
      const mark = make("span", { className: `found l${Math.min(4, yours[index] - 1)}`, textContent: letter });
      mark.title = `${spoken(letter)}: ${times(yours[index])} of yours`;
      return mark;
    });
    text.replaceChildren(known, ...letters);
    if (!over) text.append(make("span", { className: "caret", textContent: "▁" }));
    for (const key of keys.children) key.disabled = over || tried.includes(key.dataset.letter);
    input.disabled = over;
    board.querySelector(".give").disabled = over;
    const all = names.map((_, who) =>
      games.flatMap((game, number) => (who ? passages[number].guesses[who - 1].slice(0, game.yours.length) : game.yours)));
    rows.replaceChildren(...names.map((name, who) => {
      const count = all[who].length;
      const once = all[who].filter((guess) => guess === 1).length;
      const [low, high] = count ? bounds(all[who]) : [0, 0];
      const cells = count
        ? [`${once} of ${count}`, (all[who].reduce((a, b) => a + b) / count).toFixed(1), `${low.toFixed(2)} to ${high.toFixed(2)}`]
        : ["", "", ""];
      const row = make("tr", {}, make("th", { scope: "row", textContent: name }));
      row.append(...cells.map((cell) => make("td", { className: "right", textContent: cell })));
      return row;
    }));
  }

  function guess(letter) {
    const { hidden, guesses } = passages[now];
    const { yours, tried } = games[now];
    const at = yours.length;
    if (at === hidden.length || tried.includes(letter)) return;
    tried.push(letter);
    if (letter === hidden[at]) {
      yours.push(tried.length);
      games[now].tried = [];
      const others = players.map((name, who) => `${name} ${guesses[who][at]}`).join(", ");
      message.textContent = `${spoken(letter)}, yes: you ${tried.length}, ${others}.`;
      if (yours.length === hidden.length) message.textContent += " That was the last letter; take another passage.";
    } else {
      message.textContent = `${spoken(letter)}, no.`;
    }
    draw();
  }

  input.addEventListener("input", () => {
    for (const typed of input.value.toLowerCase().replace("_", " ")) {
      if (alphabet.includes(typed)) guess(typed);
      else message.textContent = `${typed} is not a letter here; there are a to z and the space.`;
    }
    input.value = "";
  });
  keys.addEventListener("click", (event) => {
    const key = event.target.closest("button");
    if (key) guess(key.dataset.letter);
  });
  board.querySelector(".give").addEventListener("click", () => {
    const at = games[now].yours.length;
    for (const letter of usual) if (games[now].yours.length === at) guess(letter);
    input.focus();
  });
  choice.addEventListener("change", () => {
    now = Number(choice.value);
    message.textContent = "";
    draw();
  });
  board.querySelector(".play").hidden = false;
  draw();
}
