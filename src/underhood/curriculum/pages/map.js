// The map: a question finds its topic, a topic lights up what it rests on, and the page remembers what its reader knows.
// The selected topic is in the address (#backprop-1986), so a link, back and forward all reproduce what is seen.

document.documentElement.classList.add("js");

const { topics, views, size, first, search: searchData } = JSON.parse(document.getElementById("facts").textContent);
const map = document.querySelector(".map");
const nodes = new Map([...map.querySelectorAll(".node")].map((node) => [node.dataset.id, node]));
const edges = [...map.querySelectorAll(".edge")];
const panel = document.getElementById("panel");
const canvas = map.querySelector(".canvas");
const hint = document.getElementById("hint");
const tier = document.getElementById("tier");
let places = {};
const search = searchIndex(searchData);
let known = new Set();
try {
  known = new Set(JSON.parse(localStorage.getItem("underhood-known") ?? "[]"));
} catch {
  // A browser that forbids storage forgets what its reader knows.
}

const make = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};
const minutes = (value) => (value < 1 ? `${Math.round(60 * value)} s` : `${Math.round(value)} min`);

// What a topic rests on -------------------------------------------------------------------------------------------------

function before(id, prerequisites = new Set()) {
  for (const need of topics[id].needs) {
    if (prerequisites.has(need)) continue;
    before(need, prerequisites);
    prerequisites.add(need);
  }
  return prerequisites;
}

function pathTo(id) {
  const wanted = new Set();
  const visit = (goal) => {
    for (const need of topics[goal].needs) {
      if (wanted.has(need) || known.has(need)) continue;
      visit(need);
      wanted.add(need);
    }
  };
  visit(id);
  return [...wanted, id];
}

// The next stop of the shortest path for a reader who knows some of it: its needs are known, and it is written.
function nextStop() {
  if (!known.size) return first;
  const open = Object.keys(views[1]).filter((id) => !known.has(id) && topics[id].page);
  return open.find((id) => topics[id].needs.every((need) => known.has(need) || !topics[need].page));
}

// Views: the shortest path, what is important, everything; each holds what its topics rest on -----------------------

function curve(from, to) {
  let [[x1, y1], [x2, y2]] = [places[from], places[to]];
  y1 += topics[from].height / 2;
  y2 += topics[to].height / 2;
  if (x1 === x2) {
    const bend = x1 - Math.min(size.edge - 2, 4 + Math.abs(y2 - y1) / 40);
    return `M${x1} ${y1}C${bend} ${y1} ${bend} ${y2} ${x2} ${y2}`;
  }
  if (x1 < x2) x1 += size.width;
  else x2 += size.width;
  const half = Math.max(24, Math.abs(x2 - x1) / 2) * (x1 < x2 ? 1 : -1);
  return `M${x1} ${y1}C${x1 + half} ${y1} ${x2 - half} ${y2} ${x2} ${y2}`;
}

function view(number) {
  tier.value = number;
  places = views[number];
  let bottom = 0;
  for (const [id, node] of nodes) {
    node.hidden = !(id in places);
    if (node.hidden) continue;
    const [x, y] = places[id];
    Object.assign(node.style, { left: `${x}px`, top: `${y}px` });
    bottom = Math.max(bottom, y + topics[id].height);
  }
  for (const edge of edges) {
    const { from, to } = edge.dataset;
    const inside = from in places && to in places;
    edge.style.display = inside ? "" : "none";
    if (inside) edge.setAttribute("d", curve(from, to));
  }
  const eras = [...new Set(Object.keys(places).map((id) => topics[id].era))];
  const columns = new Map(Object.keys(places).map((id) => [topics[id].era, places[id][0] - size.edge]));
  for (const label of canvas.querySelectorAll(".era")) {
    label.hidden = !columns.has(label.textContent);
    if (!label.hidden) label.style.left = `${columns.get(label.textContent)}px`;
  }
  Object.assign(canvas.style, { width: `${size.column * eras.length}px`, height: `${bottom + 16}px` });
  for (const [side, value] of [["width", size.column * eras.length], ["height", bottom + 16]]) {
    canvas.querySelector("svg").setAttribute(side, value);
  }
}

// What is asked at a stop, on hover and on focus
function showHint(id) {
  const topic = topics[id];
  const state = topic.page ? (topic.verdict ?? "not measured yet") : "not written yet";
  hint.replaceChildren(
    make("b", { textContent: topic.question ?? topic.title }),
    make("span", { textContent: [topic.year, state, id === nextStop() ? "start here" : ""].filter(Boolean).join(" · ") }),
  );
  const [x, y] = places[id];
  hint.hidden = false;
  const above = y > hint.offsetHeight + 52;
  const left = Math.min(x, canvas.offsetWidth - hint.offsetWidth - 4);
  Object.assign(hint.style, { left: `${left}px`, top: `${above ? y - hint.offsetHeight - 6 : y + topic.height + 6}px` });
}

for (const event of ["pointerover", "focusin"]) {
  map.addEventListener(event, ({ target }) => {
    const node = target.closest(".node");
    if (node) showHint(node.dataset.id);
  });
}
for (const event of ["pointerout", "focusout"]) map.addEventListener(event, () => (hint.hidden = true));

// Selecting a topic -----------------------------------------------------------------------------------------------------

let selected = null;

function select(id, { scroll = false } = {}) {
  selected = id in topics ? id : null;
  const needed = selected ? before(selected) : new Set();
  if (selected && !(selected in places)) view([1, 2, 3].find((number) => selected in views[number]));
  const start = nextStop();
  map.classList.toggle("focused", selected !== null);
  for (const [name, node] of nodes) {
    node.classList.toggle("selected", name === selected);
    node.classList.toggle("needed", needed.has(name));
    node.classList.toggle("known", known.has(name));
    node.classList.toggle("needs-it", selected !== null && topics[name].needs.includes(selected));
    node.classList.toggle("next", name === start);
    node.tabIndex = name === (selected ?? start ?? Object.keys(places)[0]) ? 0 : -1;
  }
  for (const edge of edges) {
    const { from, to } = edge.dataset;
    const inside = (to === selected || needed.has(to)) && needed.has(from);
    edge.classList.toggle("lit", inside);
    edge.classList.toggle("onward", from === selected);
  }
  tell();
  tellStart(start);
  if (selected && scroll) {
    nodes.get(selected).scrollIntoView({ block: "nearest", inline: "center" });
  }
}

// Where to begin, or to go on
function tellStart(id) {
  const line = document.querySelector(".start");
  line.hidden = id === undefined;
  if (line.hidden) return;
  const link = make("a", { href: topics[id].page, textContent: topics[id].title });
  line.replaceChildren(known.size ? "Go on here: " : "Start here: ", link);
}

function tell() {
  panel.hidden = selected === null;
  if (selected === null) return;
  const topic = topics[selected];
  const steps = pathTo(selected);
  const route = make("ol");
  for (const id of steps) {
    const words = id === selected ? topics[id].title : make("a", { href: `#${id}`, textContent: topics[id].title });
    const stop = make("li", { className: id === selected ? "here" : "" }, words);
    if (!topics[id].page) stop.append(make("small", { className: "soft", textContent: " not written yet" }));
    route.append(stop);
  }
  const read = steps.reduce((sum, id) => sum + topics[id].read, 0);
  const run = steps.reduce((sum, id) => sum + topics[id].run, 0);
  const title = make("h2", { textContent: topic.year ? `${topic.title} (${topic.year})` : topic.title });
  const parts = [title];
  if (topic.question) parts.push(make("p", { className: "lede", textContent: topic.question }));
  const actions = make("p", { className: "actions" });
  if (topic.page) actions.append(make("a", { className: "go", href: topic.page, textContent: "Read it and see the result" }));
  else actions.append(make("span", { className: "soft", textContent: "Not written yet." }));
  const knows = make("button", { type: "button", textContent: known.has(selected) ? "I don’t know this yet" : "I know this" });
  knows.addEventListener("click", () => {
    if (known.has(selected)) known.delete(selected);
    else known.add(selected);
    try {
      localStorage.setItem("underhood-known", JSON.stringify([...known]));
    } catch {
      // Then it holds as long as the page is open.
    }
    select(selected);
    panel.querySelector("button").focus();
  });
  const close = make("button", { type: "button", textContent: "Show all", className: "close" });
  close.addEventListener("click", () => go(""));
  actions.append(knows, close);
  parts.push(actions);
  if (steps.length > 1) {
    parts.push(
      make("p", { className: "soft small", textContent: `The way here: ${steps.length} stops, ${minutes(read)} of reading${run ? `, ${minutes(run)} of running` : ""}.` }),
      route,
    );
  } else parts.push(make("p", { className: "soft small", textContent: "It rests on nothing else: begin here." }));
  panel.replaceChildren(...parts);
}

function go(id) {
  if (id) location.hash = id;
  else {
    history.pushState(null, "", location.pathname + location.search);
    select(null);
  }
}

addEventListener("hashchange", () => select(decodeURIComponent(location.hash.slice(1)), { scroll: true }));
addEventListener("popstate", () => select(decodeURIComponent(location.hash.slice(1))));

map.addEventListener("click", (event) => {
  const node = event.target.closest(".node");
  if (!node) return;
  event.preventDefault();
  if (node.dataset.id === selected && topics[selected].page) location.href = topics[selected].page;
  else go(node.dataset.id);
});

// Arrow keys: up and down a column, left and right to the nearest node of the next -------------------------------------

function neighbour(id, key) {
  const [x, y] = places[id];
  let best = null;
  let least = Infinity;
  for (const [name, [a, b]] of Object.entries(places)) {
    const across = a - x;
    const down = b - y;
    let away = Infinity;
    if ((key === "ArrowUp" && !across && down < 0) || (key === "ArrowDown" && !across && down > 0)) away = Math.abs(down);
    if ((key === "ArrowLeft" && across < 0) || (key === "ArrowRight" && across > 0)) away = 1000 * Math.abs(across) + Math.abs(down);
    if (away < least) [best, least] = [name, away];
  }
  return best;
}

map.addEventListener("keydown", (event) => {
  const node = event.target.closest(".node");
  if (!node) return;
  const id = node.dataset.id;
  if (event.key === "Enter" || event.key === " ") {
    if (id === selected && topics[id].page) location.href = topics[id].page;
    else go(id);
  } else if (event.key === "Escape") go("");
  else if (event.key.startsWith("Arrow")) {
    const next = neighbour(id, event.key);
    if (!next) return;
    nodes.get(id).tabIndex = -1;
    const target = nodes.get(next);
    target.tabIndex = 0;
    target.focus({ preventScroll: true });
    target.scrollIntoView({ block: "nearest", inline: "nearest" });
  } else return;
  event.preventDefault();
});

// Asking: the same scores as `underhood path search` -------------------------------------------------------------------

const ask = document.getElementById("ask");
const answers = document.getElementById("answers");

function answer() {
  const best = search(ask.value);
  const matching = new Set(search(ask.value, 32).flatMap((hit) => hit.entry.topics));
  map.classList.toggle("filtered", matching.size > 0);
  for (const [id, node] of nodes) node.classList.toggle("match", matching.has(id));
  answers.replaceChildren(
    ...best.map(({ entry }) => {
      const link = make("a", { href: entry.page }, make("b", { textContent: entry.title }));
      link.append(make("small", { className: "kind", textContent: searchData.kinds[entry.kind] }));
      link.append(make("span", { textContent: entry.summary || "shows the way there" }));
      return make("li", { className: entry.kind === "topic" ? "unwritten" : "" }, link);
    }),
  );
  answers.hidden = best.length === 0;
  const notice = ask.value.trim() && !best.length ? "Nothing speaks of this. Try other words." : "";
  document.getElementById("said").textContent = notice || (best.length ? `${best.length} answers` : "");
  document.getElementById("none").textContent = notice;
  const query = ask.value.trim() ? `?q=${encodeURIComponent(ask.value.trim())}` : location.pathname;
  history.replaceState(null, "", query + location.hash);
}

ask.addEventListener("input", answer);
ask.form.addEventListener("submit", (event) => {
  event.preventDefault();
  answers.querySelector("a")?.click();
});
addEventListener("keydown", (event) => {
  if (event.key === "/" && !/^(INPUT|TEXTAREA)$/.test(document.activeElement.tagName)) {
    ask.focus();
    event.preventDefault();
  }
});
tier.addEventListener("change", () => {
  view(Number(tier.value));
  select(selected in places ? selected : "");
});

ask.form.hidden = false;
const question = new URLSearchParams(location.search).get("q");
if (question) {
  ask.value = question;
  answer();
}
view(1);
select(decodeURIComponent(location.hash.slice(1)), { scroll: true });
