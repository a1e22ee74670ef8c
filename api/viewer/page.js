// The page at `/`: the viewer alone, with a token that the link to it brought, or that somebody pastes.

import "./audit-log.js";
import { textsFor } from "./texts.js";

// In sessionStorage: for this tab.
const KEY = "audit-token";

// The token stays out of the address, and so out of history, bookmarks and screenshots.
function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  history.replaceState(null, "", location.pathname + location.search);
  sessionStorage.setItem(KEY, token);
}

takeToken();
const { texts, locale } = textsFor(navigator.language);
document.documentElement.lang = locale;
document.title = document.querySelector("h1").textContent = texts.table;

const log = document.createElement("audit-log");
const leave = document.getElementById("sign-out");
leave.textContent = texts.signOut;
const use = (token) => {
  log.token = token;
  leave.hidden = !token;
};
log.urlState = "query";
use(sessionStorage.getItem(KEY) || "");
log.addEventListener("audit-signed-in", ({ detail }) => {
  sessionStorage.setItem(KEY, detail.token);
  use(detail.token);
});
log.addEventListener("audit-problem", ({ detail }) => {
  // Whose token was refused is signed out already.
  if (detail.name === "unauthorized") leave.hidden = true;
});
leave.addEventListener("click", () => {
  sessionStorage.removeItem(KEY);
  use("");
});
// A link with another token, opened in this tab.
addEventListener("hashchange", () => {
  takeToken();
  use(sessionStorage.getItem(KEY) || "");
});
document.querySelector("main").append(log);
