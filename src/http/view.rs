//! What process 0 keeps in memory for HTTP: the last closed windows and who wants to hear of the next.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use clicktide_dataflows::event::PageAnalytics;
use serde::Serialize;
use tokio::sync::watch;
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

/// Sums and means over all pages of a window.
///
/// Results say nothing of how many sessions a page has, so a page counts in the means of sessions by its users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, ToSchema)]
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

/// One closed window, in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub struct WindowSummary {
    /// Start of the window, ms since the epoch, included.
    pub window_start: i64,
    /// End of the window, ms since the epoch, excluded.
    pub window_end: i64,
    /// From the moment the watermark passed the window's end until its results could be read, ms, if measured.
    pub close_to_commit_ms: Option<u64>,
    /// Sums and means over all pages with an event in the window.
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

/// A window as the view keeps it, shared by all who read it.
#[derive(Debug)]
pub struct KeptWindow {
    summary: WindowSummary,
    /// Most views first.
    pages: Vec<PageAnalytics>,
    /// The places of the pages in order of their keys, made by the first who looks for a page.
    by_key: OnceLock<Vec<u32>>,
}

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
        let by_views = PageSelection::default();
        pages.sort_unstable_by(|a, b| by_views.compare(a, b));
        let totals = Totals::of(&pages);
        pages.truncate(page_rows_max);
        let pages_kept = pages.len();
        let summary = WindowSummary { window_start, window_end, close_to_commit_ms, totals, pages_kept };
        KeptWindow { summary, pages, by_key: OnceLock::new() }
    }

    /// End of the window, ms, excluded.
    pub fn window_end(&self) -> i64 {
        self.summary.window_end
    }

    /// The window without its pages.
    pub fn summary(&self) -> WindowSummary {
        self.summary
    }

    /// The pages that are kept of it, most views first.
    pub fn pages(&self) -> &[PageAnalytics] {
        &self.pages
    }

    /// The pages that `selection` matches, without its first `skip`, and of those at most `limit`. Costs a look at every
    /// page, and a sort of what is given.
    pub fn select(&self, selection: &PageSelection, skip: usize, limit: usize) -> SelectedPages<'_> {
        let (places, matched) = self.places(selection, skip, limit);
        SelectedPages { matched, pages: places.into_iter().map(|place| &self.pages[place]).collect() }
    }

    /// The places among its pages of those that [`KeptWindow::select`] gives, and how many pages match.
    pub(super) fn places(&self, selection: &PageSelection, skip: usize, limit: usize) -> (Vec<usize>, usize) {
        let mut places: Vec<usize> =
            (0..self.pages.len()).filter(|place| selection.matches(&self.pages[*place])).collect();
        let matched = places.len();
        let end = skip.saturating_add(limit).min(matched);
        // As they are kept, they are in the default's order.
        if (selection.sort, selection.order) != Default::default() {
            let compare = |a: &usize, b: &usize| selection.compare(&self.pages[*a], &self.pages[*b]);
            if (1..matched).contains(&end) {
                places.select_nth_unstable_by(end - 1, compare);
            }
            places[..end].sort_unstable_by(compare);
        }
        places.truncate(end);
        places.drain(..skip.min(end));
        (places, matched)
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
        Edition { restored: self.restored, window_end: self.windows.back().map(|last| last.window_end()) }
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
                if kept.windows.front().is_some_and(|first| window.window_end() >= first.window_end()) {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::query::{Order, PageSort};
    use crate::http::testing::{page, window};

    fn ends(view: &View) -> Vec<i64> {
        view.windows().iter().map(|kept| kept.window_end()).collect()
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
        assert_eq!(latest.pages().iter().map(|page| page.page_url.as_str()).collect::<Vec<_>>(), ["/b", "/c"]);
        let WindowSummary { totals, pages_kept, .. } = latest.summary();
        assert_eq!((totals.pages, totals.view_count, pages_kept), (3, 15, 2));
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
