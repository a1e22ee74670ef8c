// The table: six columns, a badge for each action, the whole entry below its row; and its pages.

import { html, nothing, repeat } from "./vendor/lit.js";
import { number, time } from "./dates.js";
import { details } from "./details.js";
import { shortened } from "./symbols.js";
import { SIZES } from "./view.js";

export const ICONS = { green: "+", yellow: "~", red: "×", accent: "•" };
// Numbers on each side of the current page.
const BESIDE = 2;
const COLUMNS = ["timestamp", "action", "target", "detail", "user", "ip"];
const VALUES = COLUMNS.slice(2);
const SORTED = { timestamp: ["-timestamp", "timestamp"], action: ["action", "-action"] };

// That it failed is a mark without text: the badge's text is the action's label.
export const badge = (item, t) => html`<span part="badge" class="badge ${item.tone}" title=${item.action}
  >${item.outcome === "failure" ? html`<span class="failed red" role="img" aria-label=${t.unsuccessful} title=${t.unsuccessful}></span>` : nothing}<span class="icon" aria-hidden="true">${ICONS[item.tone]}</span>${item.label}</span>`;

export function table(host) {
  const { t, reading } = host;
  const items = reading.answer ? reading.answer.items : [];
  return html`<table role="table" part="table" aria-label=${t.table} aria-busy=${String(reading.loading || items.length > host.rows)}>
    <thead role="rowgroup"><tr role="row">${COLUMNS.map((column) => heading(host, column))}</tr></thead>
    <tbody role="rowgroup" @click=${(event) => clicked(host, event)}>
      ${reading.answer || reading.problem
        ? repeat(items.slice(0, host.rows), (item) => item.id, (item) => row(host, item))
        : Array.from({ length: Number(host.view.size) || 25 }, skeleton)}
    </tbody>
  </table>`;
}

function heading(host, column) {
  const { t } = host;
  const orders = SORTED[column];
  if (!orders) return html`<th role="columnheader" scope="col" class=${column}>${t.names[column]}</th>`;
  const place = orders.indexOf(host.view.sort);
  const descending = host.view.sort.startsWith("-");
  const next = orders[place === 0 ? 1 : 0];
  return html`<th role="columnheader" scope="col" class=${column}
      aria-sort=${place < 0 ? "none" : descending ? "descending" : "ascending"}>
    <button type="button" class="sort" @click=${() => host.change({ sort: next })}
      >${t.names[column]}<span class="arrow" aria-hidden="true">${place < 0 ? "↕" : descending ? "↓" : "↑"}</span></button>
  </th>`;
}

function row(host, item) {
  const { t } = host;
  const { names } = t;
  const opened = host.opened.get(item.id);
  return html`<tr role="row" part="row" data-id=${item.id} class="entry ${opened ? "opened" : ""} ${host.marked.has(item.id) ? "new" : ""}">
      <td role="cell" class="timestamp" data-label=${names.timestamp}><button type="button" class="more" aria-label=${t.details} aria-expanded=${String(!!opened)}
        ><span aria-hidden="true">›</span></button><time datetime=${item.timestamp}>${time(item.timestamp, host.formats, host.view.zone)}</time></td>
      <td role="cell" class="action" data-label=${names.action}>${badge(item, t)}</td>
      ${VALUES.map((column) => html`<td role="cell" class=${column} data-label=${names[column]}><bdi>${shortened(item[column])}</bdi></td>`)}
    </tr>
    ${opened
      ? html`<tr role="row" class="details"><td role="cell" colspan="6">${details(host, opened)}</td></tr>`
      : nothing}`;
}

const skeleton = () => html`<tr role="row" class="skeleton" aria-hidden="true"><td role="cell" colspan="6"><span></span></td></tr>`;

function clicked(host, event) {
  const line = event.target.closest("tr.entry");
  const button = event.target.closest("button.more");
  // A click that ends a selection of text is none.
  if (line && (button || !String(getSelection()))) host.toggle(line.dataset.id);
}

// Pages: any of them, however deep.

export function pager(host) {
  const { t, view } = host;
  const { answer } = host.reading;
  const pages = answer ? Math.max(answer.pages, 1) : 1;
  const page = answer ? answer.page : 1;
  const past = page > pages;
  // `aria-disabled` and not `disabled`: the focus stays where it was on the last page.
  const step = (label, glyph, to, off, cursor) => html`<button type="button" class="icon step" aria-label=${label} title=${label} aria-disabled=${String(off)}
    @click=${() => off || host.turn(to, cursor)}><span aria-hidden="true">${glyph}</span></button>`;
  const from = Math.max(1, Math.min(page - BESIDE, pages - 2 * BESIDE));
  const numbers = past ? [] : Array.from({ length: Math.min(2 * BESIDE + 1, pages) }, (_, place) => from + place);
  return html`<nav part="pager" class="pager" aria-label=${t.pages}>
    ${step(t.first, "«", 1, page === 1)}
    ${step(t.previous, "‹", Math.min(page - 1, pages), page === 1, past ? null : answer?.previous)}
    ${repeat(numbers, (one) => one, (one) => html`<button type="button" class="number" aria-label=${t.page(number(one, host.formats))} aria-current=${one === page ? "page" : nothing}
      @click=${() => one === page || host.turn(one)}>${number(one, host.formats)}</button>`)}
    ${step(t.next, "›", page + 1, page >= pages, answer?.next)}
    ${step(t.last, "»", pages, page >= pages && !past)}
    <input type="number" class="goto" min="1" max=${pages} step="1" inputmode="numeric" aria-label=${t.goTo} placeholder=${t.goTo} @change=${(event) => goTo(host, event.target, pages)}>
    <span class="space"></span>
    <label class="size">${t.size} <select aria-label=${t.size} @change=${(event) => host.resize(Number(event.target.value))}>
      ${SIZES.map((size) => html`<option value=${size} ?selected=${size === view.size}>${size}</option>`)}
    </select></label>
  </nav>`;
}

function goTo(host, input, pages) {
  const page = Math.trunc(input.valueAsNumber);
  input.value = "";
  if (page >= 1) host.turn(Math.min(page, pages));
}
