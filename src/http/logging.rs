//! What is logged, looked at and changed while the job runs, in all of its processes.

use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use super::change::{Asked, Change};
use super::json_response;
use super::problem::{NoChange, NoLevels, Problem};
use crate::logging::{self, Levels, LoggingError};
use crate::millis::Millis;

/// What is to be logged.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LoggingAsked {
    /// A level (`error`, `warn`, `info`, `debug`, `trace`, `off`), or levels by module.
    #[schema(max_length = 1_000, example = "info,clicktide::kafka=debug")]
    filter: String,
    /// For how long, from 1 s to a day; until it is changed again, if it is left out.
    #[schema(value_type = Option<String>, example = "5m")]
    r#for: Option<Millis>,
}

impl Asked for LoggingAsked {
    const LIKE: &str = r#"{"filter": "info,clicktide::kafka=debug", "for": "5m"}"#;
}

/// A longer filter is refused.
const FILTER_BYTES_MAX: usize = 1_000;
/// The shortest and the longest time for which levels can be changed.
const FOR_MIN: Millis = Millis(1_000);
const FOR_MAX: Millis = Millis(86_400_000);

/// What is logged now, what was configured, and when that counts again.
#[utoipa::path(
    get,
    path = "/v1/logging",
    tag = "operation",
    responses((status = 200, description = "The levels.", body = Levels), NoLevels)
)]
pub(super) async fn levels() -> Result<Response, Problem> {
    logging::levels().map(|levels| json_response(&levels)).map_err(|error| problem(&error))
}

/// Changes what is logged, in all processes of the cluster.
///
/// With `for`, until that time is over. The answer is what `GET` gives then. Without a token configured, only requests from the
/// process's own machine are let through.
#[utoipa::path(
    put,
    path = "/v1/logging",
    tag = "operation",
    request_body = LoggingAsked,
    responses((status = 200, description = "The levels.", body = Levels), NoChange, NoLevels)
)]
pub(super) async fn change(Change(LoggingAsked { filter, r#for }): Change<LoggingAsked>) -> Result<Response, Problem> {
    if filter.len() > FILTER_BYTES_MAX {
        return Err(Problem::bad_request(format!("the filter must have at most {FILTER_BYTES_MAX} bytes")));
    }
    if let Some(period) = r#for.filter(|period| !(FOR_MIN..=FOR_MAX).contains(period)) {
        return Err(Problem::bad_request(format!("for = {period}: must be between {FOR_MIN} and {FOR_MAX}")));
    }
    let changed = logging::change_levels(&filter, r#for.map(Millis::duration));
    changed.map(|levels| json_response(&levels)).map_err(|error| problem(&error))
}

fn problem(error: &LoggingError) -> Problem {
    let status = match error {
        LoggingError::Filter { .. } => StatusCode::BAD_REQUEST,
        _ => StatusCode::CONFLICT,
    };
    Problem::new(status, error.to_string())
}
