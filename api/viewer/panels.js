// What is said where rows cannot be shown, or not as they were asked for.

import { html, nothing } from "./vendor/lit.js";
import { exactTime, number, time } from "./dates.js";
import { details } from "./details.js";
import { chipsOf, isEmpty, isInvalid } from "./filters.js";

const panel = (kind, title, content = nothing) => html`<div part="panel" class="panel ${kind}"><strong>${title}</strong>${content}</div>`;
const button = (label, act, kind = "") => html`<button type="button" class=${kind} @click=${act}>${label}</button>`;
// What stands between backticks is a command.
const said = (text) => text.split(/`([^`]+)`/).map((part, place) => (place % 2 ? html`<kbd>${part}</kbd>` : part));
const hint = (text) => (text ? html`<p>${said(text)}</p>` : nothing);

/** Whether nothing but a panel is to be seen: nobody is signed in, or nobody may look. */
export const isClosed = (problem) => !!problem && ["unauthorized", "forbidden", "plan-required"].includes(problem.name);

/** In place of everything. */
export function closed(host) {
  const { t } = host;
  const { problem } = host.reading;
  if (problem.name === "unauthorized") return host.getToken || host.session ? panel("closed", t.signedOut, html`${hint(t.expired)}${again(host)}`) : signIn(host);
  if (problem.name === "forbidden") return panel("closed", t.forbidden, html`${hint(problem.scope ? t.forbiddenHint(problem.scope) : problem.detail)}${request(host, problem)}${again(host)}`);
  return panel("closed", t.plan, html`${hint(t.planHint(new Intl.ListFormat(host.formats, { type: "disjunction" }).format(problem.plans)))}
    <p>${host.upgradeUrl ? html`<a class="primary" href=${host.upgradeUrl}>${t.upgrade}</a>` : nothing} ${again(host)}</p>`);
}

function signIn(host) {
  const { t } = host;
  const submit = (event) => {
    event.preventDefault();
    host.signIn(new FormData(event.target).get("token").trim());
  };
  return panel("closed", t.signedOut, html`${host.token ? html`<p class="bar red" role="alert">${t.tokenRefused}</p>` : nothing}${hint(t.signedOutHint)}
    <form @submit=${submit}><label>${t.token} <input name="token" type="password" autocomplete="off" required></label> <button type="submit" class="primary">${t.signIn}</button></form>`);
}

const again = (host) => button(host.t.retry, () => host.retry());
const request = (host, problem) => (problem.requestId ? html`<p class="muted"><small>${host.t.request(problem.requestId)}</small></p>` : nothing);

/** Above the rows: what went wrong with the last question. */
export function trouble(host) {
  const { t, reading } = host;
  const { problem } = reading;
  if (isInvalid(host)) return invalid(host);
  if (!problem) return reading.offline ? html`<div class="bar yellow" role="alert">${t.offline} ${asOf(host)}</div>` : nothing;
  const title = problem.name === "offline" ? t.offline : problem.status === 429 ? t.busy : problem.status === 503 ? t.down : t.failed;
  return html`<div part="problem" class="bar red" role="alert"><strong>${title}</strong>
    ${reading.answer ? html`<span>${asOf(host)}</span>` : nothing}
    ${reading.countdown > 0 ? html`<span aria-live="off">${t.retryIn(number(reading.countdown, host.formats))}</span>` : nothing}
    ${again(host)} ${problem.requestId ? html`<small>${t.request(problem.requestId)}</small>` : nothing}</div>`;
}

const asOf = (host) => (host.reading.at ? host.t.asOf(time(host.reading.at, host.formats, host.view.zone)) : nothing);

// A view that asks for what is not allowed: which part of it, and why.
function invalid(host) {
  const { t } = host;
  const errors = [...(host.reading.problem?.errors || []), ...host.wrong.map((parameter) => ({ parameter, detail: t.notAllowed }))];
  return html`<div part="problem" class="bar red" role="alert"><strong>${t.invalid}</strong>
    <ul>${errors.map(({ parameter, detail }) => html`<li><code>${parameter}</code>: ${said(detail)}</li>`)}</ul>
    ${button(t.removeThese, () => host.removeWrong(errors.map(({ parameter }) => parameter)), "primary")} ${button(t.clear, () => host.clear())}</div>`;
}

/** In place of the rows, where there are none. */
export function none(host) {
  const { t, reading } = host;
  const { answer } = reading;
  if (!answer || answer.items.length || reading.problem) return nothing;
  if (!isEmpty(host)) {
    const pages = number(answer.pages, host.formats);
    return panel("none", t.pastEnd(number(answer.page, host.formats), pages), html`<p>${button(t.toLast, () => host.turn(answer.pages), "primary")}</p>`);
  }
  // Of what has this answer: meanwhile something else may have been asked.
  const chips = chipsOf(host, reading.view);
  if (!chips.length) return panel("none", t.never, hint(t.neverHint));
  return panel("none", t.noMatch, html`
    <p class="muted">${t.noMatchHint} ${chips.map((chip) => html`<span class="applied">${t.names[chip.name]}: <bdi>${chip.text}</bdi></span> `)}</p>
    <p>${button(t.removeLast, () => host.removeChip(chips.at(-1), chips.length - 1), "primary")} ${button(t.clear, () => host.clear())}</p>`);
}

/** Above the rows: what is new, and whether the view stands still or moves. */
export function news(host) {
  const { t, reading, following } = host;
  if (following.on) {
    const said = following.paused ? t.livePaused : following.waiting ? t.liveWaiting : t.live;
    return html`<div part="news" class="bar ${following.paused ? "yellow" : "green"}"><span class="dot" aria-hidden="true"></span>${said}
      ${following.paused ? html`${following.unseen ? html`<strong>${t.fresh(following.unseen, number(following.unseen, host.formats))}</strong>` : nothing} ${button(t.resume, () => host.resumeLive(), "primary")}` : nothing}</div>`;
  }
  if (reading.fresh) {
    return html`<div part="news" class="bar news accent"><strong>${t.fresh(reading.fresh, number(reading.fresh, host.formats))}</strong> ${button(t.show, () => host.renew(), "primary")}</div>`;
  }
  if (host.view.pin) {
    return html`<div class="bar">${t.asOf(exactTime(new Date(Date.parse(host.view.pin) - 1), host.formats, host.view.zone))} ${button(t.backToNow, () => host.renew())}</div>`;
  }
  return nothing;
}

/** How an export is doing, or how it ended. */
export function exporting(host) {
  const { t } = host;
  const state = host.exporting;
  if (!state) return nothing;
  const shown = (value) => number(value, host.formats);
  if (state.busy) {
    return html`<div part="export-progress" class="bar"><progress aria-label=${t.exporting} max=${state.of || 1} .value=${state.rows}></progress>
      <span>${state.of ? t.exportProgress(shown(state.rows), shown(state.of)) : t.loading}</span> ${button(t.cancel, () => host.cancelExport())}</div>`;
  }
  const { problem, result } = state;
  const close = html`<button type="button" class="icon" aria-label=${t.close} @click=${() => host.closeExport()}><span aria-hidden="true">×</span></button>`;
  if (state.cancelled) return html`<div class="bar" role="alert">${t.exportCancelled} ${close}</div>`;
  if (result) {
    return html`<div class="bar" role="alert">${t.exportDone(result.name, shown(result.rows))} ${result.truncated ? t.exportCut(shown(result.rows), shown(result.total)) : nothing} ${close}</div>`;
  }
  const said = problem.name === "forbidden" ? t.exportForbidden : t.exportBroken;
  return html`<div class="bar red" role="alert"><strong>${said}</strong> ${problem.status === 429 || problem.status === 503 ? problem.detail : nothing}
    ${state.countdown ? html`<span aria-live="off">${t.retryIn(shown(state.countdown))}</span>` : nothing}
    ${problem.name === "forbidden" ? nothing : button(t.retry, () => host.exportCsv())} ${close}
    ${problem.requestId ? html`<small>${t.request(problem.requestId)}</small>` : nothing}</div>`;
}

/** The entry that a link names. */
export function linked(host) {
  if (!host.linked) return nothing;
  return html`<section part="linked" class="linked" aria-label=${host.t.linked}><h2>${host.t.linked}<button type="button" class="icon" aria-label=${host.t.close}
    @click=${() => host.closeLinked()}><span aria-hidden="true">×</span></button></h2>${details(host, host.linked)}</section>`;
}
