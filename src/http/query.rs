//! The parameters of requests: which pages, which windows, and where a list goes on.
//!
//! One declaration says how a parameter is read and how `/v1/openapi.json` describes it. Every parameter may be given once;
//! unknown ones are refused, so that a misspelt filter is not silently none.

use std::cmp::Ordering;
use std::error::Error;
use std::fmt;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use clicktide_dataflows::event::PageAnalytics;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};
use xxhash_rust::xxh3::xxh3_64;

use super::limits::{FILTER_CHARS_MAX, NUMBER_MAX, PAGE_KEY_BYTES_MAX, ROWS_DEFAULT, ROWS_MAX};
use super::problem::Problem;
use super::view::rate;

/// What pages are sorted by: a field of the result. Pages that are equal in it are in the order of their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PageSort {
    /// The page's key, byte by byte.
    PageUrl,
    /// Views, the default.
    #[default]
    ViewCount,
    /// Distinct users.
    UniqueUsers,
    /// Clicks.
    ClickCount,
    /// Purchases.
    ConversionCount,
    /// Purchases per view; pages without views come after those without purchases.
    ConversionRate,
    /// Share of engaged sessions.
    EngagementRate,
    /// Share of bounced sessions.
    BounceRate,
    /// Mean duration of sessions.
    AvgSessionDuration,
}

/// Which end of a list comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// The greatest, or the latest, first: the default.
    #[default]
    Desc,
    /// The least, or the earliest, first.
    Asc,
}

/// Some of a window's pages, in an order.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize)]
pub struct PageSelection {
    /// What they are sorted by.
    pub sort: PageSort,
    /// Which end comes first.
    pub order: Order,
    /// Only those whose key has this in it, byte for byte.
    pub contains: String,
    /// Only those whose key begins with this, byte for byte.
    pub prefix: String,
    /// Only those with at least so many views.
    pub view_count_min: i64,
}

impl PageSelection {
    /// Whether a page is among them.
    pub fn matches(&self, page: &PageAnalytics) -> bool {
        page.view_count >= self.view_count_min
            && page.page_url.starts_with(&self.prefix)
            && page.page_url.contains(&self.contains)
    }

    /// The order of two pages; pages that are equal in what they are sorted by are in the order of their keys.
    pub fn compare(&self, a: &PageAnalytics, b: &PageAnalytics) -> Ordering {
        let ascending = match self.sort {
            PageSort::PageUrl => a.page_url.cmp(&b.page_url),
            PageSort::ViewCount => a.view_count.cmp(&b.view_count),
            PageSort::UniqueUsers => a.unique_users.cmp(&b.unique_users),
            PageSort::ClickCount => a.click_count.cmp(&b.click_count),
            PageSort::ConversionCount => a.conversion_count.cmp(&b.conversion_count),
            PageSort::ConversionRate => conversion_rate(a).total_cmp(&conversion_rate(b)),
            PageSort::EngagementRate => a.engagement_rate.total_cmp(&b.engagement_rate),
            PageSort::BounceRate => a.bounce_rate.total_cmp(&b.bounce_rate),
            PageSort::AvgSessionDuration => a.avg_session_duration.total_cmp(&b.avg_session_duration),
        };
        let ordered = match self.order {
            Order::Desc => ascending.reverse(),
            Order::Asc => ascending,
        };
        ordered.then_with(|| a.page_url.cmp(&b.page_url))
    }
}

fn conversion_rate(page: &PageAnalytics) -> f64 {
    rate(page.conversion_count, page.view_count).unwrap_or(-1.0)
}

/// The parameters of a request for the pages of a window.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PagesQuery {
    /// End of the window, ms since the epoch. The latest closed window if it is left out.
    #[serde(default, deserialize_with = "time_ms")]
    #[param(minimum = -9_007_199_254_740_991_i64, maximum = 9_007_199_254_740_991_i64, example = 1_795_737_600_000_i64)]
    pub window_end: Option<i64>,
    /// What the pages are sorted by; pages that are equal in it are in the order of their keys.
    #[serde(default)]
    #[param(inline, default = "view_count")]
    pub sort: PageSort,
    /// Which end comes first: `desc`, the greatest, or `asc`, the least.
    #[serde(default)]
    #[param(inline, default = "desc")]
    pub order: Order,
    /// Only pages whose key has this in it. Keys are compared byte for byte, so upper and lower case differ.
    #[serde(default, deserialize_with = "part_of_key")]
    #[param(max_length = 512, example = "/products/")]
    pub contains: String,
    /// Only pages whose key begins with this.
    #[serde(default, deserialize_with = "part_of_key")]
    #[param(max_length = 512, example = "https://shop.example.com/")]
    pub prefix: String,
    /// Only pages with at least so many views.
    #[serde(default, deserialize_with = "count")]
    #[param(minimum = 0, maximum = 9_007_199_254_740_991_i64, default = 0)]
    pub view_count_min: i64,
    /// At most so many rows.
    #[serde(default = "rows_default", deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 1_000, default = 100)]
    pub limit: usize,
    /// Where the list goes on: the `next_cursor` of the answer before, with its other parameters repeated (but for `limit`,
    /// which may change). It stays in the window that the list began with, whatever closes meanwhile.
    #[serde(default, deserialize_with = "cursor")]
    #[param(pattern = "^[0-9a-f]{40}$", value_type = Option<String>)]
    pub cursor: Option<Cursor>,
}

impl PagesQuery {
    /// The pages that are asked for, the fingerprint of the list they make, and where in it the request goes on.
    pub fn into_parts(self) -> Result<(PageSelection, Place), Problem> {
        let PagesQuery { window_end, sort, order, contains, prefix, view_count_min, limit, cursor } = self;
        let selection = PageSelection { sort, order, contains, prefix, view_count_min };
        let place = Place::of("pages", &(window_end, &selection), cursor, limit)?;
        Ok((selection, place))
    }
}

/// The parameters of a request for the stream.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamQuery {
    /// What the pages are sorted by; pages that are equal in it are in the order of their keys.
    #[serde(default)]
    #[param(inline, default = "view_count")]
    pub sort: PageSort,
    /// Which end comes first: `desc`, the greatest, or `asc`, the least.
    #[serde(default)]
    #[param(inline, default = "desc")]
    pub order: Order,
    /// Only pages whose key has this in it. Keys are compared byte for byte, so upper and lower case differ.
    #[serde(default, deserialize_with = "part_of_key")]
    #[param(max_length = 512, example = "/products/")]
    pub contains: String,
    /// Only pages whose key begins with this.
    #[serde(default, deserialize_with = "part_of_key")]
    #[param(max_length = 512, example = "https://shop.example.com/")]
    pub prefix: String,
    /// Only pages with at least so many views.
    #[serde(default, deserialize_with = "count")]
    #[param(minimum = 0, maximum = 9_007_199_254_740_991_i64, default = 0)]
    pub view_count_min: i64,
    /// At most so many rows.
    #[serde(default = "rows_default", deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 1_000, default = 100)]
    pub limit: usize,
    /// A page that is told of in every window, whether it is among the rows or not.
    #[serde(default, deserialize_with = "page_key")]
    #[param(max_length = 2_048, example = "https://shop.example.com/products/007")]
    pub page: Option<String>,
}

impl StreamQuery {
    /// The pages that are asked for, how many of them at most, and the page that is told of in every window.
    pub fn into_parts(self) -> (PageSelection, usize, Option<String>) {
        let StreamQuery { sort, order, contains, prefix, view_count_min, limit, page } = self;
        (PageSelection { sort, order, contains, prefix, view_count_min }, limit, page)
    }
}

/// The parameters of a request for a list of windows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct WindowsQuery {
    /// Only windows that end at this time or later, ms since the epoch.
    #[serde(default, deserialize_with = "time_ms")]
    #[param(minimum = -9_007_199_254_740_991_i64, maximum = 9_007_199_254_740_991_i64, example = 1_795_737_600_000_i64)]
    pub window_end_min: Option<i64>,
    /// Only windows that end at this time or earlier, ms since the epoch.
    #[serde(default, deserialize_with = "time_ms")]
    #[param(minimum = -9_007_199_254_740_991_i64, maximum = 9_007_199_254_740_991_i64, example = 1_795_737_900_000_i64)]
    pub window_end_max: Option<i64>,
    /// Which end comes first: `desc`, the latest, or `asc`, the earliest.
    #[serde(default)]
    #[param(inline, default = "desc")]
    pub order: Order,
    /// At most so many windows.
    #[serde(default = "rows_default", deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 1_000, default = 100)]
    pub limit: usize,
    /// Where the list goes on: the `next_cursor` of the answer before, with its other parameters repeated (but for `limit`,
    /// which may change).
    #[serde(default, deserialize_with = "cursor")]
    #[param(pattern = "^[0-9a-f]{40}$", value_type = Option<String>)]
    pub cursor: Option<Cursor>,
}

impl WindowsQuery {
    /// The ends of the windows that are asked for, their order, and where in the list of `what` the request goes on.
    pub fn into_parts(self, what: &str) -> Result<(WindowRange, Place), Problem> {
        let WindowsQuery { window_end_min, window_end_max, order, limit, cursor } = self;
        let range = WindowRange {
            window_end_min: window_end_min.unwrap_or(i64::MIN),
            window_end_max: window_end_max.unwrap_or(i64::MAX),
            order,
        };
        let place = Place::of(what, &range, cursor, limit)?;
        Ok((range, place))
    }
}

/// Windows by their ends, both included, in an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) struct WindowRange {
    pub window_end_min: i64,
    pub window_end_max: i64,
    pub order: Order,
}

/// Where in a list a request goes on, and how far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    fingerprint: u64,
    /// What the cursor says, if the request goes on from one.
    pub after: Option<Position>,
    pub limit: usize,
}

/// A place in a list, as its cursor has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    /// The window whose pages are listed, or the last one of the windows that were.
    pub window_end: i64,
    /// How many of the window's pages were listed before.
    pub rows: u32,
}

impl Place {
    fn of(what: &str, list: &impl Serialize, cursor: Option<Cursor>, limit: usize) -> Result<Place, Problem> {
        let fingerprint = xxh3_64(super::json(&(what, list)).as_bytes());
        match cursor {
            Some(cursor) if cursor.fingerprint != fingerprint => Err(Problem::bad_request(
                "cursor belongs to another list: repeat the parameters of the answer that it came with, but for limit",
            )),
            cursor => Ok(Place { fingerprint, after: cursor.map(|cursor| cursor.position), limit }),
        }
    }

    /// The cursor with which the list goes on from there.
    pub fn cursor(&self, position: Position) -> String {
        Cursor { fingerprint: self.fingerprint, position }.to_string()
    }
}

/// A place in a list, for requests: opaque to whoever gets it. It names the list by a fingerprint of its parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    fingerprint: u64,
    position: Position,
}

impl Cursor {
    fn parse(text: &str) -> Option<Cursor> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        if text.len() != 40 || !digits {
            return None;
        }
        let number = |digits: &str| u64::from_str_radix(digits, 16).ok();
        let window_end = number(&text[16..32])?.cast_signed();
        let rows = u32::try_from(number(&text[32..])?).ok()?;
        Some(Cursor { fingerprint: number(&text[..16])?, position: Position { window_end, rows } })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Cursor { fingerprint, position: Position { window_end, rows } } = self;
        write!(f, "{fingerprint:016x}{:016x}{rows:08x}", window_end.cast_unsigned())
    }
}

/// The parameters of a request's query, all of them known, each given once at most and fit to be used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parameters<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Parameters<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        if percent_encoding::percent_decode_str(query).decode_utf8().is_err() {
            return Err(Problem::bad_request("the query is not UTF-8: percent-encode the UTF-8 bytes of its values"));
        }
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(parameters)) => Ok(Parameters(parameters)),
            Err(rejection) => {
                let reason = rejection.source().map_or_else(|| rejection.to_string(), ToString::to_string);
                Err(Problem::bad_request(reason.replace("unknown field", "unknown parameter")))
            }
        }
    }
}

pub(super) fn rows_default() -> usize {
    ROWS_DEFAULT
}

/// Reads a number of rows.
pub(super) fn limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    number(deserializer, 1, ROWS_MAX as i64).map(|rows| rows as usize)
}

/// Reads a number of something that may be none.
pub(super) fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    number(deserializer, 0, NUMBER_MAX)
}

/// Reads a time, ms since the epoch.
pub(super) fn time_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    number(deserializer, -NUMBER_MAX, NUMBER_MAX).map(Some)
}

fn number<'de, D: Deserializer<'de>>(deserializer: D, min: i64, max: i64) -> Result<i64, D::Error> {
    let text = String::deserialize(deserializer)?;
    let number = text.parse().ok().filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| D::Error::custom(format!("must be a whole number from {min} to {max}")))
}

/// Reads a text that pages' keys are compared with.
pub(super) fn part_of_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.chars().count() {
        0..=FILTER_CHARS_MAX => Ok(text),
        chars => Err(D::Error::custom(format!("must have at most {FILTER_CHARS_MAX} characters, not {chars}"))),
    }
}

fn page_key<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let page = String::deserialize(deserializer)?;
    match page.len() {
        0..=PAGE_KEY_BYTES_MAX => Ok(Some(page)),
        bytes => Err(D::Error::custom(format!("must have at most {PAGE_KEY_BYTES_MAX} bytes, not {bytes}"))),
    }
}

fn cursor<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cursor>, D::Error> {
    let cursor = Cursor::parse(&String::deserialize(deserializer)?);
    cursor.map(Some).ok_or_else(|| D::Error::custom("must be the next_cursor of an answer"))
}
