// Days and moments in the zone that is shown: the reader's own, or UTC.
// A day is "2026-11-23", a moment "2026-11-23T03:41:00.000Z".

const DAY = /^\d{4}-\d{2}-\d{2}$/;
const DAYS = { today: 0, "7d": 6, "30d": 29, "90d": 89 };

/** The relative periods there are. */
export const PERIODS = Object.keys(DAYS);

const LOCAL = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

/** The IANA name of the zone. */
export const zoneName = (zone) => (zone === "utc" ? "UTC" : LOCAL);

export const isDay = (value) => DAY.test(value) && dayOf(startOf(value, "utc"), "utc") === value;

const two = (number) => String(number).padStart(2, "0");

const parts = (date, utc) =>
  utc
    ? [date.getUTCFullYear(), date.getUTCMonth() + 1, date.getUTCDate(), date.getUTCHours(), date.getUTCMinutes(), date.getUTCSeconds()]
    : [date.getFullYear(), date.getMonth() + 1, date.getDate(), date.getHours(), date.getMinutes(), date.getSeconds()];

/** The day of a moment. */
export function dayOf(date, zone) {
  const [year, month, day] = parts(date, zone === "utc");
  return `${String(year).padStart(4, "0")}-${two(month)}-${two(day)}`;
}

/** The moment at which a day begins, or the day `later` days after it. */
export function startOf(day, zone, later = 0) {
  const [year, month, date] = day.split("-").map(Number);
  if (zone === "utc") return new Date(Date.UTC(year, month - 1, date + later));
  return new Date(year, month - 1, date + later);
}

/** The first day of a relative period that ends today. */
export function firstDay(period, zone, now = new Date()) {
  return dayOf(startOf(dayOf(now, zone), zone, -DAYS[period]), zone);
}

/** The moment that a bound stands for: a day's beginning, or for the upper bound its end; null where it is none. */
export function moment(value, zone, upper = false) {
  const date = isDay(value) ? startOf(value, zone, upper ? 1 : 0) : new Date(value);
  return value && !Number.isNaN(date.getTime()) ? date : null;
}

/** What a native input shows of a bound: the day, or with `timed` the time to the second. */
export function inputValue(value, zone, timed, upper = false) {
  const date = moment(value, zone, upper && timed);
  if (!date) return "";
  if (!timed) return isDay(value) ? value : dayOf(upper ? new Date(date - 1) : date, zone);
  const [, , , hours, minutes, seconds] = parts(date, zone === "utc");
  return `${dayOf(date, zone)}T${two(hours)}:${two(minutes)}:${two(seconds)}`;
}

/** The bound that an input's value says. */
export function bound(value, zone) {
  if (!value || isDay(value)) return value;
  const date = new Date(zone === "utc" ? `${value}Z` : value);
  return Number.isNaN(date.getTime()) ? "" : date.toISOString();
}

const made = new Map();

function formatter(kind, locale, options) {
  const key = `${kind.name} ${locale} ${JSON.stringify(options)}`;
  if (!made.has(key)) made.set(key, new kind(locale, options));
  return made.get(key);
}

/** A number as the locale groups it. */
export const number = (value, locale) => formatter(Intl.NumberFormat, locale, {}).format(value);

/** A moment, to the second; by the 24-hour clock, so that a column of them can be read down. */
export const time = (value, locale, zone) =>
  formatter(Intl.DateTimeFormat, locale, { dateStyle: "medium", timeStyle: "medium", hourCycle: "h23", timeZone: zoneName(zone) }).format(new Date(value));

/** A moment, to the millisecond, with its zone. */
export const exactTime = (value, locale, zone) =>
  formatter(Intl.DateTimeFormat, locale, {
    year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23",
    fractionalSecondDigits: 3, timeZone: zoneName(zone), timeZoneName: "short",
  }).format(new Date(value));

/** A day, from a bound that is one. */
export const day = (value, locale) =>
  formatter(Intl.DateTimeFormat, locale, { dateStyle: "medium", timeZone: "UTC" }).format(startOf(value, "utc"));

/** A moment, as fine as spans of `interval` (ISO 8601) need it. */
export function mark(value, locale, zone, interval) {
  const timeZone = zoneName(zone);
  const options = interval.startsWith("PT")
    ? { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...(interval.endsWith("S") && { second: "2-digit" }), timeZone }
    : { year: "numeric", month: "short", ...(/[DW]$/.test(interval) && { day: "numeric" }), timeZone };
  return formatter(Intl.DateTimeFormat, locale, options).format(new Date(value));
}
