// Conversations are kept in this browser (IndexedDB); where it forbids that, for as long as the page is open.

const memory = new Map();
let opened = null;

function database() {
  opened ??= new Promise((resolve) => {
    try {
      const request = indexedDB.open("underhood", 1);
      request.onupgradeneeded = () => request.result.createObjectStore("talks", { keyPath: "id" });
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => resolve(null);
    } catch {
      resolve(null);
    }
  });
  return opened;
}

async function run(mode, act) {
  const db = await database();
  if (!db) return undefined;
  return new Promise((resolve, reject) => {
    const transaction = db.transaction("talks", mode);
    const request = act(transaction.objectStore("talks"));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
}

// All conversations, the one changed last first.
export async function all() {
  const kept = (await run("readonly", (store) => store.getAll())) ?? [];
  return [...kept.filter((talk) => !memory.has(talk.id)), ...memory.values()].sort((a, b) => b.updated - a.updated);
}

export async function get(id) {
  return memory.get(id) ?? (await run("readonly", (store) => store.get(id))) ?? null;
}

export async function put(talk) {
  const copy = structuredClone(talk);
  memory.set(talk.id, copy);
  if ((await database()) === null) return;
  try {
    await run("readwrite", (store) => store.put(copy));
    memory.delete(talk.id);
  } catch {
    // No room left: it stays for as long as the page is open.
  }
}

export async function remove(id) {
  memory.delete(id);
  await run("readwrite", (store) => store.delete(id));
}
