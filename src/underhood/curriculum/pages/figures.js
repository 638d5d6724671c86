// Reading values off: a cursor on plots that follows the pointer or the arrow keys, and the slider between frames.

document.documentElement.classList.add("js");

function cursor(plot) {
  const area = plot.querySelector(".area");
  const out = plot.querySelector(".readout");
  const { x, words, series } = JSON.parse(plot.querySelector("script").textContent);
  if (!x.length) return;
  const line = area.appendChild(Object.assign(document.createElement("div"), { className: "cursor" }));
  const dots = series.map((one) => {
    const dot = area.appendChild(document.createElement("div"));
    dot.className = `dot hue-${one.hue}`;
    return dot;
  });
  let at = x.length - 1;

  function show(index) {
    at = Math.min(Math.max(index, 0), x.length - 1);
    line.style.left = `${x[at]}%`;
    const said = [];
    series.forEach((one, number) => {
      dots[number].hidden = one.y[at] === null;
      if (one.y[at] === null) return;
      dots[number].style.left = `${x[at]}%`;
      dots[number].style.top = `${one.y[at]}%`;
      said.push([one, one.words[at]]);
    });
    out.replaceChildren(
      Object.assign(document.createElement("span"), { className: "place", textContent: words[at] }),
      ...said.map(([one, value]) => {
        const part = Object.assign(document.createElement("span"), { className: `part hue-${one.hue}` });
        part.append(Object.assign(document.createElement("i"), { className: "chip" }));
        part.append(series.length > 1 ? `${one.name} ` : "");
        part.append(Object.assign(document.createElement("b"), { textContent: value }));
        return part;
      }),
    );
    const text = `${words[at]}: ${said.map(([one, value]) => `${one.name} ${value}`).join(", ")}`;
    area.setAttribute("aria-valuenow", at + 1);
    area.setAttribute("aria-valuetext", text);
  }

  slider(area, x, () => at, show);
}

for (const plot of document.querySelectorAll(".drawn")) cursor(plot);

for (const frames of document.querySelectorAll(".frames")) {
  const parts = [...frames.querySelectorAll(".frame")];
  const slider = frames.querySelector("input");
  const label = frames.querySelector("output");
  const show = () => {
    parts.forEach((part, index) => (part.hidden = index !== Number(slider.value)));
    label.textContent = parts[Number(slider.value)].dataset.label;
    slider.setAttribute("aria-valuetext", label.textContent);
  };
  slider.addEventListener("input", show);
  frames.querySelector(".slide").hidden = false;
  show();
}

for (const table of document.querySelectorAll(".heat")) {
  const out = table.closest("figure").querySelector(".readout");
  const tell = (event) => {
    const cell = event.target.closest("td[data-words]");
    if (cell) out.textContent = cell.dataset.words;
  };
  table.addEventListener("pointerover", tell);
  table.addEventListener("focusin", tell);
}
