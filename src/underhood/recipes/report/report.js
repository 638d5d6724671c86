// What the page can do beyond showing itself: the cursor of a curve, the cursor of the token strip.
// Everything is readable without this script.

document.documentElement.classList.add("js");

// Curves: a cursor that follows the pointer or the arrow keys and reads the value off -----------------------------

for (const figure of document.querySelectorAll(".curve")) {
  const area = figure.querySelector(".area");
  const read = figure.querySelector(".read .value");
  const { x, y, words } = JSON.parse(figure.querySelector("script").textContent);
  const cursor = area.appendChild(Object.assign(document.createElement("div"), { className: "cursor" }));
  const dot = area.appendChild(Object.assign(document.createElement("div"), { className: "dot" }));
  let at = x.length - 1;

  function show(index) {
    at = Math.min(Math.max(index, 0), x.length - 1);
    cursor.style.left = dot.style.left = `${x[at]}%`;
    dot.style.top = `${y[at]}%`;
    read.textContent = words[at];
    area.setAttribute("aria-valuenow", at + 1);
    area.setAttribute("aria-valuetext", words[at]);
  }

  slider(area, x, () => at, show);
}

// The token strip: hover or arrow keys tell a token's id and bytes, Enter keeps it -------------------------------

for (const strip of document.querySelectorAll(".strip")) {
  const tokens = [...strip.querySelectorAll(".token")];
  const read = document.getElementById(strip.dataset.read);
  const idle = read.textContent;
  let at = 0;
  let kept = false;

  function tell(token) {
    const { id, hex, bytes } = token.dataset;
    read.textContent = `${token.textContent}  ·  id ${id}  ·  ${bytes} byte${bytes === "1" ? "" : "s"}: ${hex}`;
  }

  function move(index) {
    tokens[at].classList.remove("here");
    tokens[at].setAttribute("aria-selected", "false");
    at = Math.min(Math.max(index, 0), tokens.length - 1);
    tokens[at].classList.add("here");
    tokens[at].setAttribute("aria-selected", "true");
    strip.setAttribute("aria-activedescendant", tokens[at].id);
    tell(tokens[at]);
  }

  function line(direction) {
    // The nearest token in the line above or below.
    const from = tokens[at].getBoundingClientRect();
    let best = at;
    let distance = Infinity;
    for (let index = at + direction; tokens[index]; index += direction) {
      const box = tokens[index].getBoundingClientRect();
      if (Math.abs(box.top - from.top) < from.height / 2) continue;
      if (Math.abs(box.top - from.top) > 2.5 * from.height && best !== at) break;
      const away = Math.abs(box.left - from.left) + 4 * Math.abs(box.top - from.top);
      if (away < distance) [best, distance] = [index, away];
    }
    return best;
  }

  strip.addEventListener("pointerover", (event) => {
    if (!kept && event.target.classList.contains("token")) tell(event.target);
  });
  strip.addEventListener("pointerleave", () => {
    if (!kept) read.textContent = idle;
  });
  strip.addEventListener("click", (event) => {
    if (!event.target.classList.contains("token")) return;
    kept = true;
    move(tokens.indexOf(event.target));
  });
  strip.addEventListener("focus", () => {
    if (!kept) move(at);
  });
  strip.addEventListener("blur", () => {
    if (kept) return;
    tokens[at].classList.remove("here");
    read.textContent = idle;
  });
  strip.addEventListener("keydown", (event) => {
    if (event.key === "ArrowRight") move(at + 1);
    else if (event.key === "ArrowLeft") move(at - 1);
    else if (event.key === "ArrowDown") move(line(1));
    else if (event.key === "ArrowUp") move(line(-1));
    else if (event.key === "Home") move(0);
    else if (event.key === "End") move(tokens.length - 1);
    else if (event.key === "Enter") kept = true;
    else if (event.key === "Escape") kept = false;
    else return;
    event.preventDefault();
  });
  for (const choice of document.querySelectorAll('input[name="colour"]')) {
    choice.addEventListener("change", () => {
      strip.classList.toggle("by-bytes", choice.value === "bytes");
      strip.classList.toggle("by-id", choice.value === "id");
      for (const key of document.querySelectorAll(".key")) key.hidden = key.dataset.for !== choice.value;
    });
  }
}
