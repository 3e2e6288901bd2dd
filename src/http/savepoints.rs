//! Savepoints on demand.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::change::{Asked, Change};
use super::json_response;
use super::limits::SAVEPOINT_MAX;
use super::problem::{NoChange, NoSavepoint, Problem};
use crate::checkpoint::coordinator::{SavepointRequest, SavepointRequests};
use crate::checkpoint::names;

/// The savepoint that is asked for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SavepointAsked {
    /// What it will be called: letters, digits, dots, underscores and hyphens; not `.` nor `..`.
    #[schema(
        max_length = 200,
        pattern = r"^(\.{0,2}[A-Za-z0-9_-]|\.{3})[A-Za-z0-9._-]*$",
        example = "before-the-change"
    )]
    name: String,
}

impl Asked for SavepointAsked {
    const LIKE: &str = r#"{"name": "before-the-change"}"#;
}

/// A savepoint that was taken.
#[derive(Serialize, ToSchema)]
pub(super) struct SavepointTaken {
    /// What it is called.
    name: String,
    /// It goes through this window end, ms since the epoch.
    through_ms: i64,
    /// Events that it holds.
    events: u64,
    /// Bytes of all that it refers to.
    bytes: u64,
    /// Bytes that were written for it: what has changed since the last checkpoint.
    bytes_written: u64,
    /// How long it took, ms.
    took_ms: i64,
}

/// Takes a savepoint: a checkpoint with a name, kept until somebody deletes it.
///
/// The answer comes when the savepoint is there. Where no token is configured, only requests from the process's own machine are
/// let through.
#[utoipa::path(
    post,
    path = "/v1/savepoints",
    tag = "job",
    request_body = SavepointAsked,
    responses((status = 201, description = "The savepoint.", body = SavepointTaken), NoChange, NoSavepoint)
)]
pub(super) async fn take(
    State(requests): State<Option<SavepointRequests>>,
    Change(asked): Change<SavepointAsked>,
) -> Result<Response, Problem> {
    let problem = |status, detail: &str| Problem::new(status, detail);
    let name = names::savepoint(&asked.name).map_err(|error| Problem::bad_request(error.to_string()))?;
    let Some(requests) = requests else {
        return Err(problem(
            StatusCode::CONFLICT,
            "the job takes no checkpoints: checkpoints.store is \"off\", or this is the demo",
        ));
    };
    let (reply, taken) = oneshot::channel();
    // Who asked may be gone when the answer comes.
    let reply = Box::new(|outcome| drop(reply.send(outcome)));
    requests.ask(SavepointRequest { name: name.clone(), reply });
    match timeout(SAVEPOINT_MAX, taken).await {
        Ok(Ok(Ok(taken))) => {
            let answer = SavepointTaken {
                name: asked.name,
                through_ms: taken.through_ms,
                events: taken.events,
                bytes: taken.bytes,
                bytes_written: taken.bytes_written,
                took_ms: taken.took_ms,
            };
            Ok((StatusCode::CREATED, json_response(&answer)).into_response())
        }
        Ok(Ok(Err(reason))) => Err(problem(StatusCode::CONFLICT, &reason)),
        Ok(Err(_)) => Err(problem(StatusCode::SERVICE_UNAVAILABLE, "the job is ending")),
        Err(_) => Err(problem(
            StatusCode::GATEWAY_TIMEOUT,
            &format!("nothing came of {name} within {} s", SAVEPOINT_MAX.as_secs()),
        )),
    }
}
