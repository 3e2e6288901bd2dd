//! What is logged, looked at and changed while the job runs, in all of its processes.

use axum::Extension;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;

use super::json_response;
use super::problem::Problem;
use super::savepoints::{Peer, may_change};
use crate::logging::{self, LoggingError};
use crate::millis::Millis;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    filter: String,
    r#for: Option<Millis>,
}

/// A longer filter is refused.
const FILTER_BYTES_MAX: usize = 1_000;
/// The shortest and the longest time for which levels can be changed.
const FOR_MIN: Millis = Millis(1_000);
const FOR_MAX: Millis = Millis(86_400_000);

/// `GET /v1/logging`: the filter that counts now, the configured one, and when that counts again.
pub(super) async fn levels() -> Result<Response, Problem> {
    logging::levels().map(|levels| json_response(&levels)).map_err(|error| problem(&error))
}

/// `PUT /v1/logging` with `{"filter": "info,clicktide::kafka=debug", "for": "5m"}`: what is logged from now on in all processes of
/// the cluster; with `for`, until that time is over. Answers as `GET` does then.
pub(super) async fn change(
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: String,
) -> Result<Response, Problem> {
    may_change(peer, &headers)?;
    let Asked { filter, r#for } = serde_json::from_str(&body).map_err(|error| {
        Problem::bad_request(format!(
            "the body must be like {{\"filter\": \"info,clicktide::kafka=debug\", \"for\": \"5m\"}}: {error}"
        ))
    })?;
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
    Problem { status, detail: error.to_string() }
}
