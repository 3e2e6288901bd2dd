// How figures, times and page keys are written.

const integers = new Intl.NumberFormat("en");
const decimals = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

const DATE_MS_MAX = 8.64e15;

/** What is written where there is nothing to say. */
export const NONE = "–";

/** The name of the time zone that all times are in. */
export const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;

export function integer(n) {
  return n === null ? NONE : integers.format(n);
}

export function time(ms) {
  if (ms === null) return NONE;
  return Math.abs(ms) <= DATE_MS_MAX ? clock.format(ms) : `${ms} ms`;
}

/** The time, with the day where that is not the day of `nowMs`. */
export function dayAndTime(ms, nowMs) {
  if (ms === null) return NONE;
  if (Math.abs(ms) > DATE_MS_MAX) return `${ms} ms`;
  const date = day.format(ms);
  return date === day.format(nowMs) ? clock.format(ms) : `${date}, ${clock.format(ms)}`;
}

const UNITS = [
  ["d", 86400e3],
  ["h", 3600e3],
  ["min", 60e3],
  ["s", 1e3],
];

/** A duration: milliseconds below a second, tenths of a second below a minute, and two units above. */
export function span(ms) {
  if (ms === null) return NONE;
  if (ms < 1e3 && ms > 0) return `${integers.format(ms)} ms`;
  if (ms < 60e3) return `${(ms % 1e3 === 0 ? integers : decimals).format(ms / 1e3)} s`;
  const first = UNITS.findIndex(([, length]) => ms >= length);
  const [[large, length], [small, smallLength]] = [UNITS[first], UNITS[first + 1]];
  const rest = Math.floor((ms % length) / smallLength);
  return `${integers.format(Math.floor(ms / length))} ${large}${rest > 0 ? ` ${rest} ${small}` : ""}`;
}

/** A duration in whole seconds. */
export function roughly(ms) {
  return ms === null ? NONE : span(Math.max(Math.round(ms / 1e3), 0) * 1e3);
}

/** How far something is behind the wall clock. */
export function behind(ms) {
  if (ms === null) return NONE;
  return ms < 0 ? `${span(-ms)} ahead` : span(ms);
}

/** Minutes and seconds. */
export function minutes(seconds) {
  if (seconds === null) return NONE;
  const whole = Math.round(seconds);
  return `${integers.format(Math.floor(whole / 60))}:${String(whole % 60).padStart(2, "0")}`;
}

export function percent(share) {
  return share === null ? NONE : `${decimals.format(share * 100)} %`;
}

export function bytes(n) {
  if (n === null) return NONE;
  const [length, unit] = [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]].find(([length]) => n >= length) ?? [1, "B"];
  return unit === "B" ? `${integers.format(n)} B` : `${decimals.format(n / length)} ${unit}`;
}

/** Shows what would be invisible or would turn the text around, so that no key can look like another. */
export function visible(text) {
  const code = (char) => char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu, (char) => `‹U+${code(char)}›`);
}

/** What each figure of a page is called and how it is written, by its name in the stream. */
export const FIGURES = {
  view_count: { label: "Views", write: integer },
  unique_users: { label: "Users", write: integer },
  click_count: { label: "Clicks", write: integer },
  conversion_count: { label: "Purchases", write: integer },
  conversion_rate: { label: "Conversion", write: percent },
  engagement_rate: { label: "Engaged", write: percent },
  bounce_rate: { label: "Bounced", write: percent },
  avg_session_duration: { label: "Session", write: minutes },
};
