// No framework: an element that is made by hand.

import { getToken, loaded, options } from "./host.js";

const button = (label, act) => {
  const made = document.createElement("button");
  made.textContent = label;
  made.addEventListener("click", act);
  document.getElementById("app").append(made);
};

const log = document.createElement("audit-log");
for (const [name, value] of Object.entries(options)) log.setAttribute(name, value);
log.getToken = getToken;
log.addEventListener("audit-loaded", loaded);

button("Dark", () => log.setAttribute("theme", "dark"));
button("Remove", () => log.remove());
button("Restore", () => document.getElementById("app").append(log));
document.getElementById("app").append(log);
