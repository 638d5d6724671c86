// The map: dots and as many labels as fit, frequent words first; drag, wheel, buttons and keys move the view.
document.documentElement.classList.add("js");
const { words, places, near } = JSON.parse(document.getElementById("payload").textContent);
const ids = new Map(words.map((word, id) => [word, id]));
const atlas = document.querySelector(".atlas");
const form = document.querySelector(".find");
const frame = atlas.querySelector(".frame");
const canvas = frame.querySelector("canvas");
const input = document.getElementById("word");
atlas.hidden = form.hidden = false;
document.getElementById("words").append(...words.map((word) => Object.assign(document.createElement("option"), { value: word })));

let view = { x: 0, y: 0, zoom: 1 };
let chosen = ids.get(decodeURIComponent(location.hash.slice(1))) ?? 0;

// light-dark() is not resolved in a custom property, so a probe element says what it is now.
const probe = document.body.appendChild(document.createElement("i"));
probe.hidden = true;
function resolved(name) {
  probe.style.color = `var(${name})`;
  return getComputedStyle(probe).color;
}

// Pixels per unit of the map: both directions fill the frame.
const unit = () => [frame.clientWidth / 2.2, frame.clientHeight / 2.2];

function screen(id, width, height) {
  const [right, down] = unit();
  return [width / 2 + (places[id][0] - view.x) * right * view.zoom, height / 2 + (places[id][1] - view.y) * down * view.zoom];
}

function draw() {
  const { clientWidth: width, clientHeight: height } = frame;
  const dense = window.devicePixelRatio || 1;
  canvas.width = width * dense;
  canvas.height = height * dense;
  const pen = canvas.getContext("2d");
  pen.scale(dense, dense);
  const ink = resolved("--ink"), soft = resolved("--soft"), accent = resolved("--accent"), ground = resolved("--ground");
  const kin = new Set(near[chosen].map(([word]) => ids.get(word)));
  const taken = [];
  const order = [chosen, ...kin, ...words.keys()].filter((id) => id !== undefined);
  const seen = new Set();
  pen.font = "13px system-ui, sans-serif";
  pen.textBaseline = "middle";
  for (const id of words.keys()) {
    const [x, y] = screen(id, width, height);
    pen.fillStyle = id === chosen || kin.has(id) ? accent : soft;
    pen.beginPath();
    pen.arc(x, y, id === chosen ? 5 : kin.has(id) ? 4 : 2, 0, 7);
    pen.fill();
  }
  for (const id of order) {
    if (seen.has(id)) continue;
    seen.add(id);
    const [x, y] = screen(id, width, height);
    if (x < 0 || y < 0 || x > width || y > height) continue;
    const long = pen.measureText(words[id]).width;
    const left = x + 7 + long > width ? x - 7 - long : x + 7;
    const box = [left - 2, y - 9, left + long + 2, y + 9];
    if (taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])) continue;
    taken.push(box);
    pen.fillStyle = ground;
    pen.globalAlpha = 0.75;
    pen.fillRect(box[0], box[1] + 2, box[2] - box[0], 14);
    pen.globalAlpha = 1;
    pen.fillStyle = id === chosen || kin.has(id) ? accent : ink;
    pen.font = id === chosen ? "600 15px system-ui, sans-serif" : "13px system-ui, sans-serif";
    pen.fillText(words[id], left, y);
    pen.font = "13px system-ui, sans-serif";
  }
  frame.dataset.labels = taken.length;
}

function choose(id, look = false) {
  chosen = id;
  input.value = words[id];
  history.replaceState(null, "", `#${encodeURIComponent(words[id])}`);
  atlas.querySelector(".chosen").textContent = words[id];
  atlas.querySelector(".near").replaceChildren(
    ...near[id].map(([word, cosine]) => {
      const item = document.createElement("li");
      const there = Object.assign(document.createElement("button"), { type: "button", textContent: word });
      there.addEventListener("click", () => choose(ids.get(word), true));
      const away = Object.assign(document.createElement("span"), { className: "away", textContent: cosine.toFixed(2) });
      item.append(there, away);
      return item;
    }),
  );
  if (look && view.zoom > 1) [view.x, view.y] = places[id];
  draw();
}

function zoom(factor, at = null) {
  const before = view.zoom;
  view.zoom = Math.min(Math.max(view.zoom * factor, 1), 24);
  const { clientWidth: width, clientHeight: height } = frame;
  const [right, down] = unit();
  const [x, y] = at ?? screen(chosen, width, height);
  view.x += ((x - width / 2) / right) * (1 / before - 1 / view.zoom);
  view.y += ((y - height / 2) / down) * (1 / before - 1 / view.zoom);
  if (view.zoom === 1) view = { x: 0, y: 0, zoom: 1 };
  draw();
}

function closest(x, y) {
  const { clientWidth: width, clientHeight: height } = frame;
  const away = words.map((_, id) => Math.hypot(screen(id, width, height)[0] - x, screen(id, width, height)[1] - y));
  return away.indexOf(Math.min(...away));
}

form.addEventListener("submit", (event) => event.preventDefault());
input.addEventListener("input", () => { if (ids.has(input.value.trim())) choose(ids.get(input.value.trim()), true); });
form.querySelector(".in").addEventListener("click", () => zoom(1.6));
form.querySelector(".out").addEventListener("click", () => zoom(1 / 1.6));
form.querySelector(".whole").addEventListener("click", () => { view = { x: 0, y: 0, zoom: 1 }; draw(); });
frame.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom(event.deltaY < 0 ? 1.2 : 1 / 1.2, [event.offsetX, event.offsetY]);
}, { passive: false });

let held = null;
frame.addEventListener("pointerdown", (event) => {
  held = { x: event.clientX, y: event.clientY, moved: false };
  frame.setPointerCapture(event.pointerId);
});
frame.addEventListener("pointermove", (event) => {
  if (!held) return;
  const [right, down] = unit();
  const [dx, dy] = [event.clientX - held.x, event.clientY - held.y];
  if (!held.moved && Math.hypot(dx, dy) < 4) return;
  held = { x: event.clientX, y: event.clientY, moved: true };
  if (view.zoom > 1) { view.x -= dx / (right * view.zoom); view.y -= dy / (down * view.zoom); draw(); }
});
frame.addEventListener("pointerup", (event) => {
  if (held && !held.moved) {
    const edge = frame.getBoundingClientRect();
    choose(closest(event.clientX - edge.left, event.clientY - edge.top));
  }
  held = null;
});
frame.addEventListener("keydown", (event) => {
  const way = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
  if (event.key === "+" || event.key === "=") zoom(1.6);
  else if (event.key === "-") zoom(1 / 1.6);
  else if (way) {
    // The nearest word in that direction: within 45° of it.
    const [x, y] = places[chosen];
    const ahead = [...words.keys()].filter((id) => {
      const [dx, dy] = [places[id][0] - x, places[id][1] - y];
      const along = dx * way[0] + dy * way[1];
      return id !== chosen && along > 0 && Math.abs(dx * way[1] - dy * way[0]) <= along;
    });
    const away = (id) => Math.hypot(places[id][0] - x, places[id][1] - y);
    if (ahead.length) choose(ahead.reduce((a, b) => (away(a) <= away(b) ? a : b)), true);
  } else return;
  event.preventDefault();
});
new ResizeObserver(draw).observe(frame);
new MutationObserver(draw).observe(document.documentElement, { attributes: true, attributeFilter: ["data-theme"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
choose(chosen);
