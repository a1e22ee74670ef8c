// What all pages share: the attributes that the test chose, its tokens, and a record of the events that came out.

export const options = JSON.parse(document.getElementById("options").textContent);

// The test exposes `askToken`, and so counts how often it is called.
export const getToken = (asked) => globalThis.askToken(asked);

export const EVENTS = [
  "audit-loaded", "audit-view-changed", "audit-entry-opened", "audit-exported", "audit-problem", "audit-signed-in",
];

// As they arrive at the document: events that neither bubble nor leave the shadow tree are not here.
globalThis.hostEvents = [];
for (const name of EVENTS) {
  document.addEventListener(name, (event) => globalThis.hostEvents.push({ name, detail: event.detail }));
}

// As a framework hands them to a component.
globalThis.frameworkEvents = [];
export const loaded = (event) => globalThis.frameworkEvents.push({ name: event.type, detail: event.detail });
