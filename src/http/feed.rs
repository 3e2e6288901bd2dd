//! What the streams say of closed windows: differences between one window and the next, made once for all streams that
//! ask for the same.
//!
//! ```text
//!            all streams with the same sort, order, contains and limit
//! View ─▶ Feed: the rows of the last window ─┬─▶ snapshot  (made when somebody needs it)
//!                                            └─▶ change, one per window, the last few of them
//! ```
//!
//! A feed holds the places of its rows in the last window and pointers to the windows that its history shows. A change
//! costs a selection of the window's pages, a hash of each row's key, and for rows that are new a search in every window
//! of their sparkline.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use clicktide_dataflows::event::PageAnalytics;
use serde::Serialize;

use super::query::PageSelection;
use super::view::{Edition, KeptWindow, View, WindowSummary, rate};

/// Windows in the history of a stream: the last of those that are kept.
pub(super) const HISTORY_MAX: usize = 240;
/// Windows in the sparkline of a row: the last of the history.
pub(super) const SPARKLINE_MAX: usize = 60;
/// Windows that a stream may be behind before it has to start again from a snapshot.
pub(super) const BEHIND_MAX: usize = 8;

/// What a stream asks for: at most so many of some pages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RowsQuery {
    pub(super) selection: PageSelection,
    pub(super) limit: usize,
}

/// The feeds of all streams, by what they ask for.
pub(super) struct Feeds {
    view: Arc<View>,
    feeds: Mutex<HashMap<RowsQuery, Weak<Feed>>>,
}

impl Feeds {
    pub(super) fn new(view: Arc<View>) -> Feeds {
        Feeds { view, feeds: Mutex::default() }
    }

    /// The feed of those who ask for this. It lives as long as any of them holds it.
    pub(super) fn feed(&self, query: RowsQuery) -> Arc<Feed> {
        let mut feeds = lock(&self.feeds);
        if let Some(feed) = feeds.get(&query).and_then(Weak::upgrade) {
            return feed;
        }
        feeds.retain(|_, feed| feed.strong_count() > 0);
        let feed = Arc::new(Feed { view: Arc::clone(&self.view), query: query.clone(), state: Mutex::default() });
        feeds.insert(query, Arc::downgrade(&feed));
        feed
    }
}

/// The rows of the latest window, as one kind of stream shows them.
pub(super) struct Feed {
    view: Arc<View>,
    query: RowsQuery,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    frame: Frame,
    snapshot: Option<Arc<str>>,
    /// The last changes, oldest first; each begins where the one before ends.
    changes: VecDeque<Change>,
}

/// What is shown at one moment.
#[derive(Clone, Default)]
struct Frame {
    edition: Edition,
    /// The windows of the history, oldest first.
    windows: Vec<Arc<KeptWindow>>,
    /// The places of the rows in the last of them, in their order.
    rows: Vec<usize>,
    /// Pages of the last window that match the query, shown or not.
    matching: usize,
}

/// What one window changes.
#[derive(Clone)]
pub(super) struct Change {
    before: Edition,
    /// What the stream then shows.
    pub(super) after: Edition,
    /// The window.
    pub(super) window: Arc<KeptWindow>,
    /// The change as JSON.
    pub(super) json: Arc<str>,
}

/// What a stream starts from.
pub(super) struct Snapshot {
    /// What it shows.
    pub(super) edition: Edition,
    /// The windows of its history, oldest first.
    pub(super) windows: Vec<Arc<KeptWindow>>,
    /// The snapshot as JSON.
    pub(super) json: Arc<str>,
}

impl Feed {
    /// Everything that is shown now.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut state = self.caught_up();
        let State { frame, snapshot, .. } = &mut *state;
        let json = snapshot.get_or_insert_with(|| super::json(&frame.snapshot()).into());
        Snapshot { edition: frame.edition, windows: frame.windows.clone(), json: Arc::clone(json) }
    }

    /// What has changed since `edition` was shown, oldest first; none when only a snapshot can say it.
    pub(super) fn changes_since(&self, edition: Edition) -> Option<Vec<Change>> {
        let state = self.caught_up();
        if state.frame.edition == edition {
            return Some(Vec::new());
        }
        let first = state.changes.iter().position(|change| change.before == edition)?;
        Some(state.changes.iter().skip(first).cloned().collect())
    }

    /// Takes in the windows that are new.
    fn caught_up(&self) -> MutexGuard<'_, State> {
        let mut state = lock(&self.state);
        let (windows, edition) = self.view.recent(HISTORY_MAX + BEHIND_MAX);
        if edition == state.frame.edition {
            return state;
        }
        let shown = state.frame.edition;
        let place = |end: i64| windows.iter().position(|window| window.window_end() == end);
        let next = shown.window_end.map_or(Some(0), |end| place(end).map(|place| place + 1));
        let next = next.filter(|next| edition.restored == shown.restored && windows.len() - next <= BEHIND_MAX);
        if let Some(next) = next {
            for until in next..windows.len() {
                let frame = Frame::new(&windows[..=until], edition.restored, &self.query);
                let (before, after) = (state.frame.edition, frame.edition);
                let json = super::json(&frame.change(&state.frame)).into();
                state.changes.push_back(Change { before, after, window: Arc::clone(&windows[until]), json });
                state.frame = frame;
            }
            let old = state.changes.len().saturating_sub(BEHIND_MAX);
            state.changes.drain(..old);
        } else {
            state.changes.clear();
            state.frame = Frame::new(&windows, edition.restored, &self.query);
        }
        state.snapshot = None;
        state
    }
}

/// The figures of a page, in the order of [`COLUMNS`].
#[derive(Clone, Copy, PartialEq, Serialize)]
pub(super) struct Figures(i64, i32, i64, i64, Option<f64>, f64, f64, f64);

const COLUMNS: [&str; 8] = [
    "view_count",
    "unique_users",
    "click_count",
    "conversion_count",
    "conversion_rate",
    "engagement_rate",
    "bounce_rate",
    "avg_session_duration",
];

impl Figures {
    pub(super) fn of(page: &PageAnalytics) -> Figures {
        let PageAnalytics { view_count, unique_users, click_count, conversion_count, .. } = *page;
        let conversion_rate = rate(conversion_count, view_count);
        let PageAnalytics { engagement_rate, bounce_rate, avg_session_duration, .. } = *page;
        Figures(
            view_count,
            unique_users,
            click_count,
            conversion_count,
            conversion_rate,
            engagement_rate,
            bounce_rate,
            avg_session_duration,
        )
    }
}

#[derive(Serialize)]
struct FrameBody<'a> {
    window: Option<WindowSummary>,
    history: Vec<WindowSummary>,
    columns: [&'static str; COLUMNS.len()],
    sparkline_max: usize,
    matching: usize,
    rows: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct ChangeBody<'a> {
    window: Option<WindowSummary>,
    forgotten: usize,
    matching: usize,
    order: Option<Vec<(i64, usize)>>,
    added: Vec<Row<'a>>,
    changed: Vec<(usize, Figures)>,
}

#[derive(Serialize)]
struct Row<'a> {
    page_url: &'a str,
    figures: Figures,
    /// Its views in the last windows of the history, 0 where it has no result.
    views: Vec<i64>,
}

impl Frame {
    /// What is shown when these windows are all that is kept.
    fn new(windows: &[Arc<KeptWindow>], restored: u64, query: &RowsQuery) -> Frame {
        let windows = windows[windows.len().saturating_sub(HISTORY_MAX)..].to_vec();
        let window_end = windows.last().map(|last| last.window_end());
        let (rows, matching) =
            windows.last().map_or_else(Default::default, |last| last.places(&query.selection, 0, query.limit));
        Frame { edition: Edition { restored, window_end }, windows, rows, matching }
    }

    fn page(&self, row: usize) -> Option<&PageAnalytics> {
        self.windows.last()?.pages().get(*self.rows.get(row)?)
    }

    fn pages(&self) -> impl Iterator<Item = &PageAnalytics> {
        (0..self.rows.len()).filter_map(|row| self.page(row))
    }

    fn row<'a>(&self, page: &'a PageAnalytics) -> Row<'a> {
        let first = self.windows.len().saturating_sub(SPARKLINE_MAX);
        let views = |window: &Arc<KeptWindow>| window.page(&page.page_url).map_or(0, |page| page.view_count);
        let views = self.windows[first..].iter().map(views).collect();
        Row { page_url: &page.page_url, figures: Figures::of(page), views }
    }

    fn snapshot(&self) -> FrameBody<'_> {
        FrameBody {
            window: self.windows.last().map(|window| window.summary()),
            history: self.windows.iter().map(|window| window.summary()).collect(),
            columns: COLUMNS,
            sparkline_max: SPARKLINE_MAX,
            matching: self.matching,
            rows: self.pages().map(|page| self.row(page)).collect(),
        }
    }

    /// What has changed since `old`, one window before.
    fn change(&self, old: &Frame) -> ChangeBody<'_> {
        let places: HashMap<&str, usize> =
            old.pages().enumerate().map(|(place, page)| (page.page_url.as_str(), place)).collect();
        let mut order: Vec<(i64, usize)> = Vec::new();
        let (mut added, mut changed) = (Vec::new(), Vec::new());
        for (place, page) in self.pages().enumerate() {
            let before = places.get(page.page_url.as_str()).copied();
            match before.and_then(|before| old.page(before)) {
                Some(old) if Figures::of(old) == Figures::of(page) => {}
                Some(_) => changed.push((place, Figures::of(page))),
                None => added.push(self.row(page)),
            }
            let from = before.map_or(ADDED, |before| before as i64);
            match order.last_mut() {
                Some((first, count)) if follows(*first, *count, from) => *count += 1,
                _ => order.push((from, 1)),
            }
        }
        let same = self.rows.len() == old.rows.len() && order.iter().all(|(from, _)| *from == 0);
        let first = self.windows.first().map(|first| first.window_end());
        let forgotten = old.windows.iter().filter(|window| Some(window.window_end()) < first).count();
        ChangeBody {
            window: self.windows.last().map(|window| window.summary()),
            forgotten,
            matching: self.matching,
            order: (!same).then_some(order),
            added,
            changed,
        }
    }
}

/// Where a run of rows that are new begins, in the order.
const ADDED: i64 = -1;

/// Whether the row that was at `from` goes on the run of `count` rows that begins at `first`.
fn follows(first: i64, count: usize, from: i64) -> bool {
    if first == ADDED { from == ADDED } else { from == first + count as i64 }
}

/// What is behind these locks is whole whatever happened to another holder.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::http::query::Order;
    use crate::http::testing::page;
    use crate::http::view::{ClosedWindow, ViewLimits};

    fn query(order: Order, contains: &str, limit: usize) -> RowsQuery {
        let selection = PageSelection { order, contains: contains.into(), ..PageSelection::default() };
        RowsQuery { selection, limit }
    }

    fn all() -> RowsQuery {
        query(Order::Desc, "", 100)
    }

    fn publish(view: &View, window_end: i64, pages: &[(&str, i64)]) {
        let pages = pages.iter().map(|(key, views)| page(key, window_end, *views)).collect();
        view.publish(ClosedWindow { window_start: window_end - 10, window_end, close_to_commit_ms: None, pages });
    }

    /// A reader that applies what it is told, as the dashboard does.
    #[derive(Debug, Default, PartialEq)]
    struct Reader {
        ends: Vec<i64>,
        matching: u64,
        rows: Vec<(String, Value, Vec<i64>)>,
    }

    impl Reader {
        fn start(snapshot: &Snapshot) -> Reader {
            let body: Value = serde_json::from_str(&snapshot.json).unwrap();
            let ends = body["history"].as_array().unwrap().iter().map(|head| head["window_end"].as_i64().unwrap());
            Reader {
                ends: ends.collect(),
                matching: body["matching"].as_u64().unwrap(),
                rows: body["rows"].as_array().unwrap().iter().map(row).collect(),
            }
        }

        fn apply(&mut self, change: &Change) {
            let body: Value = serde_json::from_str(&change.json).unwrap();
            self.ends.drain(..body["forgotten"].as_u64().unwrap() as usize);
            self.ends.push(body["window"]["window_end"].as_i64().unwrap());
            self.matching = body["matching"].as_u64().unwrap();
            let added: Vec<_> = body["added"].as_array().unwrap().iter().map(row).collect();
            if let Some(order) = body["order"].as_array() {
                let mut added = added.iter();
                let mut rows = Vec::new();
                for run in order {
                    let (first, count) = (run[0].as_i64().unwrap(), run[1].as_u64().unwrap());
                    for i in 0..count as usize {
                        let old = usize::try_from(first).map(|first| self.rows[first + i].clone());
                        rows.push(old.unwrap_or_else(|_| added.next().unwrap().clone()));
                    }
                }
                self.rows = rows;
            }
            for change in body["changed"].as_array().unwrap() {
                self.rows[change[0].as_u64().unwrap() as usize].1 = change[1].clone();
            }
            let added: Vec<&String> = added.iter().map(|(key, ..)| key).collect();
            for (key, figures, views) in &mut self.rows {
                if !added.contains(&&*key) {
                    views.push(figures[0].as_i64().unwrap());
                    let points = self.ends.len().min(SPARKLINE_MAX);
                    views.drain(..views.len() - points);
                }
            }
        }
    }

    fn row(row: &Value) -> (String, Value, Vec<i64>) {
        let views = row["views"].as_array().unwrap().iter().map(|views| views.as_i64().unwrap());
        (row["page_url"].as_str().unwrap().to_owned(), row["figures"].clone(), views.collect())
    }

    #[test]
    fn whoever_applies_the_changes_has_what_a_snapshot_says() {
        let check = |query: RowsQuery| {
            let view = Arc::new(View::new(ViewLimits { windows_max: 70, page_rows_max: 1_000 }));
            let feeds = Feeds::new(Arc::clone(&view));
            let feed = feeds.feed(query.clone());
            let start = feed.snapshot();
            let (mut reader, mut edition) = (Reader::start(&start), start.edition);
            let mut noise = 7_u64;
            for end in 1..=150_i64 {
                let mut random = |below: u64| {
                    noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (noise >> 33) % below
                };
                let pages: Vec<(String, i64)> =
                    (0..random(12)).map(|i| (format!("/{}{i}", random(3)), random(5) as i64)).collect();
                let pages: Vec<(&str, i64)> = pages.iter().map(|(key, views)| (key.as_str(), *views)).collect();
                publish(&view, end, &pages);
                if random(3) == 0 {
                    let changes = feed.changes_since(edition).expect("it is not far behind");
                    changes.iter().for_each(|change| reader.apply(change));
                    edition = changes.last().map_or(edition, |last| last.after);
                    assert_eq!(reader, Reader::start(&feed.snapshot()), "{query:?} after {end}");
                    // As somebody sees it who has just come.
                    let other = Feeds::new(Arc::clone(&view)).feed(query.clone());
                    assert_eq!(reader, Reader::start(&other.snapshot()), "{query:?} after {end}");
                }
            }
            assert_eq!(reader.ends.len(), 70);
        };
        check(all());
        check(query(Order::Desc, "", 3));
        check(query(Order::Asc, "", 5));
        check(query(Order::Desc, "/1", 100));
        check(query(Order::Desc, "none", 100));
    }

    #[test]
    fn what_a_change_says() {
        let view = Arc::new(View::new(ViewLimits::default()));
        let feed = Feeds::new(Arc::clone(&view)).feed(query(Order::Desc, "", 4));
        publish(&view, 10, &[("/a", 9), ("/b", 8), ("/c", 7), ("/d", 6), ("/e", 5)]);
        let edition = feed.snapshot().edition;
        let check = |before: Edition, pointer: &str, expected: Value| {
            let changes = feed.changes_since(before).unwrap();
            let body: Value = serde_json::from_str(&changes[0].json).unwrap();
            assert_eq!(body.pointer(pointer), Some(&expected), "{pointer} of {body:#}");
            changes[0].after
        };
        publish(&view, 20, &[("/a", 9), ("/b", 8), ("/c", 7), ("/d", 6)]);
        check(edition, "/order", Value::Null);
        let edition = check(edition, "/changed", json!([]));
        publish(&view, 30, &[("/b", 10), ("/a", 9), ("/n", 8), ("/d", 6)]);
        check(edition, "/order", json!([[1, 1], [0, 1], [-1, 1], [3, 1]]));
        check(edition, "/changed", json!([[0, [10, 3, 2, 1, 0.1, 0.5, 0.25, 12.5]]]));
        check(edition, "/added/0/views", json!([0, 0, 8]));
        check(edition, "/window/totals/view_count", json!(33));
        check(edition, "/matching", json!(4));
    }

    #[test]
    fn what_is_equal_is_shared() {
        let view = Arc::new(View::new(ViewLimits::default()));
        publish(&view, 10, &[("/a", 1)]);
        let feeds = Feeds::new(Arc::clone(&view));
        let (one, same, other) = (feeds.feed(all()), feeds.feed(all()), feeds.feed(query(Order::Desc, "", 7)));
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        let edition = one.snapshot().edition;
        assert!(Arc::ptr_eq(&one.snapshot().json, &same.snapshot().json));
        publish(&view, 20, &[("/a", 2)]);
        let change = |feed: &Feed| feed.changes_since(edition).unwrap()[0].json.clone();
        assert!(Arc::ptr_eq(&change(&one), &change(&same)));
        drop((one, same, other));
        drop(feeds.feed(query(Order::Desc, "", 9)));
        assert_eq!(lock(&feeds.feeds).len(), 1);
    }

    #[test]
    fn who_is_far_behind_starts_again() {
        let view = Arc::new(View::new(ViewLimits::default()));
        let feed = Feeds::new(Arc::clone(&view)).feed(all());
        publish(&view, 1, &[]);
        let edition = feed.snapshot().edition;
        for end in 2..=BEHIND_MAX as i64 + 1 {
            publish(&view, end, &[]);
        }
        assert_eq!(feed.changes_since(edition).map(|changes| changes.len()), Some(BEHIND_MAX));
        publish(&view, 100, &[]);
        assert!(feed.changes_since(edition).is_none());

        let edition = feed.snapshot().edition;
        assert_eq!(feed.changes_since(edition).map(|changes| changes.len()), Some(0));
        let pages = vec![page("/old", 0, 1)];
        view.restore(vec![ClosedWindow { window_start: -10, window_end: 0, close_to_commit_ms: None, pages }]);
        assert!(feed.changes_since(edition).is_none());
        assert_eq!(feed.snapshot().windows.first().map(|first| first.window_end()), Some(0));
    }
}
