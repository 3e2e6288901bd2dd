//! What process 0 keeps in memory for HTTP: the last closed windows and who wants to hear of the next.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use clicktide_dataflows::event::PageAnalytics;
use serde::Serialize;
use tokio::sync::broadcast;

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

/// Sums over all pages of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Pages with an event in the window.
    pub pages: u64,
    /// Views in the window.
    pub view_count: i64,
    /// Clicks in the window.
    pub click_count: i64,
    /// Purchases in the window.
    pub conversion_count: i64,
}

impl Totals {
    fn of(pages: &[PageAnalytics]) -> Totals {
        let mut totals = Totals { pages: pages.len() as u64, ..Totals::default() };
        for page in pages {
            totals.view_count = totals.view_count.saturating_add(page.view_count);
            totals.click_count = totals.click_count.saturating_add(page.click_count);
            totals.conversion_count = totals.conversion_count.saturating_add(page.conversion_count);
        }
        totals
    }
}

/// The totals of one window, as the history in a stream's first event has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WindowTotals {
    /// Start of the window, ms, included.
    pub window_start: i64,
    /// End of the window, ms, excluded.
    pub window_end: i64,
    /// Its sums.
    pub totals: Totals,
}

/// A window in JSON: of a request, or of a `window` event in the stream.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSort {
    /// Views, the default.
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
    fn compare(self, a: &PageAnalytics, b: &PageAnalytics) -> std::cmp::Ordering {
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
    /// The body of its event in the stream, made by the first subscriber who needs it.
    event: OnceLock<Arc<str>>,
}

/// Pages in a `window` event of the stream.
pub const STREAM_PAGES: usize = 100;

impl KeptWindow {
    fn new(window: ClosedWindow, page_rows_max: usize) -> KeptWindow {
        let ClosedWindow { window_start, window_end, close_to_commit_ms, mut pages } = window;
        let totals = Totals::of(&pages);
        pages.sort_unstable_by(|a, b| PageSort::ViewCount.compare(a, b));
        pages.truncate(page_rows_max);
        KeptWindow { window_start, window_end, close_to_commit_ms, totals, pages, event: OnceLock::new() }
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

    /// The JSON of the window's event in the stream, with its [`STREAM_PAGES`] top pages. It is made once.
    pub fn event(&self) -> Arc<str> {
        let json = || super::json(&self.body(PageSort::ViewCount, STREAM_PAGES)).into();
        Arc::clone(self.event.get_or_init(json))
    }

    fn window_totals(&self) -> WindowTotals {
        WindowTotals { window_start: self.window_start, window_end: self.window_end, totals: self.totals }
    }
}

/// The last closed windows, written by the committer's thread and read by requests.
///
/// Memory is bounded by [`ViewLimits`]. Publishing waits for no reader: readers hold the lock only to copy a few
/// pointers, and a subscriber who is too slow loses windows and is told so.
#[derive(Debug)]
pub struct View {
    limits: ViewLimits,
    kept: RwLock<Kept>,
    published: broadcast::Sender<Arc<KeptWindow>>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Oldest first.
    windows: VecDeque<Arc<KeptWindow>>,
    page_rows: usize,
}

impl View {
    /// Windows a subscriber may be behind before it loses the oldest.
    pub const BACKLOG: usize = 16;

    /// An empty view.
    pub fn new(limits: ViewLimits) -> View {
        View { limits, kept: RwLock::default(), published: broadcast::Sender::new(Self::BACKLOG) }
    }

    /// Adds a window, forgets the oldest that are over the limits, and tells the subscribers.
    ///
    /// Windows come in order; one that does not end after the last one is ignored. Costs a sort of the window's pages.
    pub fn publish(&self, window: ClosedWindow) {
        let window = Arc::new(KeptWindow::new(window, self.limits.page_rows_max));
        let mut forgotten = Vec::new();
        {
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
        }
        drop(forgotten);
        // Fails only when nobody listens.
        let _ = self.published.send(window);
    }

    /// The last window that was published.
    pub fn latest(&self) -> Option<Arc<KeptWindow>> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).windows.back().cloned()
    }

    /// The totals of every kept window, oldest first.
    pub fn history(&self) -> Vec<WindowTotals> {
        self.windows().iter().map(|window| window.window_totals()).collect()
    }

    /// Calls `f` with the results of one page in every kept window, oldest first. Costs a look at every kept row.
    pub fn with_page<T>(&self, page_url: &str, f: impl FnOnce(&[&PageAnalytics]) -> T) -> T {
        let windows = self.windows();
        let rows: Vec<&PageAnalytics> =
            windows.iter().filter_map(|window| window.pages.iter().find(|page| page.page_url == page_url)).collect();
        f(&rows)
    }

    /// Hears of every window published from now on; more than [`Self::BACKLOG`] unread ones are lost, oldest first.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<KeptWindow>> {
        self.published.subscribe()
    }

    fn windows(&self) -> Vec<Arc<KeptWindow>> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).windows.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::{page, window};

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
        assert_eq!(view.history().iter().map(|kept| kept.window_end).collect::<Vec<_>>(), [10, 20, 30]);
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
    fn a_slow_subscriber_loses_windows_and_does_not_block() {
        let view = View::new(ViewLimits { windows_max: 3, page_rows_max: 100 });
        let mut subscriber = view.subscribe();
        let last = View::BACKLOG as i64 + 5;
        for end in 1..=last {
            view.publish(window(end, 1));
        }
        assert_eq!(subscriber.try_recv().unwrap_err(), broadcast::error::TryRecvError::Lagged(5));
        assert_eq!(subscriber.try_recv().unwrap().window_end(), 6);
    }
}
