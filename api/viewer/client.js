// Asks the API: the bearer token, its renewal, errors as one kind of object, and the CSV. Knows no page.

/** An answer that is an error, or none at all: `name` is the problem's, "offline" or "broken". */
export class Problem extends Error {
  constructor(name, detail, more = {}) {
    super(detail);
    Object.assign(this, { name, detail, status: 0, errors: [], requestId: "", retryAfter: 0 }, more);
  }

  /** Whether the same question may be answered later. */
  get passing() {
    return this.status === 429 || this.status === 503;
  }
}

/** The problem that an answer is (RFC 9457), or what a proxy in between said instead. */
async function problemOf(answer) {
  const body = await answer.json().catch(() => ({}));
  // Seconds, or a date (RFC 9110, section 10.2.3).
  const later = answer.headers.get("Retry-After");
  const name = String(body.type || "").split(":").pop() || "failed";
  return new Problem(name, body.detail || "", {
    status: answer.status,
    errors: Array.isArray(body.errors) ? body.errors : [],
    requestId: body.request_id || answer.headers.get("X-Request-ID") || "",
    retryAfter: Number(later) || Math.trunc((Date.parse(later) - Date.now()) / 1000) || 0,
    plans: Array.isArray(body.plans) ? body.plans : [],
    scope: body.scope || "",
  });
}

export class Client {
  /** `base` is the API's address; `token({ renew })` promises the bearer token, "" for none, null where nobody is signed in. */
  constructor(base, token) {
    this.base = base;
    this.token = token;
  }

  /** The answer of `GET path`. Raises Problem; an abort raises what `fetch` raises. */
  async open(path, parameters, { signal, headers = {} } = {}) {
    const url = new URL(path, this.base);
    url.search = parameters;
    let answer = await this.#ask(url, headers, signal, false);
    if (answer.status === 401) answer = await this.#ask(url, headers, signal, true);
    if (answer.ok) return answer;
    throw await problemOf(answer);
  }

  /** The JSON of `GET path`, and the headers it came with. */
  async get(path, parameters, signal) {
    const answer = await this.open(path, parameters, { signal });
    try {
      return { body: await answer.json(), headers: answer.headers };
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Problem("broken", "");
    }
  }

  async #ask(url, headers, signal, renew) {
    const token = await this.token({ renew });
    if (token === null) throw new Problem("unauthorized", "", { status: 401 });
    signal?.throwIfAborted();
    try {
      return await fetch(url, {
        headers: { ...headers, ...(token && { Authorization: `Bearer ${token}` }) }, signal, cache: "no-store", credentials: token ? "omit" : "same-origin",
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Problem("offline", "");
    }
  }
}

// The CSV of a view: streamed, counted, and kept only where it is whole.

const CR = 13, LF = 10, QUOTE = 34;

/** Counts the rows of a CSV, which comes in pieces; its header is none. */
class Rows {
  count = -1;
  #quoted = false;
  #last = 0;

  add(bytes) {
    for (const byte of bytes) {
      if (byte === QUOTE) this.#quoted = !this.#quoted;
      else if (byte === LF && this.#last === CR && !this.#quoted) this.count += 1;
      this.#last = byte;
    }
  }
}

/**
 * The whole file: `{ blob, name, rows, total, truncated }`. `progress(rows, of)` is called as it comes.
 * Raises Problem; "broken" where the transfer ended before the file did.
 */
export async function download(client, parameters, signal, progress) {
  const answer = await client.open("v1/events/export.csv", parameters, { signal });
  const total = Number(answer.headers.get("X-Total-Count"));
  const of = Math.min(total, Number(answer.headers.get("X-Row-Limit")));
  const rows = new Rows();
  const pieces = [];
  try {
    for (const reader = answer.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      rows.add(value);
      pieces.push(value);
      progress(Math.max(rows.count, 0), of);
    }
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Problem("broken", "");
  }
  // A proxy may turn a transfer that broke into one that ended.
  if (answer.headers.has("X-Total-Count") && rows.count !== of) throw new Problem("broken", "");
  const named = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") || "");
  return {
    blob: new Blob(pieces, { type: "text/csv;charset=utf-8" }),
    name: named?.[1] || "audit-log.csv",
    rows: rows.count,
    total,
    truncated: answer.headers.get("X-Truncated") === "true",
  };
}

/** Hand a file to the browser's downloads. */
export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
