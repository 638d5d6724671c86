// Where the numbers come from: a server that works them out when asked, or the file that holds them. Panels see no
// difference but `live`.

import { Refused, ask, askBytes } from "../api.js";
import { decode } from "./payload.js";

const AT_ONCE = 2;
const KEPT = 300;

// What the file does not hold.
export class NotHere extends Error {}

// A payload; what a view says instead where it does not apply is thrown.
function opened(bytes) {
  const payload = decode(bytes);
  if (payload.facts.refused) throw new Refused(200, payload.facts.refused);
  return payload;
}

export const requestKey = (view, params) => [view, ...Object.keys(params).sort().map((name) => `${name}=${params[name]}`)].join("&");
const subjectKey = ({ model, prompt }) => `${model}\n${prompt}`;

export async function openSource() {
  const held = document.getElementById("payload");
  return held ? fileSource(JSON.parse(held.textContent)) : serverSource();
}

// Views that were asked for once are not asked for again.
function remembering(answer) {
  const known = new Map();
  return (subject, view, params = {}, options = {}) => {
    const key = `${subjectKey(subject)}\n${requestKey(view, params)}`;
    if (!known.has(key)) {
      const coming = answer(subject, view, params, options);
      known.set(key, coming);
      coming.catch(() => known.delete(key));
      if (known.size > KEPT) known.delete(known.keys().next().value);
    }
    return known.get(key);
  };
}

function fileSource(file) {
  const subjects = new Map(file.subjects.map((subject, index) => [subjectKey(subject), index]));

  async function answer(subject, view, params) {
    const packed = file.views[`${subjects.get(subjectKey(subject))}&${requestKey(view, params)}`];
    if (packed === undefined) throw new NotHere(file.again);
    const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return opened(await new Response(stream).arrayBuffer());
  }

  async function fit(subject, kind, variant) {
    if (!file.fits.includes(`${subjects.get(subjectKey(subject))}&${kind}&${variant}`)) throw new NotHere(file.untrained);
    return { state: "done" };
  }

  return { live: false, start: file.start, view: remembering(answer), fit };
}

async function serverSource() {
  const start = await ask("/ui/inside/start");
  const waiting = [];
  let running = 0;

  function next() {
    if (running >= AT_ONCE || !waiting.length) return;
    running += 1;
    const { subject, view, params, resolve, reject } = waiting.shift();
    askBytes("/ui/inside/view", { ...subject, view, params }).then((bytes) => resolve(opened(bytes))).catch(reject).finally(() => {
      running -= 1;
      next();
    });
  }

  // The selection's own views go before all that wait.
  function answer({ model, prompt }, view, params, { later = false }) {
    return new Promise((resolve, reject) => {
      waiting[later ? "push" : "unshift"]({ subject: { model, prompt }, view, params, resolve, reject });
      next();
    });
  }

  // What has to be trained first: how far it is, or to begin or end it.
  const fit = ({ model }, kind, variant, action = "look") => ask("/ui/inside/fit", { body: { model, kind, variant, action } });

  return { live: true, start, view: remembering(answer), fit };
}
