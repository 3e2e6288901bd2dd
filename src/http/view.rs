//! What process 0 keeps in memory for HTTP: the last closed windows and who wants to hear of the next.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use clicktide_dataflows::event::PageAnalytics;
use serde::Serialize;
use tokio::sync::broadcast;
use utoipa::ToSchema;

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

/// Sums over all pages of a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
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

/// One closed window, in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct WindowSummary {
    /// Start of the window, ms since the epoch, included.
    pub window_start: i64,
    /// End of the window, ms since the epoch, excluded.
    pub window_end: i64,
    /// From the moment the watermark passed the window's end until its results could be read, ms, if measured.
    pub close_to_commit_ms: Option<u64>,
    /// Sums over all pages with an event in the window.
    pub totals: Totals,
    /// How many of those pages are kept in memory: those with most views, where they are not all.
    pub pages_kept: usize,
}

/// The result of one page in one window, in JSON: field by field as in the results topic.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub struct PageResult<'a> {
    /// The page's key.
    pub page_url: &'a str,
    /// Start of the window, ms since the epoch, included.
    pub window_start: i64,
    /// End of the window, ms since the epoch, excluded.
    pub window_end: i64,
    /// Views of the page in the window.
    pub view_count: i64,
    /// Distinct users with any event on the page in the window, exact.
    pub unique_users: i32,
    /// Clicks on the page in the window.
    pub click_count: i64,
    /// Purchases on the page in the window.
    pub conversion_count: i64,
    /// Share of the page's sessions with an event other than a view on it.
    #[schema(minimum = 0, maximum = 1)]
    pub engagement_rate: f64,
    /// Share of the page's sessions whose only event in the window, on any page, is one view of it.
    #[schema(minimum = 0, maximum = 1)]
    pub bounce_rate: f64,
    /// Mean duration in the window of the page's sessions, seconds.
    #[schema(minimum = 0)]
    pub avg_session_duration: f64,
}

impl<'a> From<&'a PageAnalytics> for PageResult<'a> {
    fn from(page: &'a PageAnalytics) -> Self {
        let PageAnalytics {
            ref page_url,
            window_start,
            window_end,
            view_count,
            unique_users,
            click_count,
            conversion_count,
            engagement_rate,
            bounce_rate,
            avg_session_duration,
        } = *page;
        PageResult {
            page_url,
            window_start,
            window_end,
            view_count,
            unique_users,
            click_count,
            conversion_count,
            engagement_rate,
            bounce_rate,
            avg_session_duration,
        }
    }
}

/// A window and its top pages in JSON, as a `window` event of the stream has them.
#[derive(Debug, Serialize, ToSchema)]
pub struct WindowBody<'a> {
    /// The window.
    #[serde(flatten)]
    pub window: WindowSummary,
    /// Its top pages.
    pub pages: Vec<PageResult<'a>>,
}

/// A window as the view keeps it, shared by all who read it.
#[derive(Debug)]
pub struct KeptWindow {
    summary: WindowSummary,
    /// Most views first.
    pages: Vec<PageAnalytics>,
    /// The body of its event in the stream, made by the first subscriber who needs it.
    event: OnceLock<Arc<str>>,
}

/// Pages in a `window` event of the stream.
pub const STREAM_PAGES: usize = 100;

/// Some of a window's pages, of those that a selection matches.
#[derive(Debug)]
pub struct SelectedPages<'a> {
    /// How many kept pages match.
    pub matched: usize,
    /// The ones that were asked for, in the selection's order.
    pub pages: Vec<&'a PageAnalytics>,
}

impl KeptWindow {
    fn new(window: ClosedWindow, page_rows_max: usize) -> KeptWindow {
        let ClosedWindow { window_start, window_end, close_to_commit_ms, mut pages } = window;
        let totals = Totals::of(&pages);
        let by_views = PageSelection::default();
        pages.sort_unstable_by(|a, b| by_views.compare(a, b));
        pages.truncate(page_rows_max);
        let pages_kept = pages.len();
        let summary = WindowSummary { window_start, window_end, close_to_commit_ms, totals, pages_kept };
        KeptWindow { summary, pages, event: OnceLock::new() }
    }

    /// End of the window, ms, excluded.
    pub fn window_end(&self) -> i64 {
        self.summary.window_end
    }

    /// The window without its pages.
    pub fn summary(&self) -> WindowSummary {
        self.summary
    }

    /// The pages that `selection` matches, without its first `skip`, and of those at most `limit`. Costs a look at every
    /// page, and a sort of what is given.
    pub fn select(&self, selection: &PageSelection, skip: usize, limit: usize) -> SelectedPages<'_> {
        let mut pages: Vec<&PageAnalytics> = self.pages.iter().filter(|page| selection.matches(page)).collect();
        let matched = pages.len();
        let end = skip.saturating_add(limit).min(matched);
        let skip = skip.min(end);
        // As they are kept, they are in the default's order.
        if (selection.sort, selection.order) != Default::default() {
            if (1..matched).contains(&end) {
                pages.select_nth_unstable_by(end - 1, |a, b| selection.compare(a, b));
            }
            pages[..end].sort_unstable_by(|a, b| selection.compare(a, b));
        }
        pages.truncate(end);
        pages.drain(..skip);
        SelectedPages { matched, pages }
    }

    /// The window with the first `limit` pages that `selection` matches.
    pub fn body(&self, selection: &PageSelection, limit: usize) -> WindowBody<'_> {
        let pages = self.select(selection, 0, limit).pages.into_iter().map(PageResult::from).collect();
        WindowBody { window: self.summary, pages }
    }

    /// The JSON of the window's event in the stream, with its [`STREAM_PAGES`] top pages. It is made once.
    pub fn event(&self) -> Arc<str> {
        let json = || super::json(&self.body(&PageSelection::default(), STREAM_PAGES)).into();
        Arc::clone(self.event.get_or_init(json))
    }

    /// The result of one page, if it has one that is kept.
    pub fn page(&self, page_url: &str) -> Option<&PageAnalytics> {
        self.pages.iter().find(|page| page.page_url == page_url)
    }
}

/// Why there is no window with an end that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoWindow {
    /// There is none at all.
    #[error("no window has closed yet")]
    NoneYet,
    /// It is older than what is kept.
    #[error("windows that end before {oldest} are no longer kept in memory")]
    Forgotten {
        /// End of the oldest window that is kept, ms.
        oldest: i64,
    },
    /// It is newer than the latest.
    #[error("no window that ends after {latest} has closed yet")]
    NotClosed {
        /// End of the latest window, ms.
        latest: i64,
    },
    /// No window ends there.
    #[error("no window ends at {window_end}: the closest that is kept ends at {closest}")]
    NoEnd {
        /// What was asked for, ms.
        window_end: i64,
        /// The end that is closest to it, ms.
        closest: i64,
    },
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
            if kept.windows.back().is_some_and(|last| window.window_end() <= last.window_end()) {
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

    /// The window that ends then, ms.
    ///
    /// # Errors
    /// When there is none, with the reason.
    pub fn window(&self, window_end: i64) -> Result<Arc<KeptWindow>, NoWindow> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner);
        let ends = |at: usize| kept.windows.get(at).map(|window| window.window_end());
        match kept.windows.binary_search_by_key(&window_end, |window| window.window_end()) {
            Ok(at) => Ok(Arc::clone(&kept.windows[at])),
            Err(at) => Err(match (at.checked_sub(1).and_then(ends), ends(at)) {
                (None, None) => NoWindow::NoneYet,
                (None, Some(oldest)) => NoWindow::Forgotten { oldest },
                (Some(latest), None) => NoWindow::NotClosed { latest },
                (Some(before), Some(after)) => {
                    let nearer = window_end.abs_diff(before) <= window_end.abs_diff(after);
                    NoWindow::NoEnd { window_end, closest: if nearer { before } else { after } }
                }
            }),
        }
    }

    /// Every kept window, oldest first.
    pub fn windows(&self) -> Vec<Arc<KeptWindow>> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).windows.iter().cloned().collect()
    }

    /// Every kept window without its pages, oldest first.
    pub fn history(&self) -> Vec<WindowSummary> {
        self.windows().iter().map(|window| window.summary()).collect()
    }

    /// Hears of every window published from now on; more than [`Self::BACKLOG`] unread ones are lost, oldest first.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<KeptWindow>> {
        self.published.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::query::{Order, PageSort};
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
            assert_eq!(kept.windows.back().unwrap().summary.totals.pages, pages as u64);
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
        let body = latest.body(&PageSelection::default(), 10);
        assert_eq!(body.pages.iter().map(|page| page.page_url).collect::<Vec<_>>(), ["/b", "/c"]);
        let WindowSummary { totals, pages_kept, .. } = body.window;
        assert_eq!((totals.pages, totals.view_count, pages_kept), (3, 15, 2));
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
    fn selected() {
        let mut pages = vec![page("/b", 10, 3), page("/a", 10, 3), page("/c", 10, 7), page("/C/d", 10, 0)];
        pages[0].bounce_rate = 0.5;
        pages[2].unique_users = 1;
        let closed = ClosedWindow { window_start: 0, window_end: 10, close_to_commit_ms: None, pages };
        let kept = KeptWindow::new(closed, usize::MAX);
        let select = |selection: &PageSelection, skip: usize, limit: usize, matched: usize, expected: &[&str]| {
            let selected = kept.select(selection, skip, limit);
            let pages: Vec<&str> = selected.pages.iter().map(|page| page.page_url.as_str()).collect();
            assert_eq!((selected.matched, &*pages), (matched, expected), "{selection:?} {skip} {limit}");
        };
        let (desc, asc) = (Order::Desc, Order::Asc);
        let sorted = |sort, order, skip: usize, limit: usize, expected: &[&str]| {
            select(&PageSelection { sort, order, ..PageSelection::default() }, skip, limit, 4, expected);
        };
        sorted(PageSort::ViewCount, desc, 0, 4, &["/c", "/a", "/b", "/C/d"]);
        sorted(PageSort::ViewCount, desc, 1, 2, &["/a", "/b"]);
        sorted(PageSort::ViewCount, asc, 0, 3, &["/C/d", "/a", "/b"]);
        sorted(PageSort::UniqueUsers, desc, 0, 1_000, &["/C/d", "/a", "/b", "/c"]);
        sorted(PageSort::UniqueUsers, asc, 0, 2, &["/c", "/C/d"]);
        sorted(PageSort::BounceRate, desc, 0, 2, &["/b", "/C/d"]);
        sorted(PageSort::PageUrl, desc, 0, 2, &["/c", "/b"]);
        sorted(PageSort::PageUrl, asc, 3, 9, &["/c"]);
        sorted(PageSort::BounceRate, desc, 0, 0, &[]);
        sorted(PageSort::BounceRate, desc, 4, 1, &[]);
        sorted(PageSort::BounceRate, desc, usize::MAX, usize::MAX, &[]);

        let all = PageSelection::default();
        select(&PageSelection { contains: "c".into(), ..all.clone() }, 0, 9, 1, &["/c"]);
        select(&PageSelection { prefix: "/C".into(), ..all.clone() }, 0, 9, 1, &["/C/d"]);
        select(&PageSelection { prefix: "C".into(), ..all.clone() }, 0, 9, 0, &[]);
        select(&PageSelection { view_count_min: 3, ..all.clone() }, 1, 1, 3, &["/a"]);
        select(&PageSelection { view_count_min: 8, ..all }, 0, 9, 0, &[]);
    }

    #[test]
    fn windows_by_their_ends() {
        let view = View::new(ViewLimits { windows_max: 3, page_rows_max: 100 });
        let why_not = |window_end| view.window(window_end).map_or_else(|no| no, |window| panic!("{window:?}"));
        assert_eq!(why_not(10), NoWindow::NoneYet);
        for end in [10, 20, 30, 50] {
            view.publish(window(end, 1));
        }
        assert_eq!(view.window(30).map(|window| window.window_end()), Ok(30));
        assert_eq!(why_not(10), NoWindow::Forgotten { oldest: 20 });
        assert_eq!(why_not(i64::MIN), NoWindow::Forgotten { oldest: 20 });
        assert_eq!(why_not(60), NoWindow::NotClosed { latest: 50 });
        assert_eq!(why_not(i64::MAX), NoWindow::NotClosed { latest: 50 });
        assert_eq!(why_not(40), NoWindow::NoEnd { window_end: 40, closest: 30 });
        assert_eq!(why_not(41), NoWindow::NoEnd { window_end: 41, closest: 50 });
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
