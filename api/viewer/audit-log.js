// <audit-log>: the audit log of a dashboard, as one element. See docs/viewer.md for its properties and events.

import { LitElement, html, nothing } from "./vendor/lit.js";
import { Client, Problem, download, save } from "./client.js";
import { isDay, number, zoneName } from "./dates.js";
import { boundsWith, chips, isRefused, limitNote, toggle, toolbar } from "./filters.js";
import { Following } from "./live.js";
import * as panels from "./panels.js";
import { Reading, countDown } from "./reading.js";
import { styles } from "./styles.js";
import { pager, table } from "./table.js";
import { textsFor } from "./texts.js";
import { Timeline, timeline } from "./timeline.js";
import { FILTERS, SIZES, START, absolute, filterParameters, readView, viewParameters } from "./view.js";

// Milliseconds after the last key until a search is asked.
const TYPED = 250;
// Milliseconds after a key in which another may come. A hundred rows would hold it up: they come a screenful with each frame.
const TYPING = 1_000;
const SCREENFUL = 34;
// Milliseconds for which a token is waited for: frameworks give it just after they put an element on the page.
const UNASKED = 300;
// Milliseconds for which "Copied" is shown.
const COPIED = 2_000;
// What an address says of the view.
const OWN = [...FILTERS, "sort", "page_size", "page", "zone", "pin", "entry"];

export class AuditLog extends LitElement {
  static styles = styles;

  static properties = {
    /** Where the API is: the address below which `v1/events` lies. Else, where this file came from. */
    apiBase: { attribute: "api-base" },
    /** `auto`, `light` or `dark`. */
    theme: { reflect: true },
    /** A BCP 47 tag; else the document's, else the browser's. */
    locale: {},
    pageSize: { attribute: "page-size", type: Number },
    /** Where somebody goes whose plan has no audit log. */
    upgradeUrl: { attribute: "upgrade-url" },
    /** Where the page's address keeps the view: `none`, `query` or `hash`. */
    urlState: { attribute: "url-state" },
    /** Whether cookies say who asks, at an API of the page's own origin; there is no token then. */
    session: { type: Boolean },
    /** The bearer token; never an attribute. */
    token: { attribute: false },
    /** Gives the bearer token, or a promise of it; asked again once, with `{ renew: true }`, after a 401. */
    getToken: { attribute: false },
  };

  constructor() {
    super();
    this.apiBase = "";
    this.theme = "auto";
    this.locale = "";
    this.pageSize = 25;
    this.upgradeUrl = "";
    this.urlState = "none";
    this.token = "";
    this.getToken = null;
    this.view = START;
    // Names of what the address says wrongly.
    this.wrong = [];
    this.opened = new Map();
    // Ids that just came.
    this.marked = new Set();
    this.linked = null;
    this.catalogue = null;
    this.exporting = null;
    this.timed = false;
    // What is being typed.
    this.text = null;
    // Rows that may be drawn.
    this.rows = Infinity;
    // What is looked for among the actions.
    this.found = "";
    this.copied = "";
    this.said = "";
    this.client = null;
    this.reading = new Reading(this);
    this.following = new Following(this);
    this.timeline = new Timeline(this);
  }

  #typing = 0;
  #typedAt = -TYPING;
  // The address before somebody began to type.
  #typedFrom = null;
  #focus = null;
  #held = null;
  #left = null;
  #started = false;

  connectedCallback() {
    super.connectedCallback();
    this.#left = new AbortController();
    const { signal } = this.#left;
    addEventListener("popstate", () => this.urlState !== "none" && this.#readAddress(), { signal });
    addEventListener("hashchange", () => this.urlState === "hash" && this.#readAddress(), { signal });
    if (this.#started) this.refresh();
  }

  disconnectedCallback() {
    super.disconnectedCallback();
    this.#left.abort();
    clearTimeout(this.#typing);
    this.cancelExport();
    this.exporting?.stop?.();
  }

  willUpdate(changed) {
    this.#held = this.shadowRoot?.activeElement;
    const { texts, locale } = textsFor(this.locale || document.documentElement.lang || navigator.language);
    this.t = texts;
    this.formats = locale;
    if (changed.has("apiBase")) {
      const base = this.apiBase ? new URL(this.apiBase, document.baseURI).href : new URL("../../", import.meta.url).href;
      this.client = new Client(base.endsWith("/") ? base : `${base}/`, (asked) => this.#token(asked));
    }
    if (!this.#started) {
      if (this.token || this.getToken || this.session) queueMicrotask(() => this.#begin());
      return;
    }
    if (changed.has("pageSize")) this.view = Object.freeze({ ...this.view, size: this.#start.size, page: 1 });
    // It may be another person's: so are the entry that a link names, and what streams.
    if (changed.has("token")) {
      this.#openLinked();
      if (this.following.on) this.following.begin(this.view);
    }
    // Frameworks make a new function at each turn: it alone is no reason to read again.
    if (changed.has("apiBase") || changed.has("pageSize") || changed.has("token") || (changed.has("getToken") && panels.isClosed(this.reading.problem))) queueMicrotask(() => this.refresh());
  }

  firstUpdated() {
    setTimeout(() => this.#begin(), UNASKED);
  }

  #begin() {
    if (this.#started) return;
    this.#started = true;
    if (this.urlState === "none") {
      this.view = this.#start;
      this.refresh();
    } else this.#readAddress();
  }

  updated() {
    // What had the focus may be gone: it stays in the viewer.
    if (this.#held && !this.#held.isConnected) this.#focus ||= "#search, .panel :is(input, button)";
    if (this.#focus) this.renderRoot.querySelector(this.#focus)?.focus();
    this.#focus = this.#held = null;
  }

  get #start() {
    return { ...START, size: SIZES.includes(this.pageSize) ? this.pageSize : START.size };
  }

  async #token({ renew }) {
    if (this.session) return "";
    if (!this.getToken) return (!renew && this.token) || null;
    try {
      return (await this.getToken({ renew })) || null;
    } catch {
      // Whoever could not give one is not signed in.
      return null;
    }
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(`audit-${name}`, { detail, bubbles: true, composed: true }));
  }

  // The view, and the address

  /** Change the view. Another question begins on page 1, and with what is new; paging and sorting stay where they are. */
  change(changes, { push = true } = {}) {
    clearTimeout(this.#typing);
    this.text = null;
    const question = FILTERS.some((name) => name in changes && String(changes[name]) !== String(this.view[name]));
    const live = this.following.on && question;
    this.following.end();
    this.wrong = [];
    if (!this.exporting?.busy) this.closeExport();
    this.#move({ ...(question && { pin: "" }), page: 1, ...changes }, { push, again: question });
    if (live) this.following.begin(this.view);
  }

  #move(changes, { push = true, again, cursor } = {}) {
    this.view = Object.freeze({ ...this.view, ...changes });
    this.#keepAddress(push);
    this.#read({ pin: this.view.pin || (again ? "" : this.reading.pin), cursor });
  }

  /** Close the entry that a link named. */
  closeLinked() {
    this.view = Object.freeze({ ...this.view, entry: "" });
    this.#keepAddress(true);
    this.#openLinked();
    this.requestUpdate();
  }

  /** Search for what is being typed, once the typing rests. */
  type(text) {
    clearTimeout(this.#typing);
    // Answers that come meanwhile leave it as it is.
    this.text = text;
    this.#typedAt = performance.now();
    this.#typedFrom ??= location.href;
    this.#typing = setTimeout(() => text !== this.view.q && this.change({ q: text }, { push: false }), TYPED);
  }

  /** What was typed is meant: the address before it stays reachable by Back. */
  typed(text) {
    if (text !== this.view.q) this.change({ q: text }, { push: false });
    if (this.urlState !== "none" && this.#typedFrom && this.#typedFrom !== location.href) {
      const now = location.href;
      history.replaceState(history.state, "", this.#typedFrom);
      history.pushState(null, "", now);
    }
    this.#typedFrom = null;
  }

  /** Go to a page, by the cursor where it is the next or the previous one. */
  turn(page, cursor) {
    this.following.end();
    this.#move({ page }, { cursor });
    if (this.renderRoot.activeElement?.matches(".number")) this.#focusAfter = "[aria-current=page]";
  }

  #focusAfter = null;

  /** Show other numbers of rows, around the first one that is seen. */
  resize(size) {
    this.#move({ size, page: Math.floor(((this.view.page - 1) * this.view.size) / size || 0) + 1 });
  }

  clear() {
    this.change({ ...Object.fromEntries(FILTERS.map((name) => [name, START[name]])), sort: this.wrong.length ? START.sort : this.view.sort });
  }

  removeChip(chip, place) {
    const buttons = this.renderRoot.querySelectorAll(".chips button.icon");
    this.#focus = buttons.length > 1 ? `.chip:nth-of-type(${Math.max(1, Math.min(place + 1, buttons.length - 1))}) button` : "#search";
    this.change(chip.without);
  }

  /** Take back what the server or the viewer refused. */
  removeWrong(names) {
    const fields = { page_size: "size" };
    const reset = Object.fromEntries(names.map((name) => fields[name] || name).filter((name) => name in START).map((name) => [name, this.#start[name]]));
    if ("from" in reset || "to" in reset) {
      Object.assign(reset, { from: "", to: "", period: "" });
      this.timed = false;
    }
    this.change({ ...reset, pin: "" });
  }

  setZone(zone) {
    // Days end at other moments, later perhaps than what is read.
    this.#move({ zone }, { again: isDay(this.view.to) });
    if (this.following.on) this.following.begin(this.view);
  }

  setTimed(timed) {
    this.timed = timed;
    const bounds = boundsWith(this.view, timed);
    if (this.view.from || this.view.to || (timed && this.view.period)) this.change(bounds);
    else this.requestUpdate();
  }

  chooseActions(ids, on) {
    const chosen = this.chosenActions();
    for (const id of ids) on ? chosen.add(id) : chosen.delete(id);
    const known = (this.catalogue || []).flatMap(({ actions }) => actions.map(({ id }) => id));
    this.change({ category: [], action: [...known.filter((id) => chosen.has(id)), ...[...chosen].filter((id) => !known.includes(id))] });
  }

  /** The ids of the actions that the filters choose. */
  chosenActions() {
    const { action, category } = this.view;
    const within = (this.catalogue || []).filter(({ id }) => category.includes(id)).flatMap(({ actions }) => actions.map(({ id }) => id));
    if (!category.length) return new Set(action);
    return new Set(action.length ? action.filter((id) => within.includes(id)) : within);
  }

  categoryLabel(id) {
    return (this.catalogue || []).find((category) => category.id === id)?.label || id;
  }

  find(text) {
    this.found = text;
    this.requestUpdate();
  }

  #readAddress() {
    const given = this.urlState === "query" ? location.search : location.hash.slice(1);
    const { view, wrong } = readView(new URLSearchParams(given), this.#start);
    clearTimeout(this.#typing);
    // Back and Forward between pages of one question stay with what is being read.
    const same = [...FILTERS, "pin"].every((name) => String(view[name]) === String(this.view[name]));
    Object.assign(this, { view, wrong, text: null, opened: new Map() });
    this.timed = [view.from, view.to].some((value) => value && !isDay(value));
    this.following.end();
    this.#openLinked();
    this.#read({ pin: view.pin || (same ? this.reading.pin : "") });
  }

  #address(view) {
    const url = new URL(location.href);
    const own = viewParameters(view, this.#start);
    if (this.urlState === "hash") url.hash = own;
    else {
      for (const name of OWN) url.searchParams.delete(name);
      for (const [name, value] of own) url.searchParams.append(name, value);
    }
    return url.href;
  }

  #keepAddress(push) {
    this.timed = [this.view.from, this.view.to].some((value) => value && !isDay(value)) || (this.timed && !this.view.period);
    this.#tell("view-changed", { parameters: String(viewParameters(this.view, this.#start)) });
    if (this.urlState === "none") return;
    const address = this.#address(this.view);
    if (address === location.href) return;
    if (push) {
      history.pushState(null, "", address);
      this.#typedFrom = null;
    } else history.replaceState(history.state, "", address);
  }

  viewLink() {
    return this.#address(absolute(this.view, this.reading.pin));
  }

  entryLink(id) {
    return this.#address({ ...this.#start, entry: id });
  }

  // Reading

  #read(options) {
    this.opened = new Map([...this.opened].filter(([id]) => this.reading.answer?.items.some((item) => item.id === id)));
    this.marked = new Set();
    this.requestUpdate();
    this.reading.read(this.view, options);
  }

  /** Read the same again. */
  refresh() {
    if (!this.#started) return;
    if (this.following.on) this.reading.read(this.view, {});
    else this.#read({ pin: this.view.pin || this.reading.pin });
  }

  retry() {
    this.wrong = [];
    this.#openLinked();
    this.refresh();
  }

  /** Read from the newest on. */
  renew() {
    this.#focusAfter = ".more";
    this.#move({ pin: "", page: 1 }, { again: true });
  }

  /** Called by Reading when a page came. */
  wasRead() {
    const { answer, view } = this.reading;
    if (!this.catalogue) this.#readCatalogue();
    this.#draw(performance.now() - this.#typedAt < TYPING ? SCREENFUL : Infinity);
    this.timeline.update();
    const total = this.t.entries(answer.total, number(answer.total, this.formats));
    // The status says the total; where that is the same as before, the rest says that something happened.
    if (total === this.#total && !this.following.on) this.said = `${this.t.pageOf(number(answer.page, this.formats), number(Math.max(answer.pages, 1), this.formats))}, ${this.t.sorted[view.sort]}`;
    else this.said = "";
    this.#total = total;
    if (this.#focusAfter) [this.#focus, this.#focusAfter] = [this.#focusAfter, null];
    this.#tell("loaded", { total: answer.total, page: answer.page, pages: answer.pages });
  }

  #draw(rows) {
    this.rows = rows;
    this.requestUpdate();
    // Once the next frame was painted; unless another answer came meanwhile.
    if (rows < this.view.size) requestAnimationFrame(() => setTimeout(() => this.rows === rows && this.#draw(rows + SCREENFUL)));
  }

  #total = "";

  /** Called where a question has no answer. */
  failed(problem) {
    this.#tell("problem", { name: problem.name, status: problem.status, requestId: problem.requestId });
    if (panels.isClosed(problem)) {
      this.following.end();
      this.reading.stop();
      Object.assign(this.reading, { problem, answer: null, pin: "" });
      Object.assign(this, { opened: new Map(), linked: null });
      this.requestUpdate();
    }
  }

  async #readCatalogue() {
    this.catalogue = [];
    try {
      this.catalogue = (await this.client.get("v1/actions", "")).body.categories;
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      // Asked again with the next page.
      this.catalogue = null;
    }
    this.requestUpdate();
  }

  // Entries

  toggle(id) {
    if (this.opened.delete(id)) this.requestUpdate();
    else this.open(id);
  }

  async open(id) {
    this.following.pause();
    this.opened.set(id, { id });
    this.requestUpdate();
    this.#tell("entry-opened", { id });
    const found = await this.#entry(id);
    if (this.opened.has(id)) this.opened.set(id, found);
    this.requestUpdate();
  }

  async #entry(id) {
    try {
      // Whatever else an address says is a way to another answer.
      if (!/^[\da-f-]{36}$/.test(id)) throw new Problem("not-found", "");
      return { id, entry: (await this.client.get(`v1/events/${encodeURIComponent(id)}`, "")).body };
    } catch (error) {
      if (!(error instanceof Problem)) throw error;
      return { id, problem: error };
    }
  }

  async #openLinked() {
    const { entry } = this.view;
    this.linked = entry ? { id: entry } : null;
    if (!entry) return;
    const found = await this.#entry(entry);
    if (this.view.entry !== entry) return;
    this.linked = panels.isClosed(found.problem) ? null : found;
    this.requestUpdate();
  }

  /** A button that copies what `text` gives. */
  copier(key, label, text) {
    const copy = async () => {
      try {
        await navigator.clipboard.writeText(text());
        this.copied = key;
      } catch {
        // A page without the right to: the reader may copy it by hand.
        this.copied = `${key} ${text()}`;
      }
      this.requestUpdate();
      if (this.copied === key) setTimeout(() => ((this.copied = this.copied === key ? "" : this.copied), this.requestUpdate()), COPIED);
    };
    const byHand = this.copied.startsWith(`${key} `);
    return html`<button type="button" class="copy" @click=${copy}>${this.copied === key ? this.t.copied : label}</button>
      ${byHand ? html`<label class="by-hand">${this.t.copyYourself} <input readonly .value=${this.copied.slice(key.length + 1)} @focus=${(event) => event.target.select()}></label>` : nothing}`;
  }

  // Live

  setLive(on) {
    this.following.end();
    if (!on) {
      this.refresh();
      return;
    }
    this.#move({ sort: "-timestamp", page: 1, pin: "" }, { again: true });
    this.following.begin(this.view);
  }

  resumeLive() {
    this.opened = new Map();
    this.#focus = ".switch.live";
    this.following.resume();
    this.refresh();
  }

  // Export

  async exportCsv() {
    if (this.exporting?.busy || isRefused(this)) return;
    this.closeExport();
    const cancelling = new AbortController();
    const state = (this.exporting = { busy: true, rows: 0, of: 0, cancelling });
    this.requestUpdate();
    const parameters = filterParameters(this.view, this.view.pin || this.reading.pin);
    parameters.set("sort", this.view.sort);
    parameters.set("tz", zoneName(this.view.zone));
    try {
      const result = await download(this.client, parameters, cancelling.signal, (rows, of) => {
        Object.assign(state, { rows, of });
        this.requestUpdate();
      });
      save(result.blob, result.name);
      delete result.blob;
      Object.assign(state, { busy: false, result });
      this.#tell("exported", { name: result.name, rows: result.rows, total: result.total });
    } catch (error) {
      const cancelled = cancelling.signal.aborted;
      if (!cancelled && !(error instanceof Problem)) throw error;
      Object.assign(state, { busy: false, cancelled, problem: error });
      if (!cancelled) this.#exportFailed(state, error);
    }
    this.requestUpdate();
  }

  #exportFailed(state, problem) {
    this.#tell("problem", { name: problem.name, status: problem.status, requestId: problem.requestId });
    if (panels.isClosed(problem) && problem.name !== "forbidden") this.reading.problem = problem;
    if (problem.passing) state.stop = countDown(problem, (seconds) => (state.countdown = seconds, this.requestUpdate()), () => this.exportCsv());
  }

  cancelExport() {
    this.exporting?.cancelling.abort();
  }

  closeExport() {
    this.exporting?.stop?.();
    this.exporting = null;
    this.requestUpdate();
  }

  /** Somebody gave a token: it is used from now on, and told to the page, which may keep it. */
  signIn(token) {
    const again = token === this.token;
    this.#tell("signed-in", { token });
    this.token = token;
    this.reading.problem = null;
    if (again) this.refresh();
  }

  render() {
    const { t, reading, view } = this;
    if (panels.isClosed(reading.problem)) return html`<div class="log" lang=${this.formats}>${panels.closed(this)}</div>`;
    const { answer } = reading;
    return html`<div class="log" lang=${this.formats}>
      <div class="thin ${reading.slow && answer ? "shown" : ""}" aria-hidden="true"></div>
      ${toolbar(this)} ${chips(this)} ${panels.trouble(this)} ${panels.exporting(this)} ${panels.linked(this)} ${timeline(this)}
      <div part="status" class="status">
        <bdi role="status" aria-atomic="true">${answer ? t.entries(answer.total, number(answer.total, this.formats)) : nothing}</bdi>
        <span class="muted">${t.sorted[view.sort] || nothing}</span>
        <span class="hidden" aria-live="polite">${this.said}</span>
        ${limitNote(this)}
        <span class="space"></span>
        ${this.urlState === "none" ? nothing : this.copier("view", t.copyLink, () => this.viewLink())}
        <span class="muted">${t.zone(zoneName(view.zone))}</span>
        ${toggle(t.utc, zoneName(view.zone) === "UTC", zoneName("local") === "UTC" ? nothing : () => this.setZone(view.zone === "utc" ? "local" : "utc"), "utc")}
      </div>
      <div aria-live="polite">${panels.news(this)}</div> ${table(this)} ${panels.none(this)} ${pager(this)}
    </div>`;
  }
}

if (!customElements.get("audit-log")) customElements.define("audit-log", AuditLog);
