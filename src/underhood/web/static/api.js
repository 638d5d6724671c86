// Talking to the server: JSON, and streams of JSON.

// What the server refused, in its own words.
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function request(path, { body, signal } = {}) {
  let response;
  try {
    response = await fetch(path, {
      method: body === undefined ? "GET" : "POST",
      headers: body === undefined ? {} : { "Content-Type": "application/json" },
      body: body === undefined ? undefined : JSON.stringify(body),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  if (response.status === 401) location.reload(); // the server asks for its key on a page of its own
  const told = await response.json().catch(() => ({}));
  throw new Refused(response.status, told.error?.message ?? `The server answered with status ${response.status}.`);
}

export async function ask(path, options) {
  return (await request(path, options)).json();
}

// An answer that is not text.
export async function askBytes(path, body) {
  return (await request(path, { body })).arrayBuffer();
}

// The events of a stream, each parsed; ends with the stream or `[DONE]`.
export async function* stream(path, body, signal) {
  const response = await request(path, { body, signal });
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let ended = false;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      ended = done;
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith("data:")) continue;
        const data = line.slice(5).trim();
        if (data === "[DONE]") continue; // the stream ends by itself
        const event = JSON.parse(data);
        if (event.error) throw new Refused(response.status, event.error.message);
        yield event;
      }
    }
  } finally {
    if (!ended) reader.cancel().catch(() => {});
  }
}
