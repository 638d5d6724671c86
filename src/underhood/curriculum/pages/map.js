// The map: a question finds its topic, a topic lights up what it rests on, and the page remembers what its reader knows.
// The selected topic is in the address (#backprop-1986), so a link, back and forward all reproduce what is seen.

document.documentElement.classList.add("js");

const { topics, search: searchData } = JSON.parse(document.getElementById("facts").textContent);
const map = document.querySelector(".map");
const nodes = new Map([...map.querySelectorAll(".node")].map((node) => [node.dataset.id, node]));
const edges = [...map.querySelectorAll(".edge")];
const panel = document.getElementById("panel");
const order = [...nodes.keys()];
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

// Selecting a topic -----------------------------------------------------------------------------------------------------

let selected = null;

function select(id, { scroll = false } = {}) {
  selected = id in topics ? id : null;
  const needed = selected ? before(selected) : new Set();
  map.classList.toggle("focused", selected !== null);
  for (const [name, node] of nodes) {
    node.classList.toggle("selected", name === selected);
    node.classList.toggle("needed", needed.has(name));
    node.classList.toggle("known", known.has(name));
    node.classList.toggle("needs-it", selected !== null && topics[name].needs.includes(selected));
    node.tabIndex = name === (selected ?? order[0]) ? 0 : -1;
  }
  for (const edge of edges) {
    const { from, to } = edge.dataset;
    const inside = (to === selected || needed.has(to)) && needed.has(from);
    edge.classList.toggle("lit", inside);
    edge.classList.toggle("onward", from === selected);
  }
  tell();
  if (selected && scroll) {
    nodes.get(selected).scrollIntoView({ block: "nearest", inline: "center" });
  }
}

function tell() {
  panel.hidden = selected === null;
  if (selected === null) return;
  const topic = topics[selected];
  const steps = pathTo(selected);
  const route = make("ol");
  for (const id of steps) {
    const words = topics[id].page && id !== selected ? make("a", { href: `#${id}`, textContent: topics[id].title }) : topics[id].title;
    route.append(make("li", { className: id === selected ? "here" : "" }, words));
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

const places = new Map(order.map((id) => [id, [Number(nodes.get(id).dataset.x), Number(nodes.get(id).dataset.y)]]));

function neighbour(id, key) {
  const [x, y] = places.get(id);
  let best = null;
  let least = Infinity;
  for (const [name, [a, b]] of places) {
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
document.getElementById("tier").addEventListener("change", (event) => {
  map.dataset.tier = event.target.value;
});

ask.form.hidden = false;
const question = new URLSearchParams(location.search).get("q");
if (question) {
  ask.value = question;
  answer();
}
select(decodeURIComponent(location.hash.slice(1)), { scroll: true });
