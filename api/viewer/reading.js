// Reads pages of the log: the last question wins, and what is being read stands still until new entries are asked for.

import { Problem } from "./client.js";
import { filterParameters, freshParameters } from "./view.js";

// Milliseconds after which it shows that something is under way.
const SLOW = 150;
// Milliseconds between two looks for new entries.
const POLL = 10_000;

/** The moment just after the newest entry of a page that begins with it: what comes later is new. */
const pinOf = (page) => (page.items.length ? new Date(Date.parse(page.items[0].timestamp) + 1).toISOString() : "");

/** Tells the seconds until a problem may have passed, one after the other, and then goes on. Returns what stops it. */
export function countDown(problem, tell, then) {
  let seconds = problem.retryAfter || 5;
  tell(seconds);
  const timer = setInterval(() => {
    if (document.hidden) return;
    tell((seconds -= 1));
    if (seconds > 0) return;
    clearInterval(timer);
    then();
  }, 1000);
  return () => clearInterval(timer);
}

/** A reactive controller (https://lit.dev/docs/composition/controllers/) with what was read last. */
export class Reading {
  /** The last page, as the API gave it; and the view it is of, its pin, and when it came. */
  answer = null;
  view = null;
  pin = "";
  at = null;
  /** The most rows that an export has; 0 where it is not known. */
  limit = 0;
  /** Why the last question has no answer. */
  problem = null;
  /** Seconds until it is asked again. */
  countdown = 0;
  loading = false;
  slow = false;
  offline = false;
  /** How many entries came since the pin. */
  fresh = 0;

  #asking = null;
  #stopTicking = () => {};
  #left = new AbortController();

  constructor(host) {
    this.host = host;
    host.addController(this);
  }

  hostConnected() {
    this.#left = new AbortController();
    const { signal } = this.#left;
    addEventListener("online", () => this.#back(), { signal });
    addEventListener("offline", () => this.#set({ offline: true }), { signal });
    document.addEventListener("visibilitychange", () => this.#poll(), { signal });
    const timer = setInterval(() => this.#poll(), POLL);
    signal.addEventListener("abort", () => clearInterval(timer));
  }

  hostDisconnected() {
    this.#left.abort();
    this.stop();
  }

  stop() {
    this.#asking?.abort();
    this.#stopTicking();
  }

  /** Read a page. Without a `pin`, the newest entry there is becomes it. */
  async read(view, { pin = "", cursor }) {
    this.stop();
    const asking = (this.#asking = new AbortController());
    const { signal } = asking;
    const slow = setTimeout(() => this.#set({ slow: true }), SLOW);
    // Of another question, the pin before it is no measure.
    this.#set({ loading: true, countdown: 0, pin });
    try {
      this.#set({ ...(await this.#answer(view, pin, cursor, signal)), view, at: new Date(), problem: null, offline: false, fresh: 0 });
      this.host.wasRead();
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      this.#set({ problem: error, offline: error.name === "offline" });
      if (error.passing) this.#stopTicking = countDown(error, (countdown) => this.#set({ countdown }), () => this.read(view, { pin, cursor }));
      this.host.failed(error);
    } finally {
      clearTimeout(slow);
      if (asking === this.#asking) this.#set({ loading: false, slow: false });
    }
  }

  /** Put entries that just came on top, and count them. */
  merge(entries) {
    const known = new Set(this.answer.items.map((item) => item.id));
    const added = entries.filter((entry) => !known.has(entry.id));
    const order = (one, other) => (one.timestamp + one.id < other.timestamp + other.id ? 1 : -1);
    const items = [...added, ...this.answer.items].sort(order).slice(0, this.view.size);
    const total = this.answer.total + added.length;
    this.#set({ answer: { ...this.answer, items, total, pages: Math.ceil(total / this.view.size), next: null }, at: new Date() });
    const newest = pinOf(this.answer);
    if (newest > this.pin) this.#set({ pin: newest });
  }

  async #answer(view, pin, cursor, signal) {
    const newestFirst = view.sort === "-timestamp" && view.page === 1;
    let page;
    try {
      if (!pin && !newestFirst) pin = pinOf((await this.#page({ ...view, sort: "-timestamp", page: 1, size: 10 }, "", "", signal)).body);
    } catch (error) {
      // The question itself is refused too, and for every reason.
      if (error.name !== "invalid-query") throw error;
    }
    try {
      page = await this.#page(view, pin, cursor, signal);
    } catch (error) {
      if (!cursor || error.name !== "invalid-cursor") throw error;
      page = await this.#page(view, pin, "", signal);
    }
    signal.throwIfAborted();
    const answer = page.body;
    // The cursors of a page that was asked without a pin belong to another question than the pages after it.
    if (!pin) Object.assign(answer, { next: null, previous: null });
    return { answer, pin: pin || pinOf(answer), limit: Number(page.headers.get("X-Row-Limit")) || this.limit };
  }

  #page(view, pin, cursor, signal) {
    const parameters = filterParameters(view, pin);
    parameters.set("sort", view.sort);
    parameters.set("page_size", view.size);
    if (cursor) parameters.set("cursor", cursor);
    else parameters.set("page", view.page);
    return this.host.client.get("v1/events", parameters, signal);
  }

  async #poll() {
    if (document.hidden || this.loading || !this.answer || this.problem || this.host.following.on) return;
    const parameters = freshParameters(this.view, this.pin);
    if (!parameters) return;
    parameters.set("page_size", 10);
    const { answer } = this;
    try {
      const { body } = await this.host.client.get("v1/events", parameters, this.#left.signal);
      if (answer === this.answer) this.#set({ fresh: body.total, offline: false });
    } catch (error) {
      // Whatever else it is will be said when the reader asks for something.
      if (error instanceof Problem && error.name === "offline") this.#set({ offline: true });
    }
  }

  #back() {
    if (this.problem?.name === "offline") this.host.retry();
    else this.#set({ offline: false });
  }

  #set(changes) {
    Object.assign(this, changes);
    this.host.requestUpdate();
  }
}
