// Reading values off: a cursor on plots that follows the pointer or the arrow keys, and the slider between frames.

document.documentElement.classList.add("js");

function cursor(plot) {
  const area = plot.querySelector(".area");
  const out = plot.querySelector(".readout");
  const { x, words, series } = JSON.parse(plot.querySelector("script").textContent);
  if (!x.length) return;
  const line = area.appendChild(Object.assign(document.createElement("div"), { className: "cursor" }));
  const dots = series.map((curve) => {
    const dot = area.appendChild(document.createElement("div"));
    dot.className = `dot hue-${curve.hue}`;
    return dot;
  });
  let at = x.length - 1;

  function show(index) {
    at = Math.min(Math.max(index, 0), x.length - 1);
    line.style.left = `${x[at]}%`;
    const readings = [];
    series.forEach((curve, number) => {
      dots[number].hidden = curve.y[at] === null;
      if (curve.y[at] === null) return;
      dots[number].style.left = `${x[at]}%`;
      dots[number].style.top = `${curve.y[at]}%`;
      readings.push([curve, curve.words[at]]);
    });
    out.replaceChildren(
      Object.assign(document.createElement("span"), { className: "place", textContent: words[at] }),
      ...readings.map(([curve, value]) => {
        const label = Object.assign(document.createElement("span"), { className: `part hue-${curve.hue}` });
        label.append(Object.assign(document.createElement("i"), { className: "chip" }));
        label.append(series.length > 1 ? `${curve.name} ` : "");
        label.append(Object.assign(document.createElement("b"), { textContent: value }));
        return label;
      }),
    );
    const text = `${words[at]}: ${readings.map(([curve, value]) => `${curve.name} ${value}`).join(", ")}`;
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
    parts.forEach((frame, index) => (frame.hidden = index !== Number(slider.value)));
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
