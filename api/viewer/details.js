// One entry, whole: its values, what else the application said, and what was wrong with it.

import { html, nothing } from "./vendor/lit.js";
import { exactTime } from "./dates.js";
import { LONGEST_SEARCH } from "./filters.js";
import { visibleLines } from "./symbols.js";
import { badge } from "./table.js";

/** `state` is `{ id, entry }`, `{ id, problem }`, or `{ id }` while it is being loaded. */
export function details(host, state) {
  const { t } = host;
  if (state.problem) return missing(host, state);
  if (!state.entry) return html`<p class="muted">${t.loading}</p>`;
  const { entry } = state;
  const names = t.names;
  const line = (name, content, only = nothing) =>
    html`<div class="line"><dt>${names[name]}</dt><dd>${content} ${only}</dd></div>`;
  const only = (name, value, changes) =>
    value && changes
      ? html`<button type="button" class="small" aria-label="${t.only}: ${names[name]} ${value.slice(0, 80)}"
          @click=${() => host.change({ ...changes, entry: "" })}>${t.only}</button>`
      : nothing;
  const text = (value) => (value ? html`<bdi class="value">${visibleLines(value)}</bdi>` : html`<span class="muted">${t.empty}</span>`);
  const moment = (value) => {
    const [shown, utc] = [host.view.zone, "utc"].map((zone) => exactTime(value, host.formats, zone));
    return html`<time datetime=${value}>${shown}</time>${shown === utc ? nothing : html` <span class="muted">${utc}</span>`}`;
  };
  return html`<div part="details" class="whole">
    <dl>
      ${line("timestamp", moment(entry.timestamp))}
      ${line("received", moment(entry.received))}
      ${line("action", html`${badge(entry, t)} <code>${entry.action}</code>`, only("action", entry.action, { action: [entry.action], category: [] }))}
      ${line("category", host.categoryLabel(entry.category), only("category", entry.category, { category: [entry.category], action: [] }))}
      ${line("outcome", t.outcomes[entry.outcome], only("outcome", entry.outcome, { outcome: entry.outcome }))}
      ${line("target", text(entry.target), only("target", entry.target, phrase(entry.target)))}
      ${line("detail", text(entry.detail), only("detail", entry.detail, phrase(entry.detail)))}
      ${line("user", text(entry.user), only("user", entry.user, { user: entry.user }))}
      ${line("ip", text(entry.ip), only("ip", entry.ip, { ip: entry.ip }))}
      ${line("id", html`<code class="value">${entry.id}</code>`)}
      ${entry.problems.length ? line("problems", html`<ul>${entry.problems.map((problem) => html`<li>${visibleLines(problem)}</li>`)}</ul>`) : nothing}
      ${Object.keys(entry.context).length ? line("context", tree(entry.context)) : nothing}
    </dl>
    <p class="actions">
      ${host.copier("entry" + entry.id, t.copyEntry, () => JSON.stringify(entry, null, 2))}
      ${host.urlState === "none" ? nothing : host.copier("link" + entry.id, t.linkEntry, () => host.entryLink(entry.id))}
    </p>
  </div>`;
}

function missing(host, { id, problem }) {
  const { t } = host;
  if (problem.name === "not-found") return html`<p><strong>${t.notFound}</strong> ${t.notFoundHint}</p>`;
  return html`<p><strong>${t.failed}</strong> ${problem.detail} ${problem.requestId ? html`<small>${t.request(problem.requestId)}</small>` : nothing}
    <button type="button" @click=${() => host.open(id)}>${t.retry}</button></p>`;
}

/** A search for a value as a phrase; null where it has nothing to search for. A long one is cut at a word, if it has any. */
function phrase(value) {
  const words = value.replaceAll('"', " ").match(/[\p{L}\p{N}\p{M}]+[^\p{L}\p{N}\p{M}]*/gu) || [];
  let text = "";
  for (const word of words) {
    if (text.length + word.length > LONGEST_SEARCH - 2) break;
    text += word;
  }
  if (text) return { q: `"${text.trim()}"` };
  return words.length ? { q: words[0].slice(0, LONGEST_SEARCH - 1) } : null;
}

function tree(value) {
  if (Array.isArray(value)) return html`<ol start="0">${value.map((one) => html`<li>${tree(one)}</li>`)}</ol>`;
  if (value === null || typeof value !== "object") {
    const text = typeof value === "string" ? value : JSON.stringify(value);
    return html`<bdi class="value">${visibleLines(text)}</bdi>`;
  }
  return html`<dl class="tree">${Object.entries(value).map(
    ([name, one]) => html`<div><dt><bdi>${visibleLines(name)}</bdi></dt><dd>${tree(one)}</dd></div>`,
  )}</dl>`;
}
