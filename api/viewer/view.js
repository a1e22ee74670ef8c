// The view: what is asked for and how it is shown, as a frozen object; and its forms in an address and in a request.

import { PERIODS, firstDay, moment, zoneName } from "./dates.js";

export const SIZES = [10, 25, 50, 100];

/** Nothing is filtered, the newest come first. */
export const START = Object.freeze({
  q: "", action: [], category: [], period: "", from: "", to: "", user: "", outcome: "", ip: "",
  sort: "-timestamp", size: 25, page: 1, zone: "local", pin: "", entry: "",
});

/** What filters entries; a change of these is another question. */
export const FILTERS = ["q", "action", "category", "period", "from", "to", "user", "outcome", "ip"];

const TEXTS = ["q", "from", "to", "user", "outcome", "ip", "pin", "entry"];
const LISTS = ["action", "category"];
const OWN = {
  period: (value) => PERIODS.includes(value),
  zone: (value) => ["local", "utc"].includes(value),
  pin: (value) => moment(value, "utc"),
};

/** The filters that are applied, in the order of FILTERS. */
export const applied = (view) => FILTERS.filter((name) => view[name].length > 0);

/**
 * The view that an address says, and the names of what it says wrongly, of what only the viewer knows.
 * Everything else is judged by the server, which says what is allowed.
 */
export function readView(parameters, start) {
  const view = { ...start };
  for (const name of [...TEXTS, "period", "zone", "sort"]) if (parameters.get(name)) view[name] = parameters.get(name);
  for (const name of LISTS) view[name] = parameters.getAll(name).filter(Boolean);
  const size = parameters.get("page_size");
  const page = parameters.get("page");
  if (size) view.size = /^\d+$/.test(size) ? Number(size) : size;
  if (page) view.page = /^\d{1,15}$/.test(page) && Number(page) > 0 ? Number(page) : page;
  const wrong = Object.keys(OWN).filter((name) => view[name] && !OWN[name](view[name]));
  for (const name of wrong) view[name] = START[name];
  return { view: Object.freeze(view), wrong };
}

/** What an address says of a view: only what is not as it starts. */
export function viewParameters(view, start) {
  const parameters = new URLSearchParams();
  for (const name of ["q", ...LISTS, "period", "from", "to", "user", "outcome", "ip", "sort"]) {
    if (String(view[name]) !== String(start[name])) for (const value of [view[name]].flat()) parameters.append(name, value);
  }
  if (view.size !== start.size) parameters.set("page_size", view.size);
  if (view.page !== 1) parameters.set("page", view.page);
  if (view.zone !== start.zone) parameters.set("zone", view.zone);
  for (const name of ["pin", "entry"]) if (view[name]) parameters.set(name, view[name]);
  return parameters;
}

/** The view with every relative time made absolute, and its days made moments: the same for whoever opens it. */
export function absolute(view, pin) {
  const from = moment(lowerBound(view), view.zone);
  const to = moment(view.to, view.zone, true);
  return Object.freeze({
    ...view, period: "", pin: pin || view.pin, from: from ? from.toISOString() : "", to: to ? to.toISOString() : "",
  });
}

const lowerBound = (view) => (view.period ? firstDay(view.period, view.zone) : view.from);

/** The filters of a request. Nothing from `pin` on is asked for. */
export function filterParameters(view, pin) {
  const parameters = new URLSearchParams();
  for (const name of ["q", "user", "outcome", "ip"]) if (view[name]) parameters.set(name, view[name]);
  for (const name of LISTS) for (const value of view[name]) parameters.append(name, value);
  const from = lowerBound(view);
  if (from) parameters.set("from", from);
  const end = moment(view.to, view.zone, true);
  const to = pin && (!view.to || (end && new Date(pin) < end)) ? pin : view.to;
  if (to) parameters.set("to", to);
  if (parameters.has("from") || parameters.has("to")) parameters.set("tz", zoneName(view.zone));
  return parameters;
}

/** What came since the pin: the same filters, from there on. Null where the view ends before it. */
export function freshParameters(view, pin) {
  const parameters = filterParameters(view, "");
  if (pin) {
    const end = moment(view.to, view.zone, true);
    if (end && end <= new Date(pin)) return null;
    const from = moment(lowerBound(view), view.zone);
    if (!from || from < new Date(pin)) parameters.set("from", pin);
  }
  return parameters;
}
