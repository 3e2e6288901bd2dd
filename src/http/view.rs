//! What process 0 keeps in memory for HTTP: the last closed windows and who wants to hear of the next.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use clicktide_dataflows::event::PageAnalytics;
use serde::Serialize;
use tokio::sync::watch;

use super::query::PageSelection;

/// A window whose results are committed: what [`View::publish`] takes.
#[derive(Clone, Debug)]
pub struct ClosedWindow {
    /// Start of the window, ms, included.
    pub window_start: i64,
    /// End of the window, ms, excluded.
    pub window_end: i64,
    /// From the moment the watermark passed the window's end until its results could be read, ms, if measured.
    pub close_to_commit_ms: Option<u64>,
    /// The result of every page with an event in the window, in any order; may be empty.
    pub pages: Vec<PageAnalytics>,
}

/// How much a [`View`] keeps.
#[derive(Clone, Copy, Debug)]
pub struct ViewLimits {
    /// Windows kept, at least 1.
    pub windows_max: usize,
    /// Page rows kept in all windows together. A row takes about 150 bytes and the page's key, which is at most 2 KiB.
    ///
    /// Where one window alone has more, only those of its pages with most views are kept; its totals count all.
    pub page_rows_max: usize,
}

impl Default for ViewLimits {
    /// 60 windows (10 min at the default slide) and 100,000 page rows.
    fn default() -> Self {
        ViewLimits { windows_max: 60, page_rows_max: 100_000 }
    }
}

/// Sums and means over all pages of a window.
///
/// Results say nothing of how many sessions a page has, so a page counts in the means of sessions by its users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Totals {
    /// Pages with an event in the window.
    pub pages: u64,
    /// Views in the window.
    pub view_count: i64,
    /// Clicks in the window.
    pub click_count: i64,
    /// Purchases in the window.
    pub conversion_count: i64,
    /// Purchases per view; none without views.
    pub conversion_rate: Option<f64>,
    /// Mean of the pages' shares of engaged sessions, by their users; none without pages.
    pub engagement_rate: Option<f64>,
    /// Mean of the pages' shares of bounced sessions, by their users; none without pages.
    pub bounce_rate: Option<f64>,
    /// Mean of the pages' session durations, by their users, seconds; none without pages.
    pub avg_session_duration: Option<f64>,
}

impl Totals {
    /// The same pages in the same order give the same totals, bit for bit.
    fn of(pages: &[PageAnalytics]) -> Totals {
        let mut totals = Totals { pages: pages.len() as u64, ..Totals::default() };
        let (mut users, mut engaged, mut bounced, mut duration) = (0.0, 0.0, 0.0, 0.0);
        for page in pages {
            totals.view_count = totals.view_count.saturating_add(page.view_count);
            totals.click_count = totals.click_count.saturating_add(page.click_count);
            totals.conversion_count = totals.conversion_count.saturating_add(page.conversion_count);
            let weight = f64::from(page.unique_users);
            users += weight;
            engaged += weight * page.engagement_rate;
            bounced += weight * page.bounce_rate;
            duration += weight * page.avg_session_duration;
        }
        totals.conversion_rate = rate(totals.conversion_count, totals.view_count);
        let mean = |sum: f64| (users > 0.0).then(|| sum / users);
        (totals.engagement_rate, totals.bounce_rate) = (mean(engaged), mean(bounced));
        totals.avg_session_duration = mean(duration);
        totals
    }
}

/// How many there are of the whole; none of nothing.
pub(super) fn rate(part: i64, whole: i64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// A window in JSON, as requests get it.
#[derive(Debug, Serialize)]
pub struct WindowBody<'a> {
    /// Start of the window, ms, included.
    pub window_start: i64,
    /// End of the window, ms, excluded.
    pub window_end: i64,
    /// From the moment the watermark passed the window's end until its results could be read, ms, if measured.
    pub close_to_commit_ms: Option<u64>,
    /// Sums over all its pages, also those not in `pages`.
    pub totals: Totals,
    /// Its top pages.
    pub pages: Vec<&'a PageAnalytics>,
}

/// What the top pages are sorted by, greatest first; the names are those of the result's fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PageSort {
    /// Views, the default.
    #[default]
    ViewCount,
    /// Distinct users.
    UniqueUsers,
    /// Clicks.
    ClickCount,
    /// Purchases.
    ConversionCount,
    /// Share of engaged sessions.
    EngagementRate,
    /// Share of bounced sessions.
    BounceRate,
    /// Mean duration of sessions.
    AvgSessionDuration,
}

impl PageSort {
    /// Every sort, with the name it has in requests.
    pub const NAMES: [(&'static str, PageSort); 7] = [
        ("view_count", PageSort::ViewCount),
        ("unique_users", PageSort::UniqueUsers),
        ("click_count", PageSort::ClickCount),
        ("conversion_count", PageSort::ConversionCount),
        ("engagement_rate", PageSort::EngagementRate),
        ("bounce_rate", PageSort::BounceRate),
        ("avg_session_duration", PageSort::AvgSessionDuration),
    ];

    /// The sort of that name, if there is one.
    pub fn parse(name: &str) -> Option<PageSort> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, sort)| *sort)
    }

    /// Orders two pages, the greater first; pages that are equal are in the order of their keys.
    pub(super) fn compare(self, a: &PageAnalytics, b: &PageAnalytics) -> std::cmp::Ordering {
        let descending = match self {
            PageSort::ViewCount => b.view_count.cmp(&a.view_count),
            PageSort::UniqueUsers => b.unique_users.cmp(&a.unique_users),
            PageSort::ClickCount => b.click_count.cmp(&a.click_count),
            PageSort::ConversionCount => b.conversion_count.cmp(&a.conversion_count),
            PageSort::EngagementRate => b.engagement_rate.total_cmp(&a.engagement_rate),
            PageSort::BounceRate => b.bounce_rate.total_cmp(&a.bounce_rate),
            PageSort::AvgSessionDuration => b.avg_session_duration.total_cmp(&a.avg_session_duration),
        };
        descending.then_with(|| a.page_url.cmp(&b.page_url))
    }
}

/// A window as the view keeps it, shared by all who read it.
#[derive(Debug)]
pub struct KeptWindow {
    window_start: i64,
    window_end: i64,
    close_to_commit_ms: Option<u64>,
    totals: Totals,
    /// Most views first.
    pages: Vec<PageAnalytics>,
    /// The places of the pages in order of their keys, made by the first who looks for a page.
    by_key: OnceLock<Vec<u32>>,
}

impl KeptWindow {
    fn new(window: ClosedWindow, page_rows_max: usize) -> KeptWindow {
        let ClosedWindow { window_start, window_end, close_to_commit_ms, mut pages } = window;
        let totals = Totals::of(&pages);
        pages.sort_unstable_by(|a, b| PageSort::ViewCount.compare(a, b));
        pages.truncate(page_rows_max);
        KeptWindow { window_start, window_end, close_to_commit_ms, totals, pages, by_key: OnceLock::new() }
    }

    /// Start of the window, ms, included.
    pub fn window_start(&self) -> i64 {
        self.window_start
    }

    /// End of the window, ms, excluded.
    pub fn window_end(&self) -> i64 {
        self.window_end
    }

    /// The window with its first `limit` pages by `sort`.
    pub fn body(&self, sort: PageSort, limit: usize) -> WindowBody<'_> {
        let mut pages: Vec<&PageAnalytics> = self.pages.iter().collect();
        let limit = limit.min(pages.len());
        if sort != PageSort::ViewCount {
            if limit > 0 && limit < pages.len() {
                pages.select_nth_unstable_by(limit, |a, b| sort.compare(a, b));
            }
            pages[..limit].sort_unstable_by(|a, b| sort.compare(a, b));
        }
        pages.truncate(limit);
        WindowBody {
            window_start: self.window_start,
            window_end: self.window_end,
            close_to_commit_ms: self.close_to_commit_ms,
            totals: self.totals,
            pages,
        }
    }

    /// From the moment the watermark passed its end until its results could be read, ms, if measured.
    pub fn close_to_commit_ms(&self) -> Option<u64> {
        self.close_to_commit_ms
    }

    /// Its sums and means.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// The pages that are kept of it, most views first.
    pub fn pages(&self) -> &[PageAnalytics] {
        &self.pages
    }

    /// The places among its pages of the first `limit` of a selection, in their order, and how many pages match.
    pub(super) fn select(&self, selection: &PageSelection, limit: usize) -> (Vec<usize>, usize) {
        let mut places: Vec<usize> =
            (0..self.pages.len()).filter(|place| selection.matches(&self.pages[*place])).collect();
        let matching = places.len();
        let limit = limit.min(matching);
        let compare = |a: &usize, b: &usize| selection.compare(&self.pages[*a], &self.pages[*b]);
        if limit > 0 && limit < matching {
            places.select_nth_unstable_by(limit, compare);
        }
        places.truncate(limit);
        places.sort_unstable_by(compare);
        (places, matching)
    }

    /// The result of one page, if it is kept. Costs a binary search, and a sort of the keys the first time.
    pub fn page(&self, page_url: &str) -> Option<&PageAnalytics> {
        let key = |place: &u32| self.pages[*place as usize].page_url.as_str();
        let by_key = self.by_key.get_or_init(|| {
            let mut places: Vec<u32> = (0..).take(self.pages.len()).collect();
            places.sort_unstable_by_key(key);
            places
        });
        let found = by_key.binary_search_by_key(&page_url, key).ok()?;
        Some(&self.pages[by_key[found] as usize])
    }
}

/// The last closed windows, written by the committer's thread and read by requests.
///
/// Memory is bounded by [`ViewLimits`]. Publishing waits for no reader: readers hold the lock only to copy a few
/// pointers, and who wants to hear of windows is told that there are new ones, and fetches them.
#[derive(Debug)]
pub struct View {
    limits: ViewLimits,
    kept: RwLock<Kept>,
    changed: watch::Sender<Edition>,
}

/// Which windows a view holds: it changes when they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Edition {
    /// How often older windows have been put before the others.
    pub restored: u64,
    /// End of the last window, ms.
    pub window_end: Option<i64>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Oldest first.
    windows: VecDeque<Arc<KeptWindow>>,
    page_rows: usize,
    restored: u64,
}

impl Kept {
    fn edition(&self) -> Edition {
        Edition { restored: self.restored, window_end: self.windows.back().map(|last| last.window_end) }
    }
}

impl View {
    /// An empty view.
    pub fn new(limits: ViewLimits) -> View {
        View { limits, kept: RwLock::default(), changed: watch::Sender::default() }
    }

    /// Adds a window, forgets the oldest that are over the limits, and tells those who want to hear of it.
    ///
    /// Windows come in order; one that does not end after the last one is ignored. Costs a sort of the window's pages.
    pub fn publish(&self, window: ClosedWindow) {
        let window = Arc::new(KeptWindow::new(window, self.limits.page_rows_max));
        let mut forgotten = Vec::new();
        let edition = {
            let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
            if kept.windows.back().is_some_and(|last| window.window_end <= last.window_end) {
                return;
            }
            kept.page_rows += window.pages.len();
            kept.windows.push_back(Arc::clone(&window));
            while kept.windows.len() > 1
                && (kept.windows.len() > self.limits.windows_max || kept.page_rows > self.limits.page_rows_max)
            {
                let Some(oldest) = kept.windows.pop_front() else { break };
                kept.page_rows -= oldest.pages.len();
                forgotten.push(oldest);
            }
            kept.edition()
        };
        drop(forgotten);
        self.changed.send_replace(edition);
    }

    /// Puts windows of an earlier run before those that are there, as far as the limits allow, the latest first.
    ///
    /// They are in order; those that do not end before the first that is there are ignored.
    pub fn restore(&self, windows: Vec<ClosedWindow>) {
        let rows_max = self.limits.page_rows_max;
        let windows: Vec<_> = windows.into_iter().map(|window| Arc::new(KeptWindow::new(window, rows_max))).collect();
        let edition = {
            let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
            for window in windows.into_iter().rev() {
                if kept.windows.front().is_some_and(|first| window.window_end >= first.window_end) {
                    continue;
                }
                let page_rows = kept.page_rows + window.pages.len();
                let fits = kept.windows.len() < self.limits.windows_max && page_rows <= rows_max;
                if !fits && !kept.windows.is_empty() {
                    break;
                }
                kept.page_rows = page_rows;
                kept.windows.push_front(window);
            }
            kept.restored += 1;
            kept.edition()
        };
        self.changed.send_replace(edition);
    }

    /// How much it keeps.
    pub fn limits(&self) -> ViewLimits {
        self.limits
    }

    /// The last windows that are kept, at most so many, oldest first, and which edition that is.
    pub fn recent(&self, windows_max: usize) -> (Vec<Arc<KeptWindow>>, Edition) {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let skipped = kept.windows.len().saturating_sub(windows_max);
        (kept.windows.iter().skip(skipped).cloned().collect(), kept.edition())
    }

    /// Hears of every change of the windows that are kept.
    pub fn changes(&self) -> watch::Receiver<Edition> {
        self.changed.subscribe()
    }

    /// The last window that was published.
    pub fn latest(&self) -> Option<Arc<KeptWindow>> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).windows.back().cloned()
    }

    /// Calls `f` with the results of one page in every kept window, oldest first.
    pub fn with_page<T>(&self, page_url: &str, f: impl FnOnce(&[&PageAnalytics]) -> T) -> T {
        let windows = self.windows();
        let rows: Vec<&PageAnalytics> = windows.iter().filter_map(|window| window.page(page_url)).collect();
        f(&rows)
    }

    fn windows(&self) -> Vec<Arc<KeptWindow>> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).windows.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{page, window};

    fn ends(view: &View) -> Vec<i64> {
        view.recent(usize::MAX).0.iter().map(|kept| kept.window_end).collect()
    }

    #[test]
    fn memory_is_bounded() {
        // (windows published, pages in each, windows kept, rows kept)
        let check = |published: i64, pages: usize, windows: usize, rows: usize| {
            let view = View::new(ViewLimits { windows_max: 5, page_rows_max: 100 });
            for end in 1..=published {
                view.publish(window(end, pages));
            }
            let kept = view.kept.read().unwrap();
            assert_eq!((kept.windows.len(), kept.page_rows), (windows, rows), "{published} windows of {pages} pages");
            assert_eq!(kept.page_rows, kept.windows.iter().map(|window| window.pages.len()).sum::<usize>());
            assert_eq!(kept.windows.back().unwrap().totals.pages, pages as u64);
        };
        check(3, 10, 3, 30);
        check(9, 10, 5, 50);
        check(9, 40, 2, 80);
        check(9, 100, 1, 100);
        check(9, 1_000, 1, 100);
        check(9, 0, 5, 0);
    }

    #[test]
    fn pages_beyond_the_limit_are_those_with_fewest_views() {
        let view = View::new(ViewLimits { windows_max: 5, page_rows_max: 2 });
        let pages = vec![page("/a", 10, 1), page("/b", 10, 9), page("/c", 10, 5)];
        view.publish(ClosedWindow { window_start: 0, window_end: 10, close_to_commit_ms: None, pages });
        let latest = view.latest().unwrap();
        let body = latest.body(PageSort::ViewCount, 10);
        assert_eq!(body.pages.iter().map(|page| page.page_url.as_str()).collect::<Vec<_>>(), ["/b", "/c"]);
        assert_eq!((body.totals.pages, body.totals.view_count), (3, 15));
    }

    #[test]
    fn windows_out_of_order_are_ignored() {
        let view = View::new(ViewLimits::default());
        for end in [10, 20, 20, 15, 30] {
            view.publish(window(end, 1));
        }
        assert_eq!(ends(&view), [10, 20, 30]);
    }

    #[test]
    fn sorted() {
        let mut pages = vec![page("/b", 10, 3), page("/a", 10, 3), page("/c", 10, 7)];
        pages[0].bounce_rate = 0.5;
        pages[2].unique_users = 1;
        let kept = KeptWindow::new(
            ClosedWindow { window_start: 0, window_end: 10, close_to_commit_ms: None, pages },
            usize::MAX,
        );
        let check = |sort: &str, limit: usize, expected: &[&str]| {
            let body = kept.body(PageSort::parse(sort).unwrap(), limit);
            let pages: Vec<&str> = body.pages.iter().map(|page| page.page_url.as_str()).collect();
            assert_eq!(pages, expected, "{sort} {limit}");
        };
        check("view_count", 3, &["/c", "/a", "/b"]);
        check("view_count", 1, &["/c"]);
        check("unique_users", 1000, &["/a", "/b", "/c"]);
        check("bounce_rate", 2, &["/b", "/a"]);
        check("bounce_rate", 0, &[]);
    }

    #[test]
    fn totals() {
        let mut pages = vec![page("/a", 10, 10), page("/b", 10, 30)];
        (pages[0].unique_users, pages[0].bounce_rate) = (9, 0.0);
        (pages[1].unique_users, pages[1].bounce_rate) = (1, 1.0);
        let totals = Totals::of(&pages);
        assert_eq!((totals.view_count, totals.conversion_count), (40, 2));
        assert_eq!((totals.conversion_rate, totals.bounce_rate), (Some(0.05), Some(0.1)));
        assert_eq!((totals.engagement_rate, totals.avg_session_duration), (Some(0.5), Some(12.5)));
        let nothing = Totals::of(&[]);
        assert_eq!((nothing.conversion_rate, nothing.bounce_rate), (None, None));
    }

    #[test]
    fn a_page_is_found() {
        let kept = KeptWindow::new(window(10, 500), 400);
        assert_eq!(kept.page("/250").map(|page| page.view_count), Some(250));
        assert_eq!(kept.page("/99"), None, "it was cut off");
        assert_eq!(kept.page(""), None);
    }

    #[test]
    fn windows_of_an_earlier_run() {
        // (ends published, ends restored, ends kept), with room for 5 windows and 50 rows, 10 in each.
        let check = |published: &[i64], restored: &[i64], expected: &[i64]| {
            let view = View::new(ViewLimits { windows_max: 5, page_rows_max: 50 });
            published.iter().for_each(|end| view.publish(window(*end, 10)));
            let changes = view.changes();
            view.restore(restored.iter().map(|end| window(*end, 10)).collect());
            assert!(changes.has_changed().unwrap());
            assert_eq!(ends(&view), expected, "{published:?} after {restored:?}");
            let kept = view.kept.read().unwrap();
            assert_eq!(kept.page_rows, kept.windows.iter().map(|window| window.pages.len()).sum::<usize>());
        };
        check(&[], &[], &[]);
        check(&[], &[1, 2, 3], &[1, 2, 3]);
        check(&[4, 5], &[1, 2, 3], &[1, 2, 3, 4, 5]);
        check(&[4, 5], &[-1, 0, 1, 2, 3], &[1, 2, 3, 4, 5]);
        check(&[4, 5], &[2, 3, 4, 5, 6], &[2, 3, 4, 5]);
        check(&[4, 5, 6, 7, 8], &[1, 2, 3], &[4, 5, 6, 7, 8]);
        let view = View::new(ViewLimits { windows_max: 5, page_rows_max: 50 });
        view.restore(vec![window(1, 30), window(2, 30)]);
        assert_eq!(ends(&view), [2]);
    }
}
