//! Savepoints on demand.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::json_response;
use super::problem::Problem;
use crate::checkpoint::coordinator::{SavepointRequest, SavepointRequests};
use crate::checkpoint::names;

/// The other end of a connection.
#[derive(Clone, Copy)]
pub(super) struct Peer(pub(super) SocketAddr);

/// Whether a request may change anything: only from this machine, as there is no authentication; and only as JSON, so that no
/// page of another site can have a browser send it.
pub(super) fn may_change(peer: SocketAddr, headers: &HeaderMap) -> Result<(), Problem> {
    let problem = |status, detail: &str| Err(Problem { status, detail: detail.to_owned() });
    if !peer.ip().to_canonical().is_loopback() {
        return problem(StatusCode::FORBIDDEN, "this can be asked for from the process's own machine only");
    }
    if headers.get(header::CONTENT_TYPE).is_none_or(|value| value != "application/json") {
        return problem(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the request's Content-Type must be application/json");
    }
    Ok(())
}

/// Longer than this no savepoint takes that comes to anything.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    name: String,
}

#[derive(Serialize)]
struct Answer {
    savepoint: String,
    through: i64,
    events: u64,
    bytes: u64,
    bytes_written: u64,
    took_ms: i64,
}

/// `POST /v1/savepoints` with `{"name": "…"}`: answers when the savepoint is there.
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
    match timeout(PATIENCE, taken).await {
        Ok(Ok(Ok(taken))) => {
            let answer = Answer {
                savepoint: asked.name,
                through: taken.through_ms,
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
            &format!("nothing came of {name} within {} s", PATIENCE.as_secs()),
        )),
    }
}
