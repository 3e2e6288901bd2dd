//! Savepoints on demand.

use std::net::SocketAddr;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;
use utoipa::ToSchema;

use super::json_response;
use super::limits::SAVEPOINT_MAX;
use super::problem::{NoSavepoint, Problem};
use crate::checkpoint::coordinator::{SavepointRequest, SavepointRequests};
use crate::checkpoint::names;

/// The other end of a connection.
#[derive(Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Whether a request may change anything: only from this machine, as there is no authentication; and only as JSON, so that no
/// page of another site can have a browser send it.
pub(super) fn may_change(peer: SocketAddr, headers: &HeaderMap) -> Result<(), Problem> {
    let problem = |status, detail: &str| Err(Problem::new(status, detail));
    if !peer.ip().to_canonical().is_loopback() {
        return problem(StatusCode::FORBIDDEN, "this can be asked for from the process's own machine only");
    }
    if headers.get(header::CONTENT_TYPE).is_none_or(|value| value != "application/json") {
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the request's Content-Type must be application/json");
    }
    Ok(())
}

/// The savepoint that is asked for.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// What it will be called: letters, digits, dots, underscores and hyphens; not `.` nor `..`.
    #[schema(
        max_length = 200,
        pattern = r"^(\.{0,2}[A-Za-z0-9_-]|\.{3})[A-Za-z0-9._-]*$",
        example = "before-the-change"
    )]
    name: String,
}

/// A savepoint that was taken.
#[derive(Serialize, ToSchema)]
pub(super) struct Answer {
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
/// The answer comes when the savepoint is there. Without a token configured, only requests from the process's own machine are
/// let through. Only JSON is taken, so that no page of another site can have a browser send it.
#[utoipa::path(
    post,
    path = "/v1/savepoints",
    tag = "job",
    request_body = Asked,
    responses((status = 201, description = "The savepoint.", body = Answer), NoSavepoint)
)]
pub(super) async fn take(
    State(requests): State<Option<SavepointRequests>>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    body: String,
) -> Result<Response, Problem> {
    let problem = |status, detail: &str| Problem { status, detail: detail.to_owned() };
    may_change(peer, &headers)?;
    let Some(requests) = requests else {
        return Err(problem(StatusCode::CONFLICT, "the job takes no checkpoints: checkpoints.store is \"off\""));
    };
    let asked: Asked = serde_json::from_str(&body).map_err(|error| {
        Problem::bad_request(format!("the body must be like {{\"name\": \"before-the-change\"}}: {error}"))
    })?;
    let name = names::savepoint(&asked.name).map_err(|error| Problem::bad_request(error.to_string()))?;
    let (reply, taken) = oneshot::channel();
    // Who asked may be gone when the answer comes.
    let reply = Box::new(|outcome| drop(reply.send(outcome)));
    requests.ask(SavepointRequest { name: name.clone(), reply });
    match timeout(SAVEPOINT_MAX, taken).await {
        Ok(Ok(Ok(taken))) => {
            let answer = Answer {
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
