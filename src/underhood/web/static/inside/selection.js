// The one selection that all panels share, kept in the address: a link shows what its sender saw.

const NUMBERS = ["token", "layer", "head", "key"];
const TEXTS = ["model", "beside", "against", "operation", "answer", "other", "words", "extra", "feature", "toward", "away", "strength", "task", "cut", "measured", "direction"];
const listeners = new Set();
let bounds = { token: 1, layer: 1, head: 1, key: 1 };
let now = {};

function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  const state = {};
  for (const name of NUMBERS) if (/^\d+$/.test(given.get(name) ?? "")) state[name] = Number(given.get(name));
  for (const name of TEXTS) if (given.get(name)) state[name] = given.get(name);
  return state;
}

function write(push) {
  const query = new URLSearchParams();
  for (const name of [...NUMBERS, ...TEXTS]) if (now[name] !== undefined && now[name] !== "") query.set(name, now[name]);
  history[push ? "pushState" : "replaceState"](null, "", `${location.pathname}${location.search}#${query}`);
}

const clamp = (name, value) => (value === undefined ? undefined : Math.min(Math.max(value, 0), Math.max(bounds[name] - 1, 0)));

export const selected = () => now;

// Says how many tokens, layers and heads there are, and what is selected where the address says nothing.
export function startSelection(sizes, defaults) {
  bounds = sizes;
  for (const [name, value] of Object.entries(defaults)) now[name] ??= value;
  for (const name of NUMBERS) now[name] = clamp(name, now[name]);
}

export function readAddress() {
  now = read();
}

// Forgets parts of the selection that another prompt has not; panels are made anew and need not be told.
export function forgetSelected(...names) {
  for (const name of names) delete now[name];
}

// Changes the selection; every panel is told what changed. A key token belongs to the token that looks at it.
export function select(changes, { push = false } = {}) {
  const next = { ...now, ...changes };
  if ("token" in changes && changes.token !== now.token && !("key" in changes)) next.key = undefined;
  for (const name of NUMBERS) next[name] = clamp(name, next[name]);
  const changed = new Set([...NUMBERS, ...TEXTS].filter((name) => next[name] !== now[name]));
  if (!changed.size) return;
  now = next;
  write(push);
  for (const listener of [...listeners]) listener(changed);
}

export function onSelect(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

export function step(name, by) {
  select({ [name]: (now[name] ?? 0) + by });
}

addEventListener("hashchange", () => {
  const before = now;
  now = { ...Object.fromEntries(NUMBERS.map((name) => [name, before[name]])), ...read() };
  for (const name of NUMBERS) now[name] = clamp(name, now[name]);
  const changed = new Set([...NUMBERS, ...TEXTS].filter((name) => before[name] !== now[name]));
  if (changed.size) for (const listener of [...listeners]) listener(changed);
});
