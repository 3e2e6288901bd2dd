//! `/v1/windows…` and `/v1/pages…`: the kept windows, on request.

use std::sync::Arc;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::json_response;
use super::limits::NUMBER_MAX;
use super::problem::{BadRequest, NoSuchWindow, Problem};
use super::query::{Order, PagesQuery, Parameters, Place, Position, WindowRange, WindowsQuery};
use super::view::{KeptWindow, NoWindow, PageResult, View, WindowSummary};

/// Closed windows, in an order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Windows {
    /// The windows.
    windows: Vec<WindowSummary>,
    /// The `cursor` with which the list goes on, if it does.
    next_cursor: Option<String>,
}

/// The kept windows with their totals.
///
/// The list holds what is in memory: the last `http.history_windows` windows that have closed, or fewer where
/// `http.page_rows_max` or a recent start says so. Before the first window has closed it is empty.
#[utoipa::path(
    get,
    path = "/v1/windows",
    tag = "windows",
    params(WindowsQuery),
    responses((status = 200, description = "The windows.", body = Windows), BadRequest, NoSuchWindow)
)]
pub(super) async fn windows(
    State(view): State<Arc<View>>,
    Parameters(query): Parameters<WindowsQuery>,
) -> Result<Response, Problem> {
    let (range, place) = query.into_parts("windows")?;
    let kept = view.windows();
    let (windows, next_cursor) = listed(&kept, range, place, |window| Some(window.summary()))?;
    Ok(json_response(&Windows { windows, next_cursor }))
}

/// The latest closed window with its totals.
#[utoipa::path(
    get,
    path = "/v1/windows/latest",
    tag = "windows",
    responses((status = 200, description = "The window.", body = WindowSummary), NoSuchWindow)
)]
pub(super) async fn latest_window(State(view): State<Arc<View>>) -> Result<Response, Problem> {
    Ok(json_response(&latest(&view)?.summary()))
}

/// One kept window with its totals.
#[utoipa::path(
    get,
    path = "/v1/windows/{window_end}",
    tag = "windows",
    params((
        "window_end" = i64,
        Path,
        description = "End of the window, ms since the epoch.",
        minimum = -9_007_199_254_740_991_i64,
        maximum = 9_007_199_254_740_991_i64,
        example = 1_795_737_600_000_i64
    )),
    responses((status = 200, description = "The window.", body = WindowSummary), BadRequest, NoSuchWindow)
)]
pub(super) async fn window(
    State(view): State<Arc<View>>,
    window_end: Result<Path<i64>, PathRejection>,
) -> Result<Response, Problem> {
    let window_end = window_end.ok().map(|Path(window_end)| window_end);
    let window_end = window_end.filter(|window_end| (-NUMBER_MAX..=NUMBER_MAX).contains(window_end));
    let Some(window_end) = window_end else {
        return Err(Problem::bad_request(format!(
            "the window must be given by its end, a whole number from {} to {NUMBER_MAX} (ms since the epoch), or as \"latest\"",
            -NUMBER_MAX
        )));
    };
    Ok(json_response(&view.window(window_end)?.summary()))
}

/// Pages of one window, in an order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Pages<'a> {
    /// The window.
    #[serde(flatten)]
    window: WindowSummary,
    /// How many of its kept pages the filters match.
    matched: usize,
    /// The pages.
    pages: Vec<PageResult<'a>>,
    /// The `cursor` with which the list goes on, if it does.
    next_cursor: Option<String>,
}

/// The pages of a window: top pages, or those that filters match.
///
/// Of the latest closed window, or of the one that ends at `window_end`. The totals are those of the whole window, whatever
/// the filters.
#[utoipa::path(
    get,
    path = "/v1/pages",
    tag = "pages",
    params(PagesQuery),
    responses((status = 200, description = "The pages.", body = Pages), BadRequest, NoSuchWindow)
)]
pub(super) async fn pages(
    State(view): State<Arc<View>>,
    Parameters(query): Parameters<PagesQuery>,
) -> Result<Response, Problem> {
    let window_end = query.window_end;
    let (selection, place) = query.into_parts()?;
    let window = match place.after.map(|position| position.window_end).or(window_end) {
        Some(window_end) => view.window(window_end)?,
        None => latest(&view)?,
    };
    let skip = place.after.map_or(0, |position| position.rows);
    let selected = window.select(&selection, skip as usize, place.limit);
    let rows = skip.saturating_add(u32::try_from(selected.pages.len()).unwrap_or(u32::MAX));
    let more = (rows as usize) < selected.matched && rows > skip;
    let next_cursor = more.then(|| place.cursor(Position { window_end: window.window_end(), rows }));
    Ok(json_response(&Pages {
        window: window.summary(),
        matched: selected.matched,
        pages: selected.pages.into_iter().map(PageResult::from).collect(),
        next_cursor,
    }))
}

/// One page in the kept windows, in an order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PageWindows<'a> {
    /// The page's key.
    page_url: &'a str,
    /// Its results, one for each window in which it has an event.
    windows: Vec<PageResult<'a>>,
    /// The `cursor` with which the list goes on, if it does.
    next_cursor: Option<String>,
}

/// One page over time: its results in the kept windows.
///
/// A window in which the page has no event has no result. Where a window has more pages than are kept (`pages_kept`), those
/// with fewest views have none either.
#[utoipa::path(
    get,
    path = "/v1/pages/{page}/windows",
    tag = "pages",
    params(
        (
            "page" = String,
            Path,
            description = "The page's key, percent-encoded: `/a?b` is `%2Fa%3Fb`.",
            min_length = 1,
            max_length = 2_048,
            example = "https://shop.example.com/products/007"
        ),
        WindowsQuery
    ),
    responses((status = 200, description = "The results.", body = PageWindows), BadRequest, NoSuchWindow)
)]
pub(super) async fn page_windows(
    State(view): State<Arc<View>>,
    page: Result<Path<String>, PathRejection>,
    Parameters(query): Parameters<WindowsQuery>,
) -> Result<Response, Problem> {
    let Path(page_url) =
        page.map_err(|_| Problem::bad_request("the page key is not valid: percent-encode its UTF-8 bytes"))?;
    let (range, place) = query.into_parts(&page_url)?;
    let kept = view.windows();
    if !kept.iter().any(|window| window.page(&page_url).is_some()) {
        return Err(Problem::not_found("the page has no event in any window that is kept in memory"));
    }
    let (windows, next_cursor) = listed(&kept, range, place, |window| window.page(&page_url).map(PageResult::from))?;
    Ok(json_response(&PageWindows { page_url: &page_url, windows, next_cursor }))
}

fn latest(view: &View) -> Result<Arc<KeptWindow>, NoWindow> {
    view.latest().ok_or(NoWindow::NoneYet)
}

/// What `row` gives for the windows of a range, from the place on, and the cursor for the rest. `kept` is oldest first.
fn listed<'a, T>(
    kept: &'a [Arc<KeptWindow>],
    range: WindowRange,
    place: Place,
    row: impl Fn(&'a KeptWindow) -> Option<T>,
) -> Result<(Vec<T>, Option<String>), NoWindow> {
    let after = place.after.map(|position| position.window_end);
    if let (Some(after), Some(oldest)) = (after, kept.first().map(|window| window.window_end()))
        && after < oldest
    {
        return Err(NoWindow::Forgotten { oldest });
    }
    let in_range = |window: &&'a Arc<KeptWindow>| {
        let window_end = window.window_end();
        let comes = match range.order {
            Order::Desc => after.is_none_or(|after| window_end < after),
            Order::Asc => after.is_none_or(|after| window_end > after),
        };
        comes && (range.window_end_min..=range.window_end_max).contains(&window_end)
    };
    let windows: Box<dyn Iterator<Item = &Arc<KeptWindow>>> = match range.order {
        Order::Desc => Box::new(kept.iter().rev()),
        Order::Asc => Box::new(kept.iter()),
    };
    let mut found = windows.filter(in_range).filter_map(|window| Some((window.window_end(), row(window)?)));
    let (mut rows, mut last) = (Vec::new(), None);
    for (window_end, row) in found.by_ref().take(place.limit) {
        rows.push(row);
        last = Some(window_end);
    }
    let more = found.next().is_some();
    let position = last.filter(|_| more).map(|window_end| Position { window_end, rows: 0 });
    Ok((rows, position.map(|position| place.cursor(position))))
}
