//! `/v1/windows/latest`, `/v1/pages` and `/v1/pages/{page}/windows`: the kept windows, on request.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use clicktide_dataflows::event::PageAnalytics;
use serde::Serialize;

use super::json_response;
use super::problem::Problem;
use super::view::{KeptWindow, PageSort, View};

/// Greatest `limit` of a request.
pub const LIMIT_MAX: usize = 1_000;
const LIMIT_DEFAULT: usize = 100;

/// Longest page key of a request, bytes: no event may have a longer one.
pub const PAGE_KEY_BYTES_MAX: usize = 2_048;

type Pairs = Result<Query<Vec<(String, String)>>, QueryRejection>;

/// The latest closed window with its totals and top pages.
pub(super) async fn latest_window(State(view): State<Arc<View>>, pairs: Pairs) -> Result<Response, Problem> {
    let TopPages { sort, limit } = TopPages::parse(pairs)?;
    let window = latest(&view)?;
    Ok(json_response(&window.body(sort, limit)))
}

/// The top pages of the latest closed window.
pub(super) async fn top_pages(State(view): State<Arc<View>>, pairs: Pairs) -> Result<Response, Problem> {
    let TopPages { sort, limit } = TopPages::parse(pairs)?;
    let window = latest(&view)?;
    Ok(json_response(&window.body(sort, limit).pages))
}

/// One page in every kept window.
pub(super) async fn page_windows(
    State(view): State<Arc<View>>,
    page: Result<Path<String>, PathRejection>,
) -> Result<Response, Problem> {
    let Path(page_url) =
        page.map_err(|_| Problem::bad_request("the page key is not valid: percent-encode its UTF-8 bytes"))?;
    if page_url.len() > PAGE_KEY_BYTES_MAX {
        return Err(Problem::bad_request(format!("a page key has at most {PAGE_KEY_BYTES_MAX} bytes")));
    }
    view.with_page(&page_url, |windows| {
        if windows.is_empty() {
            return Err(Problem::not_found("the page has no event in any window that is kept in memory"));
        }
        Ok(json_response(&PageWindows { page_url: &page_url, windows }))
    })
}

#[derive(Serialize)]
struct PageWindows<'a> {
    page_url: &'a str,
    windows: &'a [&'a PageAnalytics],
}

/// The parameters of a request for top pages.
#[derive(Debug, PartialEq, Eq)]
struct TopPages {
    sort: PageSort,
    limit: usize,
}

impl TopPages {
    fn parse(pairs: Pairs) -> Result<TopPages, Problem> {
        let Query(pairs) =
            pairs.map_err(|_| Problem::bad_request("the query is not valid: percent-encode its values"))?;
        let mut top = TopPages { sort: PageSort::ViewCount, limit: LIMIT_DEFAULT };
        for (name, value) in pairs {
            match name.as_str() {
                "sort" => top.sort = PageSort::parse(&value).ok_or_else(unknown_sort)?,
                "limit" => top.limit = parse_limit(&value)?,
                _ => return Err(Problem::bad_request("unknown parameter: sort and limit are allowed")),
            }
        }
        Ok(top)
    }
}

fn parse_limit(value: &str) -> Result<usize, Problem> {
    let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
    limit.ok_or_else(|| Problem::bad_request(format!("limit should be a number from 1 to {LIMIT_MAX}")))
}

fn unknown_sort() -> Problem {
    let names = PageSort::NAMES.map(|(name, _)| name).join(", ");
    Problem::bad_request(format!("unknown sort: one of {names} is allowed"))
}

fn latest(view: &View) -> Result<Arc<KeptWindow>, Problem> {
    view.latest().ok_or_else(|| Problem::not_found("no window has closed yet"))
}

/// What every path without a route answers.
pub(super) async fn no_such_path() -> Response {
    Problem::not_found("there is nothing at this path").into_response()
}
