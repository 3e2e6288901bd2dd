// The dashboard: shows what /v1/stream sends and computes nothing but its looks.
// Page keys come from whoever sends events, so they only ever become text nodes and attribute values.
"use strict";

const HISTORY_MAX = 60; // windows in the small curves, as many as the server keeps by default
const FOLDED_ROWS = 20; // rows shown at first; dashboard.css hides the rest
const SILENCE_MAX_MS = 5000; // the server sends a status every second
const RECONNECT_MS = 2000;

const byId = (id) => document.getElementById(id);
const state = { window: null, history: [], status: null };

// ---- Formatting ----

const integer = new Intl.NumberFormat("en");
const decimal = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });

const DATE_MS_MAX = 8.64e15;

function time(ms) {
  return Math.abs(ms) <= DATE_MS_MAX ? clock.format(ms) : `${ms} ms`;
}

/** The time, with the day where that is not today. */
function dayAndTime(ms, nowMs) {
  if (Math.abs(ms) > DATE_MS_MAX) return `${ms} ms`;
  const date = day.format(ms);
  return date === day.format(nowMs) ? clock.format(ms) : `${date}, ${clock.format(ms)}`;
}

/** A duration: tenths of a second below a minute, and two units above. */
function span(ms) {
  if (ms < 60e3) return `${decimal.format(ms / 1e3)} s`;
  const units = [
    ["d", 86400e3],
    ["h", 3600e3],
    ["min", 60e3],
    ["s", 1e3],
  ];
  const first = units.findIndex(([, length]) => ms >= length);
  const [large, small] = [units[first], units[first + 1]];
  const rest = Math.floor((ms % large[1]) / small[1]);
  return `${integer.format(Math.floor(ms / large[1]))} ${large[0]}${rest > 0 ? ` ${rest} ${small[0]}` : ""}`;
}

/** How far event time is behind the wall clock. */
function behind(ms) {
  return ms < 0 ? `${span(-ms)} ahead` : span(ms);
}

function minutes(seconds) {
  const whole = Math.round(seconds);
  return `${integer.format(Math.floor(whole / 60))}:${String(whole % 60).padStart(2, "0")}`;
}

function percent(share) {
  return `${decimal.format(share * 100)} %`;
}

/** Shows what would be invisible or would turn the text around, so that no key can look like another. */
function visible(text) {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (char) => `‹U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}›`);
}

// ---- Drawing ----

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Makes `tbody` have `rows` rows of `cells` cells, keeping those there are, and returns them. */
function rowsOf(tbody, rows, cells) {
  for (const empty of tbody.querySelectorAll(".empty")) empty.remove();
  while (tbody.rows.length > rows) tbody.deleteRow(-1);
  while (tbody.rows.length < rows) {
    const row = tbody.insertRow();
    row.setAttribute("role", "row");
    for (let i = 0; i < cells; i++) row.insertCell().setAttribute("role", "cell");
  }
  return tbody.rows;
}

function drawWindow() {
  const { window: latest, history } = state;
  if (!latest) return;
  const now = Date.now();
  setText(byId("window"), `${dayAndTime(latest.window_start, now)} – ${time(latest.window_end)}`);
  const length = `${span(latest.window_end - latest.window_start)} of event time`;
  const closed = latest.close_to_commit_ms === null ? "" : `, closed ${span(latest.close_to_commit_ms)} after its watermark`;
  setText(byId("closed"), length + closed);
  for (const figure of document.querySelectorAll("[data-total]")) {
    const name = figure.dataset.total;
    setText(figure, integer.format(latest.totals[name]));
    drawCurve(figure.parentElement.querySelector("polyline"), history.map((one) => one.totals[name]));
  }
  drawPages(latest);
}

function drawCurve(polyline, values) {
  const top = Math.max(...values, 1);
  const x = (i) => (100 * i) / (values.length - 1);
  const points = values.map((value, i) => `${x(i).toFixed(2)},${(23 - 21 * (value / top)).toFixed(2)}`);
  // Beyond the edges, so that only the curve itself is drawn.
  const outline = ["-2,26", `-2,${points[0]?.split(",")[1]}`, ...points, `102,${points.at(-1)?.split(",")[1]}`, "102,26"];
  polyline.setAttribute("points", values.length > 1 ? outline.join(" ") : "");
}

const LABELS = [null, "Views", "Users", "Clicks", "Conv.", "Engaged", "Bounced", "Session"];

function drawPages({ pages, totals }) {
  const tbody = byId("top").tBodies[0];
  const rows = rowsOf(tbody, pages.length, LABELS.length);
  const top = Math.max(pages[0]?.view_count ?? 0, 1);
  pages.forEach((page, i) => {
    const cells = rows[i].cells;
    const url = visible(page.page_url);
    setText(cells[0], url);
    cells[0].title = url;
    cells[0].style.setProperty("--share", `${(100 * page.view_count) / top}%`);
    const figures = [page.view_count, page.unique_users, page.click_count, page.conversion_count].map((n) => integer.format(n));
    figures.push(percent(page.engagement_rate), percent(page.bounce_rate), minutes(page.avg_session_duration));
    figures.forEach((text, j) => {
      setText(cells[j + 1], text);
      cells[j + 1].dataset.label = LABELS[j + 1];
    });
  });
  const cut = `Top ${pages.length} of ${integer.format(totals.pages)} pages`;
  const all = pages.length > 0 ? "Top pages" : "No page had an event in this window";
  setText(byId("pages"), pages.length < totals.pages ? cut : all);
  drawFold(pages.length);
}

function drawFold(rows) {
  const button = byId("fold");
  const folded = byId("top").classList.contains("folded");
  button.hidden = rows <= FOLDED_ROWS;
  button.setAttribute("aria-expanded", String(!folded));
  setText(button, folded ? `Show all ${rows}` : `Show the first ${FOLDED_ROWS}`);
}

function drawStatus() {
  const { status } = state;
  if (!status) return;
  const now = status.now_ms;
  const processes = status.processes.length;
  const cluster = processes > 1 ? `${processes} processes` : "one process";
  setText(byId("job"), status.job);
  document.title = `${status.job} · Clicktide`;
  byId("notice").hidden = !status.notice;
  setText(byId("notice"), status.notice ?? "");

  const known = status.watermark_ms !== null;
  setText(byId("watermark"), known ? dayAndTime(status.watermark_ms, now) : "–");
  setText(byId("watermark-lag"), known ? `${behind(status.watermark_lag_ms)}${status.watermark_lag_ms < 0 ? "" : " behind the wall clock"}` : "no event yet");
  setText(byId("events"), integer.format(status.events));
  setText(byId("events-rate"), status.events_per_second === null ? "" : `${integer.format(Math.round(status.events_per_second))} per second`);
  setText(byId("late"), integer.format(status.late));
  setText(byId("rejected"), integer.format(status.rejected_total));
  const reasons = Object.entries(status.rejected).map(([reason, n]) => `${reason}\u00a0${integer.format(n)}`);
  setText(byId("rejected-reasons"), reasons.join(", ") || "by validation");

  const partitions = status.partitions;
  if (partitions.length > 0) {
    const rows = rowsOf(byId("partitions").tBodies[0], partitions.length, 6);
    partitions.forEach((partition, i) => {
      const seen = partition.watermark_ms !== null;
      rows[i].dataset.idle = partition.idle;
      [
        String(partition.partition),
        partition.idle ? "idle" : "active",
        seen ? dayAndTime(partition.watermark_ms, now) : "–",
        seen ? behind(partition.watermark_lag_ms) : "–",
        integer.format(partition.position),
        integer.format(partition.lag_records),
      ].forEach((text, j) => setText(rows[i].cells[j], text));
    });
  }
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const workers = status.workers.length === 1 ? "1 worker" : `${status.workers.length} workers`;
  setText(byId("process"), `${cluster}, ${workers}, ${status.phase} · up ${span(now - status.started_at_ms)} · times in ${zone}`);
}

let drawing = false;

/** Draws once per frame however many events come in between. */
function draw() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    drawWindow();
    drawStatus();
  });
}

// ---- The stream ----

function setConnection(name, text) {
  const pill = byId("connection");
  pill.dataset.state = name;
  setText(pill, text);
  document.body.classList.toggle("stale", name === "reconnecting");
}

function connect() {
  const source = new EventSource("/v1/stream");
  let silence;
  // A browser does not try again after an answer that is no stream, nor when a connection is dead but open.
  const again = () => {
    clearTimeout(silence);
    source.close();
    setConnection("reconnecting", "reconnecting…");
    setTimeout(connect, RECONNECT_MS);
  };
  const heard = () => {
    clearTimeout(silence);
    silence = setTimeout(again, SILENCE_MAX_MS);
    setConnection("live", "live");
  };
  const on = (name, apply) =>
    source.addEventListener(name, (event) => {
      heard();
      apply(JSON.parse(event.data));
      draw();
    });
  on("snapshot", (snapshot) => {
    // A server that has just started has no window yet: what is on the page stays until it has one.
    if (snapshot.window) {
      state.window = snapshot.window;
      state.history = snapshot.history;
    }
    state.status = snapshot.status;
  });
  on("window", (closed) => {
    state.window = closed;
    state.history = [...state.history, { totals: closed.totals }].slice(-HISTORY_MAX);
  });
  on("status", (status) => {
    state.status = status;
  });
  source.onerror = again;
}

byId("fold").addEventListener("click", () => {
  byId("top").classList.toggle("folded");
  drawFold(byId("top").tBodies[0].rows.length);
});

connect();
