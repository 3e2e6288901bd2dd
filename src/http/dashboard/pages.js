// The table of pages: rows in the order that the server sends, sorted, searched and cut off there.
import { sparkline, sparklineDrawing } from "./charts.js";
import { byId, create, setAttribute, setText } from "./dom.js";
import { FIGURES, integer, visible } from "./format.js";
import { figure } from "./model.js";

const LIMITS = [20, 100, 1000];
const SEARCH_PAUSE_MS = 250;
/** The name in the stream, or none for the curve; what the server can sort by. */
const COLUMNS = [
  { name: "page_url", label: "Page", sort: true },
  { name: "trend", label: "Trend", title: "Views in the windows before" },
  { name: "view_count", sort: true },
  { name: "unique_users", sort: true, title: "Distinct users" },
  { name: "click_count", sort: true },
  { name: "conversion_count", sort: true },
  { name: "conversion_rate", sort: true, title: "Purchases per view" },
  { name: "engagement_rate", sort: true, title: "Share of sessions that did more than view" },
  { name: "bounce_rate", sort: true, title: "Share of sessions with one view and nothing else" },
  { name: "avg_session_duration", sort: true, title: "Mean duration of sessions, minutes and seconds" },
].map((column) => ({ label: FIGURES[column.name]?.label, ...column }));

/** The link to a page in detail. */
export const linkTo = (pageUrl) => `#page=${encodeURIComponent(pageUrl)}`;

export class Pages {
  #table = byId("top");
  #rows = new Map();
  #headers = new Map();
  #changed;
  #sort = "view_count";
  #order = "desc";
  #contains = "";
  #limit = LIMITS[0];

  /** `changed` is called when something else is to be asked for. */
  constructor(changed) {
    this.#changed = changed;
    const select = byId("sort");
    for (const column of COLUMNS) {
      const header = create("th", { scope: "col", className: column.name });
      header.setAttribute("role", "columnheader");
      if (column.sort) {
        const button = create("button", { type: "button", title: column.title ?? "" }, column.label);
        button.addEventListener("click", () => this.#sortBy(column.name));
        header.append(button);
        this.#headers.set(column.name, header);
        for (const [order, arrow] of [["desc", "↓"], ["asc", "↑"]]) {
          select.append(create("option", { value: `${column.name} ${order}`, textContent: `${column.label} ${arrow}` }));
        }
      } else {
        header.title = column.title ?? "";
        header.append(column.label);
      }
      this.#table.tHead.rows[0].append(header);
    }
    select.addEventListener("change", () => {
      [this.#sort, this.#order] = select.value.split(" ");
      this.#ask();
    });
    let typing;
    byId("search").addEventListener("input", ({ target }) => {
      clearTimeout(typing);
      typing = setTimeout(() => {
        this.#contains = target.value;
        this.#ask();
      }, SEARCH_PAUSE_MS);
    });
    byId("more").addEventListener("click", () => this.#show(1));
    byId("fewer").addEventListener("click", () => this.#show(-1));
    this.#showSort();
  }

  /** What is asked for, as parameters. */
  parameters() {
    const parameters = { sort: this.#sort, order: this.#order, limit: String(this.#limit) };
    return this.#contains ? { ...parameters, contains: this.#contains } : parameters;
  }

  #sortBy(name) {
    const initial = name === "page_url" ? "asc" : "desc";
    const other = this.#order === "asc" ? "desc" : "asc";
    this.#order = this.#sort === name ? other : initial;
    this.#sort = name;
    this.#ask();
  }

  #show(step) {
    this.#limit = LIMITS[LIMITS.indexOf(this.#limit) + step];
    this.#ask();
  }

  #ask() {
    this.#showSort();
    this.#changed();
  }

  #showSort() {
    byId("sort").value = `${this.#sort} ${this.#order}`;
    for (const [name, header] of this.#headers) {
      const sorted = this.#order === "asc" ? "ascending" : "descending";
      setAttribute(header, "aria-sort", name === this.#sort ? sorted : "none");
    }
  }

  draw(known) {
    const tbody = this.#table.tBodies[0];
    const focused = tbody.contains(document.activeElement) ? document.activeElement : null;
    const most = Math.max(...known.rows.map((row) => figure(known, row.figures, "view_count")), 1);
    const gone = new Map(this.#rows);
    let place = tbody.firstElementChild;
    for (const empty of tbody.querySelectorAll(".empty")) {
      if (place === empty) place = empty.nextElementSibling;
      empty.remove();
    }
    for (const row of known.rows) {
      const drawn = this.#rows.get(row.page_url) ?? this.#add(row.page_url);
      gone.delete(row.page_url);
      this.#fill(drawn, known, row, most);
      if (place === drawn.element) place = place.nextElementSibling;
      else tbody.insertBefore(drawn.element, place);
    }
    for (const [key, { element }] of gone) {
      element.remove();
      this.#rows.delete(key);
    }
    if (known.rows.length === 0) this.#empty(tbody, known);
    // A row that is moved loses the focus.
    if (focused && document.activeElement !== focused) (focused.isConnected ? focused : byId("pages-title")).focus({ preventScroll: true });
    this.#count(known);
  }

  #add(pageUrl) {
    const element = create("tr");
    element.setAttribute("role", "row");
    const text = visible(pageUrl);
    const cells = COLUMNS.map(({ name, label }) => {
      const cell = create("td", { className: name });
      cell.setAttribute("role", "cell");
      if (FIGURES[name]) cell.dataset.label = label;
      return cell;
    });
    const drawing = sparklineDrawing();
    cells[0].append(create("a", { href: linkTo(pageUrl), textContent: text, title: text }));
    cells[1].append(drawing);
    element.append(...cells);
    const drawn = { element, cells, drawing };
    this.#rows.set(pageUrl, drawn);
    return drawn;
  }

  #fill({ cells, drawing }, known, row, most) {
    COLUMNS.forEach(({ name }, i) => {
      if (FIGURES[name]) setText(cells[i], FIGURES[name].write(figure(known, row.figures, name)));
    });
    cells[0].style.setProperty("--share", `${(100 * figure(known, row.figures, "view_count")) / most}%`);
    sparkline(drawing, row.views);
  }

  #empty(tbody, known) {
    const why = this.#contains ? "No page has this in its address in the latest window" : "No page had an event in the latest window";
    const cell = create("td", { colSpan: COLUMNS.length, textContent: known.window ? why : "No results yet" });
    cell.setAttribute("role", "cell");
    const row = create("tr", { className: "empty" }, cell);
    row.setAttribute("role", "row");
    tbody.append(row);
  }

  #count({ rows, matching, window: latest }) {
    const [shown, all] = [integer(rows.length), integer(matching)];
    const what = this.#contains ? "pages that match" : "pages of this window";
    setText(byId("pages-say"), latest ? (rows.length < matching ? `${shown} of ${all} ${what}` : `all ${all} ${what}`) : "");
    const at = LIMITS.indexOf(this.#limit);
    const next = LIMITS[at + 1];
    byId("more").hidden = rows.length >= matching || next === undefined;
    setText(byId("more"), `Show ${integer(Math.min(next ?? 0, matching))}`);
    byId("fewer").hidden = at === 0;
    setText(byId("fewer"), `Show ${LIMITS[at - 1] ?? ""}`);
  }
}
