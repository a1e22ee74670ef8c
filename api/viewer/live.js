// Live mode: entries appear as they come, until the reader looks at one.
// GET /v1/events/stream is asked by `fetch`, since EventSource sends no bearer token.
// https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream

import { Problem } from "./client.js";
import { filterParameters } from "./view.js";

// Milliseconds between two tries.
const LONGEST_PAUSE = 30_000;
// Milliseconds between two changes of the table.
const SHOWN_EVERY = 250;
// Milliseconds between two exact counts.
const COUNTED_EVERY = 5_000;
// Pixels that the table moves before it counts as reading.
const SCROLLED = 24;

// The events of a stream: `{ id, data }`, where one of them may be empty.
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  let event = { id: "", data: [] };
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      // The server sends no CR.
      const lines = (waiting + value).split("\n");
      waiting = lines.pop();
      for (const line of lines) {
        if (line.startsWith("id: ")) event.id = line.slice(4);
        else if (line.startsWith("data: ")) event.data.push(line.slice(6));
        else if (line === "" && (event.id || event.data.length)) {
          yield { id: event.id, data: event.data.join("\n") };
          event = { id: "", data: [] };
        }
      }
    }
  } finally {
    // Of a connection that is gone already.
    reader.cancel().catch(() => {});
  }
}

/**
 * Listens until it is ended. It holds no connection while the page is hidden, and goes on after the last event.
 * `heard(entry)` is told each entry; `failed(problem)` what ends it, `waiting(boolean)` whether it is cut off.
 */
class Live {
  #ended = new AbortController();
  #connection = null;
  #place = "";

  constructor(client, parameters, { heard, failed, waiting }) {
    Object.assign(this, { client, parameters, heard, failed, waiting });
    document.addEventListener("visibilitychange", () => this.#connection?.abort(), { signal: this.#ended.signal });
    this.#run();
  }

  end() {
    this.#ended.abort();
    this.#connection?.abort();
  }

  async #run() {
    let pause = 1000;
    while (!this.#ended.signal.aborted) {
      if (document.hidden) {
        await this.#shown();
        continue;
      }
      this.#connection = new AbortController();
      try {
        const headers = this.#place ? { "Last-Event-ID": this.#place } : {};
        const { signal } = this.#connection;
        const answer = await this.client.open("v1/events/stream", this.parameters, { signal, headers });
        this.waiting(false);
        for await (const { id, data } of eventsOf(answer.body)) {
          if (signal.aborted) break;
          pause = 1000;
          if (data) this.heard(JSON.parse(data));
          if (id) this.#place = id;
        }
        // It ended: the server stops, or the token is over; asking again tells which.
      } catch (error) {
        if (this.#connection.signal.aborted) continue;
        if (error instanceof Problem && error.name === "invalid-cursor") this.#place = "";
        else if (error instanceof Problem && error.status && !error.passing && error.status < 500) {
          this.#ended.abort();
          this.failed(error);
          return;
        }
        if (error instanceof Problem) pause = Math.max(pause, error.retryAfter * 1000);
      }
      if (this.#ended.signal.aborted || document.hidden) continue;
      this.waiting(true);
      await this.#rest(pause);
      pause = Math.min(pause * 2, LONGEST_PAUSE);
    }
  }

  #rest(milliseconds) {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#ended.signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
    });
  }

  #shown() {
    return new Promise((resolve) => {
      const options = { once: true, signal: this.#ended.signal };
      document.addEventListener("visibilitychange", resolve, options);
      this.#ended.signal.addEventListener("abort", resolve, { once: true });
    });
  }
}

/** A reactive controller: `on`, `paused`, `waiting` (cut off), and how many entries are `unseen` meanwhile. */
export class Following {
  on = false;
  paused = false;
  waiting = false;
  unseen = 0;

  #live = null;
  #heard = [];
  #timer = 0;
  #counted = 0;
  #top = 0;
  #watching = new AbortController();

  constructor(host) {
    this.host = host;
    host.addController(this);
  }

  hostDisconnected() {
    this.end();
  }

  begin(view) {
    this.end();
    this.#set({ on: true });
    this.#live = new Live(this.host.client, filterParameters(view, ""), {
      heard: (entry) => this.#hear(entry),
      failed: (problem) => (this.end(), this.host.failed(problem)),
      waiting: (waiting) => {
        this.#set({ waiting });
        // What came before the stream began is in no event of it.
        if (!waiting && !this.paused) this.host.refresh();
      },
    });
    this.#watch();
  }

  end() {
    this.#live?.end();
    this.#watching.abort();
    clearTimeout(this.#timer);
    clearTimeout(this.#counted);
    this.#live = null;
    this.#timer = this.#counted = 0;
    this.#heard = [];
    this.#set({ on: false, paused: false, waiting: false, unseen: 0 });
  }

  pause() {
    if (!this.on || this.paused) return;
    this.#set({ paused: true, unseen: this.#missing(this.#heard) });
    this.#heard = [];
  }

  resume() {
    this.#set({ paused: false, unseen: 0 });
    this.#watch();
  }

  // How many of these the table does not show: a page that was read meanwhile may have them.
  #missing(entries) {
    const known = new Set(this.host.reading.answer?.items.map((item) => item.id));
    return entries.filter((entry) => !known.has(entry.id)).length;
  }

  #hear(entry) {
    if (this.paused) {
      this.#set({ unseen: this.unseen + this.#missing([entry]) });
      return;
    }
    this.#heard.push(entry);
    this.#timer ||= setTimeout(() => this.#show(), SHOWN_EVERY);
  }

  #show() {
    this.#timer = 0;
    if (this.paused || !this.#heard.length) return;
    if (this.host.reading.loading || !this.host.reading.answer) {
      this.#timer = setTimeout(() => this.#show(), SHOWN_EVERY);
      return;
    }
    this.host.reading.merge(this.#heard);
    this.host.marked = new Set(this.#heard.map((entry) => entry.id));
    this.#heard = [];
    // The stream and the page were asked at different moments: only the server knows the exact total.
    this.#counted ||= setTimeout(() => {
      this.#counted = 0;
      if (!this.paused) this.host.refresh();
    }, COUNTED_EVERY);
  }

  /** Pauses when the reader scrolls, by whatever means: the table moves on the screen. */
  #watch() {
    this.#watching.abort();
    this.#watching = new AbortController();
    const place = () => this.host.getBoundingClientRect().top;
    this.#top = place();
    const moved = () => Math.abs(place() - this.#top) > SCROLLED && this.pause();
    document.addEventListener("scroll", moved, { capture: true, passive: true, signal: this.#watching.signal });
  }

  #set(changes) {
    Object.assign(this, changes);
    this.host.requestUpdate();
  }
}
