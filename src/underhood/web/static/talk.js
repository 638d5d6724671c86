// A conversation as data: a tree of turns, each with the answers that one or two models have given to it.
//
// A turn hangs on the turn before it and on the answers that were chosen there, so that choosing another answer shows
// what followed that one. Editing a question makes a sibling turn; asking again makes a sibling answer.

const newId = () => Math.random().toString(36).slice(2, 10) + Date.now().toString(36).slice(-4);

export function newTalk(system = "") {
  const now = Date.now() / 1000;
  return { id: newId(), title: "", created: now, updated: now, system, turns: {}, shown: {} };
}

const keyOf = (parent) => parent ?? "root";

function follows(talk, turn) {
  const chosen = talk.turns[turn.parent]?.chosen ?? {};
  return Object.entries(turn.after).every(([lane, answer]) => chosen[lane] === answer);
}

// The turns that could follow `parent`, given the answers chosen there, oldest first.
export function siblings(talk, parent) {
  return Object.values(talk.turns)
    .filter((turn) => turn.parent === parent && follows(talk, turn))
    .sort((a, b) => a.created - b.created || a.order - b.order);
}

// The turns on show, from the first to the last.
export function path(talk) {
  const turns = [];
  for (let parent = null; ;) {
    const all = siblings(talk, parent);
    if (!all.length) return turns;
    const turn = all.find((candidate) => candidate.id === talk.shown[keyOf(parent)]) ?? all[all.length - 1];
    turns.push(turn);
    parent = turn.id;
  }
}

export const chosen = (turn, lane) => turn.answers[lane]?.find((answer) => answer.id === turn.chosen[lane]) ?? null;

// What a lane has heard and said: where it has said nothing, the other lane's answer counts.
export function history(talk, lane, until = null) {
  const exchanges = [];
  for (const turn of path(talk)) {
    if (turn.id === until) return [...exchanges, { user: turn.text, answer: null }];
    exchanges.push({ user: turn.text, answer: chosen(turn, lane) ?? chosen(turn, "a") ?? chosen(turn, "b") });
  }
  return exchanges;
}

// The same for a model: messages for one that chats, one running text for one that only continues.
export function asksFor(talk, lane, turn, chats) {
  const exchanges = history(talk, lane, turn.id);
  if (!chats) return { prompt: exchanges.map(({ user, answer }) => user + (answer?.text ?? "")).join("") };
  const messages = talk.system.trim() ? [{ role: "system", content: talk.system }] : [];
  for (const { user, answer } of exchanges) {
    messages.push({ role: "user", content: user });
    if (answer) messages.push({ role: "assistant", content: answer.text });
  }
  return { messages };
}

// Adds a question after the last turn on show, or beside `instead`.
export function addTurn(talk, text, instead = null) {
  const parent = instead ? instead.parent : (path(talk).at(-1)?.id ?? null);
  const after = instead ? instead.after : { ...talk.turns[parent]?.chosen };
  const order = Object.keys(talk.turns).length;
  const turn = { id: newId(), parent, after, order, created: Date.now() / 1000, text, answers: {}, chosen: {} };
  talk.turns[turn.id] = turn;
  talk.shown[keyOf(parent)] = turn.id;
  if (!talk.title) talk.title = titleOf(text);
  return turn;
}

export function addAnswer(talk, turn, lane, facts) {
  const answer = { id: newId(), text: "", pieces: [], finish: null, rating: null, created: Date.now() / 1000, ...facts };
  (turn.answers[lane] ??= []).push(answer);
  turn.chosen[lane] = answer.id;
  talk.updated = answer.created;
  return answer;
}

export function show(talk, turn) {
  talk.shown[keyOf(turn.parent)] = turn.id;
}

export function removeTurn(talk, turn) {
  for (const child of Object.values(talk.turns)) if (child.parent === turn.id) removeTurn(talk, child);
  delete talk.turns[turn.id];
}

// One lane's way through the conversation as a conversation of its own.
export function onlyLane(talk, lane) {
  const copy = structuredClone({ ...newTalk(talk.system), title: talk.title });
  let parent = null;
  for (const turn of path(talk)) {
    const answer = chosen(turn, lane) ?? chosen(turn, "a");
    const made = addTurn(copy, turn.text);
    made.parent = parent;
    if (answer) addAnswer(copy, made, "a", structuredClone(answer));
    parent = made.id;
  }
  return copy;
}

export const titleOf = (text) => text.trim().split("\n", 1)[0].slice(0, 60) || "Untitled";

// Export ----------------------------------------------------------------------------------------------------------

// The path on show as Markdown.
export function asMarkdown(talk) {
  const parts = [`# ${talk.title}`];
  if (talk.system.trim()) parts.push(`*System:* ${talk.system}`);
  for (const turn of path(talk)) {
    parts.push(`**You**\n\n${turn.text}`);
    for (const lane of ["a", "b"]) {
      const answer = chosen(turn, lane);
      if (!answer) continue;
      parts.push(`**${answer.model}**${answer.edited ? " (edited)" : ""}\n\n${answer.text}`);
      if (answer.sources?.length) parts.push(answer.sources.map(({ number, title, source, line }) => `- [${number}] ${title ? `${title} · ` : ""}${source}, line ${line}`).join("\n"));
    }
  }
  return parts.join("\n\n") + "\n";
}

// The path on show as one line of JSON, as `underhood finetune` reads it.
export function asMessages(talk, lane = "a") {
  const messages = talk.system.trim() ? [{ role: "system", content: talk.system }] : [];
  for (const { user, answer } of history(talk, lane)) {
    messages.push({ role: "user", content: user });
    if (answer) messages.push({ role: "assistant", content: answer.text });
  }
  return JSON.stringify({ messages }) + "\n";
}

const FORMAT = "underhood-talk-1";

export const asJson = (talk) => JSON.stringify({ format: FORMAT, ...talk }, null, 1) + "\n";

// A conversation from an export. Throws with a reason that a person can read.
export function fromJson(text) {
  let parsed;
  try {
    parsed = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON.");
  }
  const turns = parsed?.turns;
  const sound = parsed?.format === FORMAT && turns && typeof turns === "object" && Object.values(turns).every((turn) =>
    typeof turn.text === "string" && (turn.parent === null || turn.parent in turns) && turn.answers && turn.chosen && turn.after);
  if (!sound) throw new Error("This file is not a conversation exported here.");
  const { format: _, ...talk } = parsed;
  return { ...newTalk(), ...talk, id: newId(), updated: Date.now() / 1000 };
}

// A conversation small enough for a link, and back. Only the path on show travels.
export async function asLink(talk) {
  const lean = { ...talk, turns: {}, shown: {} };
  for (const turn of path(talk)) {
    const answers = {};
    for (const lane of Object.keys(turn.answers)) answers[lane] = [{ ...chosen(turn, lane), pieces: [] }];
    lean.turns[turn.id] = { ...turn, answers };
  }
  const packed = await through(new Blob([asJson(lean)]), new CompressionStream("deflate-raw"));
  let binary = "";
  for (const byte of packed) binary += String.fromCharCode(byte);
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export async function fromLink(text) {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  const packed = Uint8Array.from(binary, (letter) => letter.charCodeAt(0));
  return fromJson(new TextDecoder().decode(await through(new Blob([packed]), new DecompressionStream("deflate-raw"))));
}

async function through(blob, transform) {
  return new Uint8Array(await new Response(blob.stream().pipeThrough(transform)).arrayBuffer());
}
