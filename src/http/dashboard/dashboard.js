// The dashboard: applies what /v1/stream sends and draws it. It computes nothing but its looks.
import { sparkline, sparklineDrawing } from "./charts.js";
import { drawCluster } from "./cluster.js";
import { Detail } from "./detail.js";
import { byId, setAttribute, setText } from "./dom.js";
import { EventTime } from "./event-time.js";
import { FIGURES, dayAndTime, integer, span, time } from "./format.js";
import { apply, begin } from "./model.js";
import { Pages } from "./pages.js";
import { Stream } from "./stream.js";

let known = null;
let lostSince = null;

// ---- What is drawn ----

const eventTime = new EventTime();
const pages = new Pages(ask);
const detail = new Detail(ask);
detail.onTable(draw);
for (const total of document.querySelectorAll("[data-total]")) total.after(sparklineDrawing());

function drawWindow({ window: latest, history, cluster }) {
  if (!latest) return;
  setText(byId("window"), `${dayAndTime(latest.window_start, cluster.now_ms)} – ${time(latest.window_end)}`);
  const length = `The latest window: ${span(latest.window_end - latest.window_start)} of event time`;
  const closed = latest.close_to_commit_ms === null ? "" : `, readable ${span(latest.close_to_commit_ms)} after it closed`;
  setText(byId("closed"), length + closed);
  for (const element of document.querySelectorAll("[data-total]")) {
    const name = element.dataset.total;
    setText(element, (FIGURES[name]?.write ?? integer)(latest.totals[name]));
    sparkline(element.nextElementSibling, history.map(({ totals }) => totals[name] ?? 0));
  }
}

let drawing = false;
let dirty = { table: false, cluster: false };

/** Draws once per frame however many events come in between. */
function draw(what = { table: true, cluster: true }) {
  dirty = { table: dirty.table || what.table !== false, cluster: dirty.cluster || what.cluster !== false };
  if (drawing || !known) return;
  drawing = true;
  const frame = () => {
    drawing = false;
    const { table, cluster } = dirty;
    dirty = { table: false, cluster: false };
    if (table) {
      drawWindow(known);
      pages.draw(known);
      detail.draw(known);
    }
    if (cluster) {
      drawCluster(known.cluster);
      eventTime.draw(known.cluster);
    }
  };
  // A hidden page gets no frames.
  if (document.hidden) setTimeout(frame);
  else requestAnimationFrame(frame);
}

// ---- The connection ----

function setConnection(state, text) {
  setAttribute(byId("connection"), "data-state", state);
  setText(byId("connection"), text);
}

const stream = new Stream({
  event(name, data) {
    found();
    if (name === "snapshot") known = begin(data, known);
    else if (!known) return;
    else if (name === "window") known = apply(known, data);
    else if (name === "cluster") known = { ...known, cluster: data };
    draw({ table: name !== "cluster", cluster: name !== "window" });
  },
  lost(retryAtMs) {
    lostSince ??= Date.now();
    const shown = known?.window ? ` What is shown is from then, up to the window that ends at ${time(known.window.window_end)}.` : "";
    setText(byId("lost-says"), `The server has not answered since ${time(lostSince)}.${shown} It is tried again at ${time(retryAtMs)}.`);
    byId("lost").hidden = false;
    document.body.classList.add("stale");
    setConnection("lost", "no connection");
  },
  refused(status, detail) {
    setConnection("lost", status === 401 ? "token needed" : "refused");
    if (status === 401) return login();
    setText(byId("lost-says"), `The server refuses what this page asks for (${status}): ${detail}`);
    byId("lost").hidden = false;
  },
});

function found() {
  lostSince = null;
  byId("lost").hidden = true;
  document.body.classList.remove("stale");
  setConnection("live", "live");
  // A link carries no token.
  const guarded = sessionStorage.getItem("token") !== null;
  for (const link of document.querySelectorAll("[data-guarded]")) link.hidden = guarded;
}

function ask() {
  stream.ask(new URLSearchParams({ ...pages.parameters(), ...detail.parameters() }));
}

function login() {
  const before = sessionStorage.getItem("token");
  setText(byId("login-say"), before ? "The token that was given is not the right one." : "What it serves is for those who know http.token.");
  sessionStorage.removeItem("token");
  if (!byId("login").open) byId("login").showModal();
}

byId("login-form").addEventListener("submit", () => {
  sessionStorage.setItem("token", byId("token").value);
  byId("token").value = "";
  ask();
});
byId("login").addEventListener("cancel", (event) => event.preventDefault());
byId("retry").addEventListener("click", () => stream.retry());

ask();
