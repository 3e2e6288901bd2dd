//! `/v1/checkpoints`: what the checkpoint store holds. The one answer that is not in memory.
//!
//! The store may be slow, or hang. So it is asked on a thread of its own, by one request at a time, whose answer counts for the
//! others for a while; whoever has waited too long is told so, and the pipeline notices nothing of it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use utoipa::ToSchema;

use super::limits::{CHECKPOINTS_AGE_MAX, CHECKPOINTS_MAX, ROWS_MAX};
use super::problem::{NoCheckpoints, Problem};
use super::status::wall_clock_ms;
use super::{JobStore, json_response};
use crate::checkpoint::listing::{Listed, look_at, manifests};
use crate::checkpoint::store::StoreError;

/// What every request reads from.
#[derive(Clone)]
pub(super) struct Shelf {
    store: Option<JobStore>,
    latest: Arc<Mutex<Option<(Instant, Answer)>>>,
}

type Answer = Result<Arc<Checkpoints>, StoreError>;

impl Shelf {
    pub(super) fn new(store: Option<JobStore>) -> Shelf {
        Shelf { store, latest: Arc::default() }
    }
}

/// The checkpoints and savepoints of the job.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Checkpoints {
    /// When the store was asked, ms since the epoch, wall clock.
    asked_at_ms: i64,
    /// How many there are.
    total: usize,
    /// The checkpoints, the newest first, then the savepoints by name; at most 1,000 of them.
    checkpoints: Vec<Listed>,
}

/// The checkpoints and savepoints that the store holds, each with a cheap check.
///
/// The answer may be 10 s old.
#[utoipa::path(
    get,
    path = "/v1/checkpoints",
    tag = "job",
    responses((status = 200, description = "The checkpoints and savepoints.", body = Checkpoints), NoCheckpoints)
)]
pub(super) async fn checkpoints(State(shelf): State<Shelf>) -> Result<Response, Problem> {
    let Some(store) = shelf.store else {
        return Err(Problem::not_found(
            "the job takes no checkpoints: checkpoints.store is \"off\", or this is the demo",
        ));
    };
    let asked = async {
        // Whoever asks the store holds the lock until it has answered, even if the request is given up before.
        let mut latest = shelf.latest.lock_owned().await;
        if let Some((at, answer)) = &*latest
            && at.elapsed() < CHECKPOINTS_AGE_MAX
        {
            return Some(answer.clone());
        }
        let ask = move || {
            let answer = ask(&store).map(Arc::new);
            *latest = Some((Instant::now(), answer.clone()));
            answer
        };
        spawn_blocking(ask).await.ok()
    };
    match timeout(CHECKPOINTS_MAX, asked).await {
        Ok(Some(Ok(checkpoints))) => Ok(json_response(&*checkpoints)),
        Ok(Some(Err(error))) => Err(Problem::new(StatusCode::BAD_GATEWAY, error.to_string())),
        Ok(None) => Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the process is ending")),
        Err(_) => {
            let detail = format!("the checkpoint store has not answered within {} s", CHECKPOINTS_MAX.as_secs());
            Err(Problem::new(StatusCode::GATEWAY_TIMEOUT, detail))
        }
    }
}

fn ask(JobStore { store, job, configuration }: &JobStore) -> Result<Checkpoints, StoreError> {
    let asked_at_ms = wall_clock_ms();
    let mut names = manifests(&**store)?;
    let total = names.len();
    names.truncate(ROWS_MAX);
    let checkpoints = look_at(&**store, names, job, configuration)?;
    Ok(Checkpoints { asked_at_ms, total, checkpoints })
}
