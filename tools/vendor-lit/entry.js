// What the viewer uses of Lit. A name that is not here is not in the bundle.
export { LitElement, css, html, nothing, svg } from "lit";
export { live } from "lit/directives/live.js";
export { repeat } from "lit/directives/repeat.js";
