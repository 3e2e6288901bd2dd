// One page over time: a dialog that the address names, so that it can be linked to and left with the back button.
import { Chart } from "./charts.js";
import { byId, create, fillTable, setText } from "./dom.js";
import { FIGURES, dayAndTime, integer, time, visible } from "./format.js";
import { figure } from "./model.js";

const CHARTS = [
  ["view_count", ""],
  ["unique_users", "Distinct users with any event on the page"],
  ["click_count", ""],
  ["conversion_count", ""],
  ["conversion_rate", "Purchases per view"],
  ["engagement_rate", "Share of sessions that did more than view"],
  ["bounce_rate", "Share of sessions with one view and nothing else"],
  ["avg_session_duration", "Mean duration of sessions, minutes and seconds"],
];

/** The page that the address names, or null. */
function addressed() {
  const match = /^#page=(.*)$/s.exec(location.hash);
  if (!match) return null;
  try {
    return decodeURIComponent(match[1]);
  } catch {
    return null;
  }
}

export class Detail {
  #dialog = byId("detail");
  #charts = new Map();
  #changed;
  /** Whether closing goes back to where the page was opened from. */
  #opened = false;
  #page = addressed();

  /** `changed` is called when another page is to be asked for. */
  constructor(changed) {
    this.#changed = changed;
    for (const [name, explanation] of CHARTS) {
      const chart = new Chart(FIGURES[name].label, FIGURES[name].write, explanation);
      this.#charts.set(name, chart);
      byId("charts").append(chart.element);
    }
    const head = byId("detail-table").tHead.rows[0];
    head.append(create("th", { scope: "col", textContent: "Window to" }));
    for (const [name] of CHARTS) head.append(create("th", { scope: "col", textContent: FIGURES[name].label }));
    document.addEventListener("click", (event) => {
      if (event.target.closest?.('a[href^="#page="]')) this.#opened = true;
    });
    addEventListener("hashchange", () => this.#follow());
    byId("detail-close").addEventListener("click", () => this.#leave());
    this.#dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      this.#leave();
    });
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) this.#leave();
    });
    this.#show();
  }

  /** What is asked for, as parameters. */
  parameters() {
    return this.#page === null ? {} : { page: this.#page };
  }

  #follow() {
    const page = addressed();
    if (page === this.#page) return;
    this.#page = page;
    this.#show();
    this.#changed();
  }

  #leave() {
    if (this.#opened) history.back();
    else {
      history.replaceState(null, "", location.pathname + location.search);
      this.#follow();
    }
  }

  #show() {
    if (this.#page === null) {
      this.#opened = false;
      if (this.#dialog.open) this.#dialog.close();
      return;
    }
    setText(byId("detail-title"), visible(this.#page) || "(empty)");
    setText(byId("detail-say"), "Asking the server…");
    for (const chart of this.#charts.values()) chart.draw([], [], 0);
    fillTable(byId("detail-table"), []);
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  draw(known) {
    const { page, history: windows } = known;
    if (this.#page === null || page?.page_url !== this.#page) return;
    const now = known.cluster?.now_ms ?? Date.now();
    const ends = windows.map(({ window_end }) => window_end);
    const values = (name) => page.windows.map((figures) => figures && figure(known, figures, name));
    for (const [name, chart] of this.#charts) chart.draw(ends, values(name), now);
    const seen = page.windows.filter((figures) => figures).length;
    const kept = `the last ${integer(windows.length)} windows, to ${dayAndTime(ends.at(-1) ?? null, now)}`;
    const says = seen > 0 ? `Seen in ${integer(seen)} of ${kept}` : `No event in any of ${kept}`;
    setText(byId("detail-say"), windows.length > 0 ? says : "No window has closed yet");
    if (!this.#dialog.querySelector("details").open) return;
    const rows = page.windows.map((figures, i) => [
      time(ends[i]),
      ...CHARTS.map(([name]) => FIGURES[name].write(figures && figure(known, figures, name))),
    ]);
    fillTable(byId("detail-table"), rows.reverse());
  }

  /** Draws again when the table is opened. */
  onTable(draw) {
    this.#dialog.querySelector("details").addEventListener("toggle", draw);
  }
}
