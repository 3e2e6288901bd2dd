// Curves: small ones without axes, and those of one page over time.
import { create, setAttribute, setText, svg } from "./dom.js";
import { dayAndTime, time } from "./format.js";

/** Draws a small curve into an SVG of 100 by 24 that is stretched to its place. */
export function sparkline(drawing, values) {
  const top = Math.max(...values, 0) || 1;
  const x = (i) => (values.length > 1 ? (100 * i) / (values.length - 1) : 100);
  const line = values.map((value, i) => `${i ? "L" : "M"}${x(i).toFixed(1)} ${(22 - 20 * (value / top)).toFixed(1)}`).join("");
  const [area, curve] = drawing.children.length ? drawing.children : append(drawing);
  setAttribute(area, "d", values.length > 1 ? `${line}V24H0Z` : "");
  setAttribute(curve, "d", values.length > 1 ? line : "");
}

function append(drawing) {
  drawing.append(svg("path", { class: "area" }), svg("path", { class: "curve" }));
  return drawing.children;
}

/** An empty SVG for [`sparkline`]. */
export function sparklineDrawing() {
  return svg("svg", { class: "sparkline", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" });
}

const [WIDTH, HEIGHT, TOP] = [320, 96, 22];

/** A curve over time with its greatest value, its first and last time, and what it says where one points at it. */
export class Chart {
  #write;
  #value = create("output", { className: "now" });
  #peak = create("span", { className: "peak" });
  #from = create("span");
  #to = create("span");
  #drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  #ends = [];
  #values = [];

  constructor(title, write, explanation) {
    this.#write = write;
    this.#drawing.append(svg("path", { class: "area" }), svg("path", { class: "curve" }), svg("line", { class: "cursor", y1: 0, y2: HEIGHT }));
    const name = create("h3", { textContent: title });
    if (explanation) name.title = explanation;
    const plot = create("div", { className: "plot" }, this.#peak, this.#drawing);
    this.element = create("div", { className: "chart" }, name, this.#value, plot, create("div", { className: "axis" }, this.#from, this.#to));
    setAttribute(this.#drawing, "aria-label", title);
    this.#drawing.addEventListener("pointermove", (event) => this.#point(event));
    this.#drawing.addEventListener("pointerleave", () => this.#rest());
  }

  /** Draws these values of the windows with these ends; null where there is none. */
  draw(ends, values, nowMs) {
    this.#ends = ends;
    this.#values = values;
    const top = Math.max(...values.filter((value) => value !== null), 0) || 1;
    const step = WIDTH / Math.max(values.length - 1, 1);
    const y = (value) => (HEIGHT - (HEIGHT - TOP) * (value / top)).toFixed(1);
    // A curve for each run of windows that have a value.
    let [line, area, begun] = ["", "", null];
    values.forEach((value, i) => {
      const x = (i * step).toFixed(1);
      if (value === null) {
        if (begun !== null) area += `V${HEIGHT}H${begun}Z`;
        begun = null;
        return;
      }
      const point = `${begun === null ? "M" : "L"}${x} ${y(value)}`;
      // Also a single value can be seen.
      line += begun === null ? `${point}h.1` : point;
      area += begun === null ? `M${x} ${HEIGHT}V${y(value)}` : point;
      begun ??= x;
    });
    if (begun !== null) area += `V${HEIGHT}H${begun}Z`;
    const [areaPath, curve] = this.#drawing.children;
    setAttribute(areaPath, "d", area);
    setAttribute(curve, "d", line);
    setText(this.#peak, values.some((value) => value !== null) ? this.#write(Math.max(...values)) : "");
    setText(this.#from, ends.length ? dayAndTime(ends[0], nowMs) : "");
    setText(this.#to, ends.length ? time(ends.at(-1)) : "");
    this.#rest();
  }

  #rest() {
    this.element.classList.remove("pointed");
    setText(this.#value, this.#write(this.#values.at(-1) ?? null));
  }

  #point(event) {
    const { left, width } = this.#drawing.getBoundingClientRect();
    const last = this.#values.length - 1;
    if (last < 0) return;
    const i = Math.round(Math.min(Math.max((event.clientX - left) / width, 0), 1) * last);
    const x = last > 0 ? (WIDTH * i) / last : 0;
    const cursor = this.#drawing.children[2];
    setAttribute(cursor, "x1", String(x));
    setAttribute(cursor, "x2", String(x));
    this.element.classList.add("pointed");
    setText(this.#value, `${this.#write(this.#values[i])} at ${time(this.#ends[i])}`);
  }
}
