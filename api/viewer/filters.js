// What is asked for: the toolbar, the menu of actions, and a chip for each filter that is applied.

import { html, live, nothing, repeat } from "./vendor/lit.js";
import { PERIODS, bound, day, exactTime, firstDay, inputValue, isDay, number, startOf } from "./dates.js";
import { visible } from "./symbols.js";
import { ICONS } from "./table.js";
import { applied } from "./view.js";

// Characters that the API takes.
export const LONGEST_SEARCH = 256;

export function toolbar(host) {
  const { t, view } = host;
  return html`<div part="toolbar" class="toolbar" role="group" aria-label=${t.table}>
    <input type="search" part="search" id="search" aria-label=${t.names.q} placeholder=${t.searchHint} maxlength=${LONGEST_SEARCH}
      autocomplete="off" spellcheck="false" .value=${live(host.text ?? view.q)}
      @input=${(event) => event.isComposing || host.type(event.target.value)} @compositionend=${(event) => host.type(event.target.value)}
      @change=${(event) => host.typed(event.target.value)}>
    ${actionMenu(host)} ${period(host)}
    <span class="dates">${dateInput(host, "from")}<span aria-hidden="true">–</span>${dateInput(host, "to")}
      <button type="button" class="icon" aria-label=${t.timed} title=${t.timed} aria-pressed=${String(host.timed)} @click=${() => host.setTimed(!host.timed)}>◷</button>
    </span>
    <span class="space"></span>
    ${toggle(t.live, host.following.on, () => host.setLive(!host.following.on), "live")}
    <button type="button" class="primary" part="export" aria-disabled=${String(!!host.exporting?.busy || isRefused(host))} @click=${() => host.exportCsv()}>${t.exporting}</button>
  </div>`;
}

/** A switch; where `change` is `nothing` it stays as it is. */
export const toggle = (label, on, change, name) => html`<button type="button" role="switch" class="switch ${name}" aria-checked=${String(on)} aria-disabled=${change === nothing ? "true" : nothing} @click=${change}
  ><span class="knob" aria-hidden="true"></span>${label}</button>`;

function period(host) {
  const { t, view } = host;
  const own = !view.period && (view.from || view.to);
  const change = (event) => event.target.value !== "own" && host.change({ period: event.target.value, from: "", to: "" });
  return html`<select aria-label=${t.names.period} class="period" .value=${live(own ? "own" : view.period)} @change=${change}>
    ${["", ...PERIODS].map((name) => html`<option value=${name} ?selected=${!own && view.period === name}>${t.periods[name]}</option>`)}
    <option value="own" ?hidden=${!own} ?selected=${own}>${t.periods.own}</option>
  </select>`;
}

function dateInput(host, name) {
  const { t, view } = host;
  const value = name === "from" && view.period ? firstDay(view.period, view.zone) : view[name];
  const change = (event) => {
    if (!event.target.validity.valid) return;
    const start = view.period ? firstDay(view.period, view.zone) : view.from;
    host.change({ period: "", from: start, [name]: bound(event.target.value, view.zone) });
  };
  return html`<input type=${host.timed ? "datetime-local" : "date"} step=${host.timed ? 1 : nothing} aria-label=${t.names[name]} min=${host.timed ? "1970-01-01T00:00" : "1970-01-01"}
    .value=${inputValue(value, view.zone, host.timed, name === "to")} @change=${change}>`;
}

/** The bounds of a view with times, or as whole days. */
export function boundsWith(view, timed) {
  const from = view.period ? firstDay(view.period, view.zone) : view.from;
  if (timed) {
    const instant = (value, later) => (isDay(value) ? startOf(value, view.zone, later).toISOString() : value);
    return { period: "", from: instant(from, 0), to: instant(view.to, 1) };
  }
  return { period: view.period, from: inputValue(view.period ? "" : from, view.zone, false), to: inputValue(view.to, view.zone, false, true) };
}

// The menu of actions

function actionMenu(host) {
  const { t } = host;
  const chosen = host.chosenActions();
  return html`<button type="button" class="menu" popovertarget="actions" aria-haspopup="dialog" aria-describedby=${chosen.size ? "chosen" : nothing}
      >${t.names.action}${chosen.size ? html` <span class="count" id="chosen" aria-hidden="true" aria-label=${t.chosen(chosen.size)}>${chosen.size}</span>` : nothing}<span aria-hidden="true">▾</span></button>
    <div popover id="actions" class="popover" role="dialog" aria-label=${t.findAction}
      @toggle=${({ target, newState }) => newState === "open" && target.querySelector("input").focus()}
      @beforetoggle=${({ target, newState }) => newState === "closed" && target.matches(":focus-within") && target.previousElementSibling.focus()}>
      <div class="find"><input type="text" autocomplete="off" placeholder=${t.findAction} aria-label=${t.findAction} @input=${(event) => host.find(event.target.value)} .value=${live(host.found)}></div>
      <div class="groups">${menuGroups(host, chosen)}</div>
    </div>`;
}

function menuGroups(host, chosen) {
  const { t } = host;
  const wanted = host.found.trim().toLowerCase();
  const found = (category) =>
    category.actions.filter((action) => !wanted || `${category.label} ${action.label} ${action.id}`.toLowerCase().includes(wanted));
  const groups = (host.catalogue || []).map((category) => ({ ...category, actions: found(category) })).filter(({ actions }) => actions.length);
  if (!groups.length) return html`<p class="muted">${host.catalogue ? t.noAction : t.loading}</p>`;
  const box = (label, ids, tone) => {
    const on = ids.filter((id) => chosen.has(id)).length;
    return html`<label class=${tone || "heading"}><input type="checkbox" .checked=${live(on === ids.length)} .indeterminate=${live(on > 0 && on < ids.length)}
      @change=${(event) => host.chooseActions(ids, event.target.checked)}>${tone ? html`<span class="icon" aria-hidden="true">${ICONS[tone]}</span>` : nothing}${label}</label>`;
  };
  return repeat(groups, ({ id }) => id, (group) => html`<div role="group" aria-label=${group.label}>
    ${box(group.label, group.actions.map(({ id }) => id))}
    ${group.actions.map((action) => box(action.label, [action.id], action.tone))}
  </div>`);
}

// Chips

/** What is applied: `{ name, text, without }`, where `without` are the changes that take it away. */
export function chipsOf(host, view = host.view) {
  const { t } = host;
  return applied(view).flatMap((name) => {
    if (name === "action") return actionChips(host, view);
    if (name === "category") return view.category.map((id) => ({ name, text: host.categoryLabel(id), without: { category: view.category.filter((one) => one !== id) } }));
    return [{ name, text: chipText(host, name, view[name], t), without: { [name]: "" } }];
  });
}

function chipText(host, name, value, t) {
  if (name === "period") return t.periods[value];
  if (name === "outcome") return t.outcomes[value] || visible(value);
  if (name !== "from" && name !== "to") return visible(value);
  if (isDay(value)) return day(value, host.formats);
  return Number.isNaN(Date.parse(value)) ? visible(value) : exactTime(value, host.formats, host.view.zone);
}

// All actions of a category are one chip.
function actionChips(host, view) {
  const left = new Set(view.action);
  const chips = [];
  const take = (ids, text) => {
    for (const id of ids) left.delete(id);
    chips.push({ name: "action", text, without: { action: view.action.filter((id) => !ids.includes(id)) } });
  };
  for (const { label, actions } of host.catalogue || []) {
    const ids = actions.map(({ id }) => id);
    if (ids.length > 1 && ids.every((id) => left.has(id))) take(ids, label);
    for (const action of actions) if (left.has(action.id)) take([action.id], action.label);
  }
  for (const id of left) take([id], visible(id));
  return chips;
}

/** Whether the server refused the view: there are no pages of it, and no CSV. */
export const isRefused = ({ reading }) => reading.problem?.name === "invalid-query";

/** Whether a panel says what is wrong with the view, or that nothing matches; it has a button that clears all. */
export const isInvalid = (host) => isRefused(host) || host.wrong.length > 0;
export const isEmpty = ({ reading }) => !reading.problem && reading.answer?.total === 0;

export function chips(host) {
  const { t } = host;
  const all = chipsOf(host);
  if (!all.length) return nothing;
  const named = ({ name, text }) => `${t.names[name]}: ${text}`;
  return html`<div part="chips" class="chips" role="group" aria-label=${t.noMatchHint}>
    ${repeat(all, named, (chip, place) => html`<span class="chip"><span class="muted">${t.names[chip.name]}</span> <bdi>${chip.text}</bdi><button type="button" class="icon"
      aria-label=${t.removeFilter(named(chip))} @click=${() => host.removeChip(chip, place)}><span aria-hidden="true">×</span></button></span>`)}
    ${isInvalid(host) || isEmpty(host) ? nothing : html`<button type="button" class="link" @click=${() => host.clear()}>${t.clear}</button>`}
  </div>`;
}

export const limitNote = (host) =>
  host.reading.answer && host.reading.limit && host.reading.answer.total > host.reading.limit
    ? html`<span class="muted note">${host.t.exportLimit(number(host.reading.limit, host.formats))}</span>`
    : nothing;
