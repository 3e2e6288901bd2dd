// Event time against the wall clock: which windows are open, where the watermark stands, and what holds it back.
import { byId, fillTable, setAttribute, setText, svg } from "./dom.js";
import { behind, dayAndTime, integer, roughly, span, time } from "./format.js";

/** Windows drawn at most, of those that are open and of those that are closed. */
const [OPEN_MAX, CLOSED_MAX] = [36, 6];
const LANES_MAX = 12;
const STEPS_MS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400, 604800].map((s) => s * 1e3);

export class EventTime {
  #box = byId("picture");
  #cluster = null;

  constructor() {
    new ResizeObserver(() => this.#picture()).observe(this.#box);
  }

  draw(cluster) {
    this.#cluster = cluster;
    const { watermark_ms, watermark_lag_ms, open_windows: open, windows, now_ms: now } = cluster;
    setText(byId("watermark"), dayAndTime(watermark_ms, now));
    const ahead = watermark_lag_ms !== null && watermark_lag_ms < 0;
    setText(byId("watermark-lag"), watermark_ms === null ? "no event yet" : `${behind(watermark_lag_ms)}${ahead ? " of" : " behind"} the wall clock`);
    setText(byId("open"), open ? integer(open.count) : "–");
    setText(byId("open-say"), `${span(windows.size_ms)} long, one every ${span(windows.slide_ms)}`);
    setText(byId("late"), integer(cluster.late));
    setText(byId("rejected"), integer(cluster.rejected_total));
    setText(byId("rejected-say"), cluster.rejected_total > 0 ? "by reason below" : "by validation");
    const reasons = Object.entries(cluster.rejected).filter(([, n]) => n > 0).sort(([, a], [, b]) => b - a);
    byId("reasons").hidden = reasons.length === 0;
    fillTable(byId("reasons"), reasons.map(([reason, n]) => [reason.replaceAll("_", " "), integer(n)]));
    const [state, text] = says(cluster);
    setAttribute(byId("state"), "data-state", state);
    setText(byId("state"), text);
    const known = watermark_ms !== null;
    this.#box.hidden = byId("legend").hidden = !known;
    if (known) this.#picture();
  }

  #picture() {
    const width = this.#box.clientWidth;
    if (!this.#cluster || this.#cluster.watermark_ms === null || width < 100) return;
    this.#box.replaceChildren(picture(this.#cluster, width));
  }
}

/** What is going on, and why: whether it is well, and a sentence or two. */
function says(cluster) {
  const { phase, watermark_ms, watermark_lag_ms: lag, committed_window_end_ms: committed, windows, now_ms: now, partitions } = cluster;
  const through = committed === null ? "Nothing is committed yet." : `Windows are committed up to ${dayAndTime(committed, now)}.`;
  if (phase === "starting") return ["busy", `Starting: the processes find each other and agree where to go on. ${through}`];
  if (phase === "stopping") return ["busy", `Stopping: what is complete is committed. ${through}`];
  const unread = `${integer(cluster.lag_records)} events are still to be read`;
  if (phase === "replaying") return ["busy", `Replaying: what was committed before is read again, to rebuild the open windows; ${unread}. ${through}`];
  if (watermark_ms === null) return ["quiet", "Running. No event has come yet, so that no window can close."];
  const waiting = committed !== null && watermark_ms - committed >= 2 * windows.slide_ms + 5e3;
  const commits = waiting ? ` Windows that have closed since ${time(committed)} wait for their commit: does Kafka answer?` : "";
  if (partitions.length > 0 && partitions.every(({ idle }) => idle)) {
    return [waiting ? "bad" : "quiet", `Running, and all partitions are idle: the watermark goes on with the wall clock, so that the last windows close.${commits}`];
  }
  const slack = Math.max(2 * windows.slide_ms, 5e3);
  if (lag <= windows.disorder_bound_ms + slack) {
    const bound = `${span(windows.disorder_bound_ms)} of that are left to events that come out of order`;
    return [waiting ? "bad" : "good", `Running and up to date. The watermark is ${roughly(lag)} behind the wall clock; ${bound}.${commits}`];
  }
  const slow = partitions.find(({ partition }) => partition === cluster.held_back_by);
  if (!slow) return ["bad", `Running, ${roughly(lag)} behind the wall clock.${commits}`];
  const who = `Partition ${slow.partition}, which worker ${slow.worker} reads, holds the watermark back at ${dayAndTime(watermark_ms, now)}, ${roughly(lag)} behind the wall clock`;
  const why =
    slow.awaited_schema !== null
      ? `it waits for schema ${slow.awaited_schema} from the schema registry. ${cluster.registry_waits.join(" ")}`
      : slow.lag_records > 0
        ? `${integer(slow.lag_records)} of its events are still to be read.`
        : slow.idle
          ? "it is idle, and follows the others."
          : "it is read to its end, and no newer event has come. Once it is idle, it holds nobody back.";
  return ["bad", `${who}: ${why}${commits}`];
}

/** The partition that the watermark waits for, if it is more than a slide behind another. */
export function slowest({ partitions, held_back_by, windows }) {
  const slow = partitions.find(({ partition, idle }) => partition === held_back_by && !idle);
  return slow && partitions.some(({ watermark_ms }) => watermark_ms - slow.watermark_ms > windows.slide_ms) ? slow : undefined;
}

/** The windows as lines over time, the newest at the bottom, and under them where each partition stands. */
function picture(cluster, width) {
  const { watermark_ms: watermark, now_ms: now, windows, open_windows: open, partitions } = cluster;
  const { size_ms: size, slide_ms: slide } = windows;
  const committed = cluster.committed_window_end_ms ?? -Infinity;
  const firstEnd = open?.first_end_ms ?? watermark + slide;
  const lanes = [...partitions].sort((a, b) => (a.watermark_ms ?? -Infinity) - (b.watermark_ms ?? -Infinity)).slice(0, LANES_MAX);
  lanes.sort((a, b) => a.partition - b.partition);

  // Lines for closed windows, then for open ones; where they are many, for some of them.
  const count = Math.max(open?.count ?? 1, 1);
  const stride = Math.ceil(count / OPEN_MAX);
  const openEnds = [];
  for (let i = 0; i < count; i += stride) openEnds.push(firstEnd + i * slide);
  const closedEnds = [];
  for (let i = Math.min(CLOSED_MAX, Math.ceil(openEnds.length / 2)); i >= 1; i--) closedEnds.push(firstEnd - i * slide * stride);
  const ends = [...closedEnds, ...openEnds];

  const [left, right, top] = [16, 16, 40];
  const from = Math.min(ends[0] - size, watermark - size / 2);
  const to = Math.max(now + size / 8, openEnds.at(-1));
  const x = (ms) => left + ((width - left - right) * (Math.min(Math.max(ms, from), to) - from)) / (to - from);
  const pitch = Math.max(2.5, Math.min(7, 110 / ends.length));
  const axis = top + ends.length * pitch + 10;
  const laneTop = axis + 30;
  const laneHeight = 20;
  const height = laneTop + lanes.length * laneHeight + 6;

  const drawing = svg("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-labelledby": "state" });
  const line = (name, x1, y1, x2, y2, attributes = {}) => drawing.append(svg("line", { class: name, x1, y1, x2, y2, ...attributes }));
  const text = (name, at, y, words, attributes = {}) => drawing.append(svg("text", { class: name, x: at, y, ...attributes }, words));

  const stroke = { "stroke-width": Math.max(1.5, pitch - 2) };
  ends.forEach((end, i) => {
    const y = top + (i + 0.5) * pitch;
    const part = (name, a, b) => b > a && line(name, x(a), y, x(b), y, stroke);
    const start = end - size;
    if (end <= watermark) part(end <= committed ? "committed" : "waiting", start, end);
    else {
      part("complete", start, Math.min(end, watermark));
      part("filling", Math.max(start, watermark), Math.min(end, now));
      part("future", Math.max(start, now), end);
    }
  });

  ticks(from, to, width).forEach((ms) => {
    line("tick", x(ms), axis, x(ms), axis + 4);
    text("tick-label", x(ms), axis + 17, time(ms), { "text-anchor": "middle" });
  });
  line("axis", left, axis, width - right, axis);

  // The two marks, with their names above; the gap between them is how far event time is behind.
  const bottom = height - 6;
  line("watermark-line", x(watermark), top - 6, x(watermark), bottom);
  line("now-line", x(now), top - 6, x(now), bottom);
  text("watermark-label", x(watermark) - 5, top - 12, `watermark ${time(watermark)}`, { "text-anchor": x(watermark) > 150 ? "end" : "start" });
  const room = width - right - x(now) > 110;
  const apart = x(now) - x(watermark) > 8;
  text("now-label", x(now) + (room ? 5 : 0), room && apart ? top - 12 : top - 27, `now ${time(now)}`, { "text-anchor": room ? "start" : "end" });

  lanes.forEach((lane, i) => {
    const y = laneTop + (i + 0.5) * laneHeight;
    const slow = lane === slowest(cluster);
    line("lane", left, y, width - right, y);
    const known = lane.watermark_ms !== null;
    const at = known ? x(lane.watermark_ms) : left;
    const title = `partition ${lane.partition}: ${known ? time(lane.watermark_ms) : "no event yet"}${lane.idle ? ", idle" : ""}`;
    const mark = svg("circle", { class: `mark ${lane.idle ? "idle" : slow ? "slow" : ""}`, cx: at, cy: y, r: 5 });
    mark.append(svg("title", {}, title));
    drawing.append(mark);
    const label = `${lane.partition}${lane.idle ? " idle" : slow ? " slowest" : ""}`;
    const before = at > left + 80;
    text("lane-label", before ? at - 11 : at + 11, y + 4, label, { "text-anchor": before ? "end" : "start" });
  });
  return drawing;
}

function ticks(from, to, width) {
  const most = Math.max(2, Math.floor(width / 110));
  const step = STEPS_MS.find((step) => (to - from) / step <= most) ?? (to - from) / most;
  const found = [];
  for (let ms = Math.ceil(from / step) * step; ms <= to; ms += step) found.push(ms);
  // Names at the very edges would be cut off.
  return found.filter((ms) => (ms - from) / (to - from) > 0.04 && (to - ms) / (to - from) > 0.04);
}
