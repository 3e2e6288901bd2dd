// What every part of the page needs to draw: texts and attributes are only touched where they change.
// Nothing here takes markup: whatever comes from outside ends up in text nodes and attribute values.

export const byId = (id) => document.getElementById(id);

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export function setAttribute(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

export function create(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

/** An SVG element with these attributes. */
export function svg(name, attributes = {}, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  return element;
}

/** Fills a table's body with these texts, row by row, and keeps the rows that are there. */
export function fillTable(table, rows) {
  const tbody = table.tBodies[0];
  for (const empty of tbody.querySelectorAll(".empty")) empty.remove();
  while (tbody.rows.length > rows.length) tbody.deleteRow(-1);
  rows.forEach((texts, i) => {
    const row = tbody.rows[i] ?? tbody.insertRow();
    texts.forEach((text, j) => {
      // The first names what the others are about.
      if (!row.cells[j]) row.append(j === 0 ? create("th", { scope: "row" }) : create("td"));
      setText(row.cells[j], text);
    });
  });
  return tbody.rows;
}
