// The viewer's page: shows what GET /v1/events answers. Values reach the page as text only.

const TOKEN = "audit-token"; // in sessionStorage: for this tab
const SHOWN = 300; // characters of a value in a cell
const ICONS = { green: "+", yellow: "~", red: "×", accent: "•" };

const at = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const time = new Intl.DateTimeFormat("sv", { dateStyle: "short", timeStyle: "medium" }); // 2026-11-23 03:41:00

let page = {};
let shown = {}; // the query that the page answers
let running = new AbortController();
let typing;

// The token stays out of the address, and so out of history, bookmarks and screenshots.
function takeToken() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!token) return;
  history.replaceState(null, "", location.pathname + location.search);
  sessionStorage.setItem(TOKEN, token);
}

async function get(path, query, signal) {
  const given = Object.entries(query).filter(([, value]) => value);
  const headers = { Authorization: `Bearer ${sessionStorage.getItem(TOKEN)}` };
  const answer = await fetch(`${path}?${new URLSearchParams(given)}`, { headers, signal, cache: "no-store" });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  throw Object.assign(new Error(problem.detail || `The server answered ${answer.status}.`), { status: answer.status });
}

// The last question wins: asking again drops an answer that is still under way.
async function load(query) {
  running.abort();
  running = new AbortController();
  const { signal } = running;
  shown = query;
  at("frame").ariaBusy = "true";
  try {
    const answer = await (await get("v1/events", query, signal)).json();
    if (!signal.aborted) show(answer);
  } catch (error) {
    if (!signal.aborted) fail(error);
  }
  if (!signal.aborted) at("frame").ariaBusy = "false";
}

const search = () => load({ q: at("search").value });

function show(answer) {
  page = answer;
  at("error").hidden = true;
  at("log").hidden = false;
  at("status").textContent = `${number.format(page.total)} ${page.total === 1 ? "entry" : "entries"}`;
  at("rows").replaceChildren(...page.items.map(row));
  at("empty").hidden = page.items.length > 0;
  at("empty").textContent = shown.q ? "No entries match this search." : "There are no entries yet.";
  at("first").disabled = page.page === 1;
  at("previous").disabled = !page.previous;
  at("next").disabled = !page.next;
  at("place").textContent = page.pages ? `Page ${number.format(page.page)} of ${number.format(page.pages)}` : "";
  at("frame").scrollTop = 0;
}

function row(item) {
  const stamp = cell("timestamp", time.format(new Date(item.timestamp)));
  stamp.title = item.timestamp;
  const action = cell("action", item.label);
  action.firstChild.classList.add("badge", item.tone);
  action.firstChild.dataset.icon = ICONS[item.tone] ?? "";
  action.classList.toggle("failed", item.outcome === "failure" && !/failed/i.test(item.label));
  const line = document.createElement("tr");
  line.append(stamp, action, ...["target", "detail", "user", "ip"].map((name) => cell(name, item[name])));
  return line;
}

function cell(name, value) {
  const made = document.createElement("td");
  const text = document.createElement("bdi");
  const characters = Array.from(String(value ?? "").slice(0, 2 * SHOWN + 2));
  text.textContent = characters.slice(0, SHOWN).join("") + (characters.length > SHOWN ? "…" : "");
  made.className = name;
  made.title = text.textContent;
  made.append(text);
  return made;
}

function fail(error) {
  if (error.status === 401) signOut();
  at("error").firstElementChild.textContent = error.status ? error.message : "The server cannot be reached.";
  at("error").hidden = false;
  at("retry").hidden = error.status === 401;
}

function signOut() {
  clearTimeout(typing);
  running.abort();
  sessionStorage.removeItem(TOKEN);
  at("rows").replaceChildren();
  at("status").textContent = at("search").value = "";
  begin();
}

function begin() {
  const signedIn = sessionStorage.getItem(TOKEN) !== null;
  at("sign-in").hidden = signedIn;
  at("sign-out").hidden = !signedIn;
  at("log").hidden = at("error").hidden = true;
  if (signedIn) search();
  else at("token").focus();
}

async function exportCsv() {
  at("export").disabled = true;
  try {
    const answer = await get("v1/events/export.csv", { q: shown.q });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    link.download = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition"))?.[1] ?? "audit-log.csv";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    if (answer.headers.get("X-Truncated") === "true") {
      const [limit, total] = ["X-Row-Limit", "X-Total-Count"].map((name) => number.format(answer.headers.get(name)));
      at("status").textContent = `The file has the first ${limit} of ${total} entries`;
    }
  } catch (error) {
    fail(error);
  }
  at("export").disabled = false;
}

const on = (id, event, listener) => at(id).addEventListener(event, listener);
on("search", "input", () => {
  clearTimeout(typing);
  typing = setTimeout(search, 200);
});
on("first", "click", () => load({ q: shown.q }));
on("previous", "click", () => load({ q: shown.q, cursor: page.previous }));
on("next", "click", () => load({ q: shown.q, cursor: page.next }));
on("retry", "click", () => load(shown));
on("export", "click", exportCsv);
on("sign-out", "click", signOut);
on("sign-in", "submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(TOKEN, at("token").value.trim());
  at("token").value = "";
  begin();
});
const start = () => (takeToken(), begin());
addEventListener("hashchange", start);
at("zone").textContent = `Times in ${time.resolvedOptions().timeZone}`;
start();
