// How it looks. A page changes it by `--audit-*` custom properties, and by `::part`.

import { css } from "./vendor/lit.js";

export const styles = css`
  :host {
    --_surface: var(--audit-surface, light-dark(#ffffff, #0d1117));
    --_raised: var(--audit-raised, light-dark(#f6f8fa, #161b22));
    --_text: var(--audit-text, light-dark(#1f2328, #e6edf3));
    --_muted: var(--audit-muted, light-dark(#59636e, #9198a1));
    --_line: var(--audit-line, light-dark(#d1d9e0, #30363d));
    --_control: light-dark(#818b98, #6e7681);
    --_accent: var(--audit-accent, light-dark(#0550ae, #a5d6ff));
    --_on-accent: var(--audit-on-accent, light-dark(#ffffff, #0d1117));
    --_radius: var(--audit-radius, 6px);
    --_font: var(--audit-font, system-ui, sans-serif);
    --_mono: var(--audit-mono, ui-monospace, "SF Mono", "DejaVu Sans Mono", monospace);
    container: audit-log / inline-size;
    display: block;
    color-scheme: light dark;
    accent-color: var(--_accent);
    background: var(--_surface);
    color: var(--_text);
    font: 14px/20px var(--_font);
    font-variant-numeric: tabular-nums;
    text-align: start;
  }
  :host([theme="light"]) { color-scheme: light; }
  :host([theme="dark"]) { color-scheme: dark; }
  :host([hidden]) { display: none; }

  /* Tones: on badges, bars, bars of the timeline */
  .green { --_tone: var(--audit-green, light-dark(#0f5323, #7ee787)); --_back: var(--audit-green-back, light-dark(#dafbe1, #12301c)); --_bar: light-dark(#2da44e, #3fb950); }
  .yellow { --_tone: var(--audit-yellow, light-dark(#6b4700, #f2cc60)); --_back: var(--audit-yellow-back, light-dark(#fff3c4, #37290b)); --_bar: light-dark(#d4a72c, #d29922); }
  .red { --_tone: var(--audit-red, light-dark(#a40e26, #ffa198)); --_back: var(--audit-red-back, light-dark(#ffebe9, #481417)); --_bar: light-dark(#cf222e, #f85149); }
  .accent { --_tone: var(--_accent); --_back: var(--audit-accent-back, light-dark(#ddf4ff, #0c2d6b)); --_bar: light-dark(#80b4ec, #316dca); }

  * { box-sizing: border-box; }
  [hidden] { display: none !important; }
  .log { position: relative; overflow-anchor: none; }
  .hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
  .muted { color: var(--_muted); }
  .space { flex: 1; }
  p, ol, ul, dl, dd { margin: 0; }
  code, kbd, .value { font-family: var(--_mono); font-size: 13px; }

  /* Controls */
  button, input, select, a.primary {
    font: inherit; color: inherit; background: var(--_surface); min-height: 32px; margin: 0; padding: 5px 10px;
    border: 1px solid var(--_control); border-radius: var(--_radius);
  }
  button, select, a.primary { cursor: pointer; }
  button { white-space: nowrap; }
  button:hover:not([aria-disabled="true"]), select:hover { background: var(--_raised); }
  [aria-disabled="true"] { color: var(--_muted); border-color: var(--_line); cursor: default; }
  ::placeholder { color: var(--_muted); opacity: 1; }
  :focus-visible { outline: 2px solid var(--_accent); outline-offset: 1px; }
  button.primary:not([aria-disabled="true"]), a.primary { background: var(--_accent); border-color: var(--_accent); color: var(--_on-accent); font-weight: 600; text-decoration: none; display: inline-block; }
  button.primary:hover:not([aria-disabled="true"]) { filter: brightness(1.2); background: var(--_accent); }
  button.icon { min-width: 32px; padding: 5px 8px; }
  button.icon[aria-pressed="true"] { background: var(--_accent); color: var(--_on-accent); border-color: var(--_accent); }
  button.link { border-color: transparent; background: none; color: var(--_accent); min-height: 24px; padding: 1px 6px; }
  button.link:hover { text-decoration: underline; }
  button.small, button.copy { min-height: 24px; padding: 1px 8px; font-size: 12px; line-height: 20px; }
  button.copy { color: var(--_muted); border-color: var(--_line); }
  .switch { display: inline-flex; align-items: center; gap: 8px; border-color: transparent; background: none; padding-inline: 6px; }
  .switch .knob { width: 28px; height: 16px; border-radius: 8px; border: 1px solid var(--_control); background: var(--_raised); display: inline-block; position: relative; }
  .switch .knob::after { content: ""; position: absolute; inset-block: 2px; inset-inline-start: 2px; width: 10px; border-radius: 5px; background: var(--_control); }
  .switch[aria-checked="true"] .knob { background: var(--_accent); border-color: var(--_accent); }
  .switch[aria-checked="true"] .knob::after { inset-inline: auto 2px; background: var(--_on-accent); }
  .switch[aria-disabled] .knob { opacity: 0.5; }
  .status .switch { min-height: 24px; padding-block: 1px; }

  /* Toolbar, chips, bars */
  .toolbar, .chips, .status, .pager, .bar { display: flex; flex-wrap: wrap; align-items: center; gap: 8px; }
  .toolbar { padding-block-end: 8px; }
  #search { flex: 1 1 220px; min-width: 160px; max-width: 420px; }
  .dates { display: inline-flex; align-items: center; gap: 4px; }
  .dates input { width: 136px; padding-inline: 8px; }
  .dates input[type="datetime-local"] { width: 236px; }
  .count { display: inline-block; min-width: 18px; padding-inline: 5px; border-radius: 9px; background: var(--_accent); color: var(--_on-accent); font-size: 12px; line-height: 18px; text-align: center; margin-inline: 2px; }
  .menu { display: inline-flex; align-items: center; gap: 6px; anchor-name: --actions; }
  .popover {
    position: absolute; position-anchor: --actions; position-area: block-end span-inline-end; position-try-fallbacks: flip-inline, flip-block; inset: auto; margin: 4px 0;
    width: 300px; max-width: calc(100vw - 16px); max-height: min(480px, 70vh); padding: 0; overflow: auto; overscroll-behavior: contain;
    color: var(--_text); background: var(--_surface); border: 1px solid var(--_line); border-radius: var(--_radius); box-shadow: 0 8px 24px rgb(0 0 0 / 0.2);
  }
  @supports not (position-area: block-end) { .popover { position: fixed; inset: 0; margin: auto; } }
  .popover .find { position: sticky; top: 0; z-index: 1; padding: 8px; background: var(--_surface); border-block-end: 1px solid var(--_line); }
  .find input { width: 100%; }
  .groups { padding: 0 8px 8px; }
  .groups label { display: flex; align-items: center; gap: 8px; padding-inline: 32px 8px; border-radius: var(--_radius); cursor: pointer; min-height: 28px; }
  .groups label.heading { padding-inline: 8px; font-weight: 600; margin-block-start: 4px; }
  .groups label:hover { background: var(--_raised); }
  .groups input { min-height: 0; width: 16px; height: 16px; margin: 0; flex: none; }
  .groups .icon { width: 12px; text-align: center; font-weight: 700; color: var(--_tone); }
  .groups p { padding: 8px; }

  .chips { padding-block-end: 8px; gap: 6px; }
  .chip { display: inline-flex; align-items: center; gap: 4px; max-width: 100%; border: 1px solid var(--_line); border-radius: 14px; background: var(--_raised); padding-inline-start: 10px; font-size: 13px; }
  .chip bdi { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; max-width: 320px; }
  .chip button { border: 0; background: none; min-height: 26px; min-width: 26px; padding: 0; border-radius: 13px; }
  .bar { padding: 6px 12px; margin-block-end: 8px; border: 1px solid var(--_tone, var(--_line)); border-radius: var(--_radius); background: var(--_back, var(--_raised)); }
  .bar:is(.red, .yellow) { position: sticky; top: var(--audit-sticky-top, 0px); z-index: 2; }
  .bar ul { flex: 1 1 100%; padding-inline-start: 20px; }
  .bar.news { justify-content: center; }
  .bar button { min-height: 28px; padding-block: 3px; }
  .bar progress { width: 160px; }
  .dot { width: 8px; height: 8px; border-radius: 4px; background: var(--_tone); }
  .thin { position: sticky; top: var(--audit-sticky-top, 0px); z-index: 3; height: 2px; margin-block-end: -2px; overflow: hidden; visibility: hidden; }
  .thin.shown { visibility: visible; }
  .thin::after { content: ""; position: absolute; inset-block: 0; width: 30%; background: var(--_accent); animation: pass 1.2s infinite linear; }
  @keyframes pass { from { inset-inline-start: -30%; } to { inset-inline-start: 100%; } }

  /* Timeline */
  .timeline .head { display: flex; align-items: center; gap: 8px; min-height: 28px; }
  .timeline .head .link { padding-inline: 0 6px; }
  .timeline .head .pointed { flex: 1; font-size: 12px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
  .turn { width: 12px; text-align: center; }
  .chart { min-height: 76px; direction: ltr; }
  .chart:empty { border-block-end: 20px solid var(--_surface); background: var(--_raised); }
  .chart svg { display: block; width: 100%; height: 56px; touch-action: pan-y; cursor: crosshair; overflow: visible; }
  .ground { fill: var(--_raised); }
  .bars rect { fill: var(--_bar); }
  .off { fill: var(--_surface); opacity: 0.75; }
  .handle { cursor: ew-resize; outline: none; }
  .grip { fill: transparent; }
  .edge, .handle .knob { fill: var(--_muted); opacity: 0.6; }
  .handle:is(:hover, :focus-visible) :is(.edge, .knob) { fill: var(--_accent); opacity: 1; }
  .handle:focus-visible .grip { stroke: var(--_accent); stroke-width: 2; }
  .ends { display: flex; justify-content: space-between; font-size: 11px; line-height: 20px; }
  .counts { max-height: 160px; overflow: auto; padding: 4px 8px; margin-block-end: 8px; list-style: none; border: 1px solid var(--_line); border-radius: var(--_radius); font-size: 13px; }

  .status { padding-block: 6px; font-size: 13px; min-height: 36px; }
  .status [role="status"] { font-weight: 600; font-size: 14px; }

  /* Table */
  table { width: 100%; border-collapse: separate; border-spacing: 0; table-layout: fixed; }
  th { position: sticky; top: var(--audit-sticky-top, 0px); z-index: 1; height: 36px; padding: 0 8px; text-align: start; font-weight: 600; font-size: 12px; color: var(--_muted); background: var(--_surface); border-block: 1px solid var(--_line); }
  th:has(.sort) { padding: 0; }
  .sort { border: 0; background: none; padding: 0 8px; min-height: 34px; width: 100%; text-align: start; font-weight: inherit; color: inherit; }
  .arrow { margin-inline-start: 4px; opacity: 0.5; }
  [aria-sort="ascending"] .arrow, [aria-sort="descending"] .arrow { opacity: 1; color: var(--_accent); }
  td { height: 36px; padding: 0 8px; border-block-end: 1px solid var(--_line); vertical-align: middle; overflow: clip; overflow-wrap: anywhere; line-height: 16px; }
  .timestamp { width: 212px; } .action { width: 202px; } .target { width: 19%; } .user { width: 16%; } .ip { width: 164px; }
  td.ip { font-family: var(--_mono); font-size: 12px; }
  /* Two lines fit into a row, a third makes it higher; of an address, the end says that it is masked. */
  td bdi { display: -webkit-box; -webkit-line-clamp: 3; -webkit-box-orient: vertical; overflow: hidden; }
  td.ip bdi { display: block; }
  .more + time { display: inline-block; max-width: calc(100% - 28px); vertical-align: middle; }
  /* Isolated: what is painted of a row is kept, whatever changes beside it. */
  tr.entry { cursor: pointer; isolation: isolate; }
  tr.entry:hover > td, tr.opened > td { background: var(--_raised); }
  tr.new > td { animation: came 2.4s ease-out; }
  @keyframes came { from { background: light-dark(#ddf4ff, #0c2d6b); } }
  .more { border: 0; background: none; min-width: 24px; min-height: 24px; width: 24px; padding: 0; margin-inline: -4px 4px; color: var(--_muted); font-size: 16px; line-height: 20px; }
  .more span, .step span, .turn { display: inline-block; }
  [aria-expanded="true"] > span { transform: rotate(90deg); }
  [aria-expanded="true"]:dir(rtl) > span { transform: rotate(-90deg); }
  .badge { display: inline-flex; align-items: center; max-width: 100%; gap: 5px; padding: 3px 8px; border-radius: 11px; font-size: 12px; line-height: 16px; text-align: start; font-weight: 500; vertical-align: middle; color: var(--_tone); background: var(--_back); }
  .badge .icon { font-weight: 700; width: 9px; text-align: center; flex: none; }
  .failed { flex: none; width: 14px; margin-inline-start: -4px; border-radius: 7px; font: 700 11px/14px var(--_font); text-align: center; color: var(--_surface); background: var(--_tone); print-color-adjust: exact; }
  .failed::before { content: "!"; }
  .skeleton span { display: block; height: 12px; border-radius: var(--_radius); background: var(--_line); opacity: 0.5; }

  /* One entry */
  tr.details > td { height: auto; padding-block: 12px 16px; padding-inline: 36px 16px; line-height: 20px; background: var(--_raised); overflow: visible; }
  tr.details bdi { display: inline; }
  .linked { border: 1px solid var(--_line); border-radius: var(--_radius); background: var(--_raised); padding: 8px 16px 16px; margin-block-end: 8px; }
  .linked h2 { font: inherit; font-weight: 600; display: flex; justify-content: space-between; align-items: center; margin: 0 0 8px; }
  .whole { display: grid; gap: 12px; }
  .line, .tree, .tree > div { display: grid; grid-template-columns: 96px minmax(0, 1fr); gap: 2px 12px; padding-block: 2px; }
  .tree { grid-template-columns: fit-content(40%) minmax(0, 1fr); padding: 0; }
  .tree > div { grid-column: span 2; grid-template-columns: subgrid; padding: 0; }
  .tree > div:has(> dd > .tree, > dd > ol) { grid-template-columns: minmax(0, 1fr); }
  .tree > div > dd > :is(.tree, ol) { padding-inline-start: 16px; border-inline-start: 1px solid var(--_line); }
  dt { color: var(--_muted); }
  dd { overflow-wrap: anywhere; overflow: clip; overflow-clip-margin: 4px; }
  dd ul { padding-inline-start: 16px; }
  .value { white-space: pre-wrap; overflow-wrap: anywhere; }
  .small { margin-inline-start: 8px; color: var(--_muted); border-color: var(--_line); }
  .line:is(:hover, :focus-within) .small { color: var(--_text); border-color: var(--_control); }
  .actions { display: flex; flex-wrap: wrap; gap: 8px; }
  .by-hand input { width: 320px; max-width: 100%; }

  /* Panels */
  .panel { padding: 48px 16px; text-align: center; display: grid; gap: 8px; justify-items: center; border-block-end: 1px solid var(--_line); }
  .panel strong { font-size: 16px; }
  .panel p { max-width: 60ch; }
  .panel form { display: flex; flex-wrap: wrap; gap: 8px; justify-content: center; align-items: center; margin-block-start: 8px; }
  .panel.closed { border: 1px solid var(--_line); border-radius: var(--_radius); }
  .applied { display: inline-block; padding: 0 8px; border: 1px solid var(--_line); border-radius: 11px; color: var(--_text); overflow-wrap: anywhere; }

  /* Pages */
  .pager { padding-block: 12px; gap: 4px; }
  .step, .number { min-width: 32px; padding-inline: 6px; border-color: transparent; background: none; }
  .pager [aria-current="page"] { background: var(--_accent); color: var(--_on-accent); font-weight: 600; }
  .goto { width: 128px; margin-inline-start: 8px; }
  .size { display: inline-flex; align-items: center; gap: 8px; color: var(--_muted); }
  .size select { color: var(--_text); }

  /* Narrower: first the columns give way, then rows become cards. */
  @container audit-log (max-width: 1000px) {
    .timestamp { width: 148px; } .action { width: 172px; } .target { width: 17%; }
  }
  @container audit-log (max-width: 820px) {
    .timestamp { width: 132px; } .action { width: 164px; } .ip { width: 132px; } .target, .user { width: auto; }
    td, th, .sort { padding-inline: 6px; }
    td { padding-block: 3px; line-height: 18px; font-size: 13px; }
    tr.details td { font-size: 14px; }
    .toolbar .space { display: none; }
  }
  @container audit-log (max-width: 640px) {
    table, tbody, thead, thead tr, td { display: block; width: auto; }
    thead tr { display: flex; border-block-end: 1px solid var(--_line); }
    th { position: static; border: 0; width: auto; }
    th:not(:has(.sort)) { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); padding: 0; }
    tr.entry { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, auto); padding: 8px 4px; border-block-end: 1px solid var(--_line); column-gap: 8px; }
    td { height: auto; min-height: 24px; border: 0; padding: 2px 4px; width: auto !important; line-height: 20px; }
    td.timestamp { grid-area: 1 / 1; color: var(--_muted); font-size: 12px; } td.action { grid-area: 1 / 2; text-align: end; }
    td:is(.target, .detail, .user, .ip) { grid-column: 1 / -1; display: grid; grid-template-columns: 84px minmax(0, 1fr); padding-inline-start: 28px; }
    td:is(.target, .detail, .user, .ip)::before { content: attr(data-label); color: var(--_muted); font: 12px/20px var(--_font); }
    td:is(.target, .detail, .user, .ip):has(bdi:empty) { display: none; }
    tr.entry > td { background: none !important; } tr.opened { background: var(--_raised); }
    tr.details, tr.skeleton { display: block; }
    tr.details > td { padding: 12px; }
    tr.skeleton { height: 96px; padding: 16px 4px; border-block-end: 1px solid var(--_line); }
    .line { grid-template-columns: minmax(0, 1fr); }
    #search { flex-basis: 100%; max-width: none; }
    .dates { flex: 1 1 100%; flex-wrap: wrap; } .dates input { flex: 1 1 120px; }
    .pager .space { flex-basis: 100%; }
    .ends span:nth-child(2) { display: none; }
  }

  @media (forced-colors: active) {
    .badge, .failed, .chip, .bar, .panel { border: 1px solid; }
    .bars rect { fill: CanvasText; stroke: Canvas; }
    .switch .knob::after { border: 1px solid; }
    button.primary:not([aria-disabled="true"]), a.primary { color: ButtonText; }
    .handle:focus-visible .grip { stroke: Highlight; }
    .switch[aria-checked="true"] .knob, .pager [aria-current="page"] { background: Highlight; color: HighlightText; forced-color-adjust: none; }
  }
  @media (prefers-reduced-motion: reduce) {
    *, *::after { animation: none !important; }
    .thin.shown::after { inset-inline: 0; width: auto; }
  }
  @media print {
    :host { color-scheme: light !important; }
    .toolbar, .pager, .pointed, .handle, .arrow, button:not(.sort) { display: none !important; }
    td { height: auto; padding-block: 4px; }
    td bdi { display: inline; }
    th { position: static; }
    tr { break-inside: avoid; }
  }
`;
