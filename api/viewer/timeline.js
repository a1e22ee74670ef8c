// Entries over time, stacked by tone. Dragging chooses a range, and so do two handles by keyboard.

import { html, nothing, svg } from "./vendor/lit.js";
import { Problem } from "./client.js";
import { dayOf, mark, number, startOf, zoneName } from "./dates.js";
import { filterParameters } from "./view.js";

// Pixels.
const HEIGHT = 56;
// Pixels that a span of time takes.
const NARROWEST = 7;
const MOST = 160;
const TONES = ["accent", "green", "yellow", "red"];
// Pixels, so that a finger meets it.
const GRIP = 24;
// Milliseconds after the last key until a choice counts.
const SETTLED = 600;

/** A reactive controller: the counts, and what of them is being chosen (`first` to `last`, edges of spans). */
export class Timeline {
  open = true;
  width = 0;
  answer = null;
  failed = false;
  text = false;
  first = 0;
  last = 0;
  pointed = -1;

  #asked = "";
  #asking = null;
  #from = -1;
  #settling = 0;
  #sizes = null;

  constructor(host) {
    this.host = host;
    host.addController(this);
  }

  hostConnected() {
    this.#sizes = new ResizeObserver(([{ contentRect }]) => this.#resized(Math.floor(contentRect.width)));
    this.#sizes.observe(this.host);
  }

  hostDisconnected() {
    this.#sizes.disconnect();
    this.#asking?.abort();
    clearTimeout(this.#settling);
    this.#asked = "";
  }

  /** Ask for the counts of what is read, where they are not those that are shown. */
  async update() {
    const { view, pin, answer } = this.host.reading;
    if (!this.open || !answer || this.width < 2 * NARROWEST) return;
    const parameters = filterParameters(view, pin);
    parameters.set("tz", zoneName(view.zone));
    parameters.set("buckets", Math.max(10, Math.min(MOST, Math.floor(this.width / NARROWEST))));
    // Entries that arrive late change the total, and so the counts.
    const asked = `${parameters} ${answer.total}`;
    if (asked === this.#asked) return;
    this.#asked = asked;
    this.#asking?.abort();
    const { signal } = (this.#asking = new AbortController());
    try {
      const { body } = await this.host.client.get("v1/events/histogram", parameters, signal);
      this.#from = -1;
      this.#set({ answer: body, failed: false, first: 0, last: body.buckets.length, pointed: -1 });
    } catch (error) {
      if (signal.aborted) return;
      if (!(error instanceof Problem)) throw error;
      this.#asked = "";
      this.#set({ failed: true });
    }
  }

  toggle() {
    this.#set({ open: !this.open });
    this.update();
  }

  toggleText() {
    this.#set({ text: !this.text });
  }

  /** The moment at an edge of the spans, in ms. */
  edge(place) {
    const { buckets } = this.answer;
    if (place < buckets.length) return Date.parse(buckets[place].start);
    return endOf(Date.parse(buckets.at(-1).start), this.answer.interval, this.host.reading.view.zone);
  }

  press(event) {
    if (event.button !== 0 || event.target.closest("[role=slider]")) return;
    this.#from = this.#place(event);
    event.currentTarget.setPointerCapture(event.pointerId);
  }

  move(event) {
    const place = this.#place(event);
    if (this.#from < 0) this.#set({ pointed: place });
    else this.#set({ pointed: place, first: Math.min(this.#from, place), last: Math.max(this.#from, place) + 1 });
  }

  release(event) {
    if (this.#from < 0) return;
    this.move(event);
    this.#from = -1;
    this.choose();
  }

  leave() {
    this.#set({ pointed: -1 });
  }

  cancel() {
    this.#from = -1;
    this.#reset();
  }

  /** A key on a handle: arrows move it by a span, page keys by ten, Home and End all the way. */
  key(event, handle) {
    const { length: all } = this.answer.buckets;
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10, Home: -all, End: all };
    clearTimeout(this.#settling);
    if (event.key === "Enter") this.choose();
    else if (event.key === "Escape") this.#reset();
    else if (event.key in steps) {
      event.preventDefault();
      const moved = this[handle] + steps[event.key];
      const within = handle === "first" ? [0, this.last - 1] : [this.first + 1, all];
      this.#set({ [handle]: Math.min(Math.max(moved, within[0]), within[1]) });
      this.#settling = setTimeout(() => this.choose(), SETTLED);
    }
  }

  choose() {
    clearTimeout(this.#settling);
    if (this.first === 0 && this.last === this.answer.buckets.length) return;
    const { zone } = this.host.view;
    const [from, end] = [this.edge(this.first), this.edge(this.last)];
    const days = !this.answer.interval.startsWith("PT");
    this.host.change(
      days
        ? { period: "", from: dayOf(new Date(from), zone), to: dayOf(new Date(end - 1), zone) }
        : { period: "", from: new Date(from).toISOString(), to: new Date(end).toISOString() },
    );
  }

  #reset() {
    if (this.answer) this.#set({ first: 0, last: this.answer.buckets.length });
  }

  #place(event) {
    const box = event.currentTarget.getBoundingClientRect();
    const all = this.answer.buckets.length;
    return Math.min(Math.max(Math.floor(((event.clientX - box.left) / box.width) * all), 0), all - 1);
  }

  #resized(width) {
    if (width === this.width) return;
    this.#set({ width });
    this.update();
  }

  #set(changes) {
    Object.assign(this, changes);
    this.host.requestUpdate();
  }
}

/** When the span that begins at `start` ends, in ms: an ISO 8601 duration of one unit later, by the days of the zone. */
function endOf(start, interval, zone) {
  const [, time, amount, unit] = /^P(T?)(\d+)([SMHDY])$/.exec(interval);
  if (time) return start + amount * { S: 1000, M: 60_000, H: 3_600_000 }[unit];
  const [year, month, date] = dayOf(new Date(start), zone).split("-").map(Number);
  const later = { Y: 0, M: 0, D: 0, [unit]: Number(amount) };
  return startOf(`${year + later.Y}-${month + later.M}-${date + later.D}`, zone).getTime();
}

export function timeline(host) {
  const { t } = host;
  const state = host.timeline;
  return html`<section part="timeline" class="timeline" aria-label=${t.timeline}>
    <p class="head"><button type="button" class="link" aria-expanded=${String(state.open)} @click=${() => state.toggle()}><span class="turn" aria-hidden="true">›</span> ${t.timeline}</button>
      ${state.open && state.answer?.buckets.length ? html`<span class="pointed muted" aria-hidden="true">${pointed(host)}</span>
        <button type="button" class="link" aria-pressed=${String(state.text)} @click=${() => state.toggleText()}>${t.asText}</button>` : nothing}</p>
    ${state.open ? (state.failed ? html`<p class="muted chart">${t.failed} <button type="button" @click=${() => state.update()}>${t.retry}</button></p>` : chart(host)) : nothing}
  </section>`;
}

const label = (host, place) => mark(host.timeline.edge(place), host.formats, host.view.zone, host.timeline.answer.interval);
const counted = (host, bucket) =>
  [number(bucket.count, host.formats), ...TONES.filter((tone) => bucket.tones[tone]).map((tone) => `${host.t.tones[tone]} ${number(bucket.tones[tone], host.formats)}`)].join(" · ");

function pointed(host) {
  const { t } = host;
  const { answer, pointed: place } = host.timeline;
  if (place < 0 || !answer.buckets[place]) return t.dragHint;
  return `${label(host, place)}: ${counted(host, answer.buckets[place])}`;
}

function chart(host) {
  const { t } = host;
  const { answer, width, first, last, text } = host.timeline;
  if (!answer || !answer.buckets.length || !width) return html`<div class="chart"></div>`;
  const { buckets } = answer;
  const most = Math.max(...buckets.map(({ count }) => count), 1);
  const step = width / buckets.length;
  const bars = buckets.map((bucket, place) => {
    let top = HEIGHT;
    return TONES.filter((tone) => bucket.tones[tone]).map((tone) => {
      const height = Math.max((bucket.tones[tone] / most) * (HEIGHT - 4), 1.5);
      top -= height;
      return svg`<rect class=${tone} x=${(place * step + 0.5).toFixed(1)} y=${top.toFixed(1)} width=${Math.max(step - 1.5, 1).toFixed(1)} height=${height.toFixed(1)}></rect>`;
    });
  });
  const chosen = first > 0 || last < buckets.length;
  return html`<div class="chart">
    <svg viewBox="0 0 ${width} ${HEIGHT}" height=${HEIGHT} width="100%" preserveAspectRatio="none" role="group" aria-label=${t.timelineOf(label(host, 0), label(host, buckets.length))}
      @pointerdown=${(event) => host.timeline.press(event)} @pointermove=${(event) => host.timeline.move(event)} @pointerup=${(event) => host.timeline.release(event)}
      @pointercancel=${() => host.timeline.cancel()} @pointerleave=${() => host.timeline.leave()}>
      <rect class="ground" x="0" y="0" width=${width} height=${HEIGHT}></rect>
      <g class="bars">${bars}</g>
      ${chosen ? svg`<rect class="off" x="0" y="0" width=${first * step} height=${HEIGHT}></rect><rect class="off" x=${last * step} y="0" width=${width - last * step} height=${HEIGHT}></rect>` : nothing}
      ${handle(host, "first", t.start, first, first * step, 0)} ${handle(host, "last", t.end, last, last * step, -1)}
    </svg>
    <p class="ends muted" aria-hidden="true"><span>${label(host, 0)}</span><span>${label(host, Math.floor(buckets.length / 2))}</span><span>${label(host, buckets.length)}</span></p>
    ${text ? html`<ol class="counts" tabindex="0" aria-label=${t.timeline}>${buckets.map((bucket, place) => (bucket.count ? html`<li>${label(host, place)}: ${counted(host, bucket)}</li>` : nothing))}</ol>` : nothing}
  </div>`;
}

// The grip lies inside the chart: half of one at an edge would be cut off.
function handle(host, name, title, place, at, side) {
  const { answer, width } = host.timeline;
  const start = Math.min(Math.max(at - GRIP / 2, 0), width - GRIP);
  const line = Math.min(Math.max(at + side, 1), width - 2);
  const { buckets } = answer;
  const beside = buckets[name === "first" ? place : place - 1];
  return svg`<g role="slider" tabindex="0" class="handle" aria-label=${title} aria-valuemin="0" aria-valuemax=${buckets.length} aria-valuenow=${place} aria-orientation="horizontal"
      aria-valuetext="${label(host, place)}: ${counted(host, beside)}" @keydown=${(event) => host.timeline.key(event, name)}>
    <rect class="grip" x=${start} y="0" width=${GRIP} height=${HEIGHT}></rect>
    <rect class="edge" x=${line - 1} y="0" width="3" height=${HEIGHT}></rect><rect class="knob" x=${Math.min(Math.max(line - 4, 0), width - 9)} y=${HEIGHT / 2 - 9} width="9" height="18" rx="3"></rect>
  </g>`;
}
