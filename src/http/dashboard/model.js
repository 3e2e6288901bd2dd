// What the page knows: a snapshot of the server's, and the changes that it sends after it.

/** What the stream's first event says. `kept` is what was known before: it stays until the server has a window. */
export function begin({ table, page, cluster }, kept) {
  const known = table.window || !kept ? { ...table, page } : kept;
  return { ...known, cluster };
}

/** The same with what one window has changed. */
export function apply(known, { table, page }) {
  const history = [...known.history.slice(table.forgotten), table.window];
  const points = Math.min(history.length, known.sparkline_max);
  const added = new Set(table.added);
  let rows = known.rows;
  if (table.order) {
    let next = 0;
    rows = table.order.flatMap(([first, count]) =>
      first < 0 ? table.added.slice(next, (next += count)) : known.rows.slice(first, first + count),
    );
  }
  const changed = new Map(table.changed);
  rows = rows.map((row, place) => {
    if (added.has(row)) return row;
    const figures = changed.get(place) ?? row.figures;
    return { ...row, figures, views: [...row.views, figures[0]].slice(-points) };
  });
  const detail = known.page && { ...known.page, windows: [...known.page.windows.slice(table.forgotten), page] };
  return { ...known, window: table.window, history, matching: table.matching, rows, page: detail };
}

/** A page's figure by its name. */
export function figure(known, figures, name) {
  return figures[known.columns.indexOf(name)];
}
