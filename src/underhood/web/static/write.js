// Has a model write: by the chat route if it has learnt to chat, else (or from given tokens) by plain completion.

import { stream } from "./api.js";

// The settings that a person can turn: name, kind of control, range, what it does, and `none`, where it does nothing.
export const SETTINGS = [
  { name: "temperature", label: "Temperature", min: 0, max: 2, step: 0.05, hint: "0 always takes the likeliest token" },
  { name: "top_p", label: "Top-p", min: 0.01, max: 1, step: 0.01, none: 1, hint: "the likeliest tokens that together reach this share" },
  { name: "min_p", label: "Min-p", min: 0, max: 1, step: 0.01, none: 0, hint: "drops what is less likely than this share of the best" },
  { name: "top_k", label: "Top-k", min: 1, max: 200, step: 1, open: true, hint: "only the k likeliest tokens" },
  { name: "repetition_penalty", label: "Repetition penalty", min: 1, max: 2, step: 0.05, hint: "1 is none" },
  { name: "presence_penalty", label: "Presence penalty", min: -2, max: 2, step: 0.1, hint: "0 is none" },
  { name: "frequency_penalty", label: "Frequency penalty", min: -2, max: 2, step: 0.1, hint: "0 is none" },
  { name: "max_tokens", label: "Most tokens", min: 1, max: 4096, step: 1, open: true, hint: "of an answer" },
  { name: "seed", label: "Seed", min: 0, step: 1, open: true, plain: true, hint: "repeats the same draws" },
];
const CUTS = ["temperature", "top_p", "top_k", "min_p"]; // the server takes all of these from a request, or none
export const MOST_TOKENS = 256; // of an answer, unless someone asks for more
export const NUMBERS = SETTINGS.map((setting) => setting.name);
export const PRESETS = {
  Default: {},
  Likeliest: { temperature: 0 },
  Lively: { temperature: 0.7, min_p: 0.05 },
  Wild: { temperature: 1.2, min_p: 0.02 },
};

// What holds where a person sets nothing: the model's own defaults, or those for answers from documents; two models
// beside each other write what each finds likeliest.
export function inForce(card, settings, compared) {
  if (!card) return {}; // before the first one is known
  const reads = card.chats && card.documents && (settings.retrieve ?? card.documents.on);
  const own = { ...(reads ? card.documents.sampling : card.sampling), max_tokens: MOST_TOKENS };
  return compared ? { ...own, temperature: 0 } : own;
}

function requestFields(settings, model, compared) {
  const own = inForce(model, settings, compared);
  const named = compared || CUTS.some((name) => typeof settings[name] === "number");
  const body = {};
  for (const name of NUMBERS) {
    const value = settings[name] ?? (named && CUTS.includes(name) ? own[name] : null);
    if (typeof value === "number") body[name] = value;
  }
  if (settings.stop?.length) body.stop = settings.stop;
  return { max_tokens: MOST_TOKENS, ...body };
}

const hexOf = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

// A token's bytes from its text in the older form, which spells broken characters as bytes:\xe2\x80.
function hexOfText(text) {
  if (/^bytes:(\\x[0-9a-f]{2})+$/i.test(text)) return text.slice(6).replaceAll("\\x", "").toLowerCase();
  return text.includes("\ufffd") ? null : hexOf(new TextEncoder().encode(text));
}

function piecesOf(logprobs) {
  if (!logprobs) return [];
  if (logprobs.content) {
    return logprobs.content.map(({ token, bytes, logprob }) => [bytes ? hexOf(bytes) : hexOfText(token), logprob]);
  }
  return (logprobs.tokens ?? []).map((token, index) => [hexOfText(token), logprobs.token_logprobs[index]]);
}

// Streams an answer. Yields { id?, text, pieces, finish?, usage?, sources? }; pieces are [bytes in hexadecimal,
// log-probability], sources the passages that it is written from.
// `asks` holds messages (a conversation), prompt (a text), or ids (tokens, for going on from a chosen one).
export async function* write(model, asks, settings, signal, compared = false) {
  const common = { model: model.id, stream: true, stream_options: { include_usage: true }, ...requestFields(settings, model, compared) };
  const chat = Boolean(asks.messages);
  const body = chat
    ? { ...common, messages: asks.messages, logprobs: true, ...(model.documents && "retrieve" in settings ? { retrieve: settings.retrieve } : {}) }
    : { ...common, prompt: asks.ids ?? asks.prompt, logprobs: 0 };
  for await (const event of stream(chat ? "/v1/chat/completions" : "/v1/completions", body, signal)) {
    const [choice] = event.choices ?? [];
    yield {
      id: event.id,
      text: (chat ? choice?.delta?.content : choice?.text) ?? "",
      pieces: piecesOf(choice?.logprobs),
      finish: choice?.finish_reason ?? null,
      usage: event.usage ?? null,
      sources: event.retrieved ?? null,
    };
  }
}

// Has an answer written to its end: its text and tokens, how it ended, how long it took. `onPiece` follows it.
export async function fillAnswer(answer, model, asks, settings, signal, onPiece, compared = false) {
  const begun = performance.now();
  const since = () => (performance.now() - begun) / 1000;
  // Behind a chosen token a letter may have been cut in two; the tokens' bytes put it together again. A stop text cuts
  // the answer within its tokens, so that they spell more than it says.
  answer.cut = Boolean(settings.stop?.length);
  const spelt = answer.prefix && !answer.cut;
  try {
    for await (const piece of write(model, asks, settings, signal, compared)) {
      if (piece.pieces.length) {
        answer.first ??= since();
        answer.last = since();
        answer.burst ??= piece.pieces.length; // what came with the first token was not waited for
      }
      answer.text += piece.text;
      answer.pieces.push(...piece.pieces);
      if (spelt && answer.pieces.every(([hex]) => hex !== null)) answer.text = textOf(answer.pieces.map(([hex]) => hex));
      if (piece.sources) answer.sources = piece.sources;
      if (piece.finish) answer.finish = piece.finish;
      if (piece.usage) answer.cached = piece.usage.prompt_tokens_details?.cached_tokens ?? 0;
      onPiece();
    }
  } catch (error) {
    if (error.name === "AbortError") answer.finish = "stopped";
    else answer.error = error.message;
  }
}

const SHORTEST = 0.02; // seconds: tokens that arrive closer together came in one piece, and tell no speed

// Tokens a second from the first token on, or null where that can't be told, as of a single token.
export function speedOf({ pieces, prefix = 0, burst, first, last }) {
  const tokens = pieces.length - prefix - (burst ?? 0);
  return tokens > 0 && last - first >= SHORTEST ? tokens / (last - first) : null;
}

// The text that bytes in hexadecimal spell.
export function textOf(hexes) {
  const bytes = hexes.join("").match(/../g)?.map((pair) => Number.parseInt(pair, 16)) ?? [];
  return new TextDecoder().decode(Uint8Array.from(bytes));
}
