//! `/v1/stream`: closed windows as server-sent events.
//!
//! A subscriber first gets `snapshot` (latest window, totals of the kept windows, status), then `window` per closed
//! window and `status` about once a second. Who reads too slowly loses windows: it then gets `resync` with the number
//! of windows missed, and a `snapshot` to start again from. Nothing waits for a subscriber.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use futures_util::stream;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};

use super::limits::STREAMS_MAX;
use super::problem::{Problem, TooManyStreams};
use super::server::stopped;
use super::view::{KeptWindow, View};

const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a browser waits before it connects again.
const RETRY: Duration = Duration::from_secs(1);

/// What every stream reads from.
#[derive(Clone)]
pub(super) struct Streams {
    view: Arc<View>,
    /// The status as JSON, made anew every second.
    status: watch::Receiver<Arc<str>>,
    stop: watch::Receiver<bool>,
    free: Arc<Semaphore>,
}

impl Streams {
    pub(super) fn new(view: Arc<View>, status: watch::Receiver<Arc<str>>, stop: watch::Receiver<bool>) -> Streams {
        Streams { view, status, stop, free: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }

    fn subscribe(&self) -> Option<Subscription> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        let mut subscription = Subscription {
            view: Arc::clone(&self.view),
            windows: self.view.subscribe(),
            status: self.status.clone(),
            stop: self.stop.clone(),
            last_end: i64::MIN,
            pending: VecDeque::new(),
            _permit: permit,
        };
        let snapshot = subscription.snapshot().retry(RETRY);
        subscription.pending.push_back(snapshot);
        Some(subscription)
    }
}

/// Closed windows and the job's state as they come, as server-sent events.
///
/// First comes `snapshot` with the latest window, the totals of the kept windows and the state of the job; then `window` for
/// each closed window and `status` about once a second. Who reads too slowly loses windows: it gets `resync` with the number
/// of windows `missed`, and a `snapshot` to go on from. The data of every event is JSON.
#[utoipa::path(
    get,
    path = "/v1/stream",
    tag = "windows",
    responses(
        (status = 200, description = "The events.", body = String, content_type = "text/event-stream"),
        TooManyStreams
    )
)]
pub(super) async fn stream(State(streams): State<Streams>) -> Response {
    let Some(subscription) = streams.subscribe() else {
        let detail = format!("there are {STREAMS_MAX} streams already: try again later");
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response();
    };
    let events = stream::unfold(subscription, |mut subscription| async {
        let event = subscription.next().await?;
        Some((Ok::<_, Infallible>(event), subscription))
    });
    Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response()
}

/// One subscriber's place in the stream.
struct Subscription {
    view: Arc<View>,
    windows: broadcast::Receiver<Arc<KeptWindow>>,
    status: watch::Receiver<Arc<str>>,
    stop: watch::Receiver<bool>,
    /// End of the last window that was sent.
    last_end: i64,
    /// Events to send before anything else.
    pending: VecDeque<Event>,
    _permit: OwnedSemaphorePermit,
}

impl Subscription {
    /// The next event, or none when the server stops.
    async fn next(&mut self) -> Option<Event> {
        if let Some(event) = self.pending.pop_front() {
            return Some(event);
        }
        loop {
            tokio::select! {
                () = stopped(&mut self.stop) => return None,
                window = self.windows.recv() => match window {
                    // In the snapshot already.
                    Ok(window) if window.window_end() <= self.last_end => {}
                    Ok(window) => {
                        self.last_end = window.window_end();
                        return Some(named("window", &window.event()));
                    }
                    Err(RecvError::Lagged(missed)) => {
                        self.windows = self.view.subscribe();
                        let snapshot = self.snapshot();
                        self.pending.push_back(snapshot);
                        return Some(named("resync", &format!(r#"{{"missed":{missed}}}"#)));
                    }
                    Err(RecvError::Closed) => return None,
                },
                changed = self.status.changed() => {
                    changed.ok()?;
                    return Some(named("status", &self.status.borrow_and_update()));
                }
            }
        }
    }

    fn snapshot(&mut self) -> Event {
        let latest = self.view.latest();
        let history = super::json(&self.view.history());
        let window = latest.as_ref().map_or_else(|| "null".into(), |window| window.event());
        self.last_end = latest.map_or(i64::MIN, |window| window.window_end());
        let status = Arc::clone(&self.status.borrow_and_update());
        named("snapshot", &format!(r#"{{"window":{window},"history":{history},"status":{status}}}"#))
    }
}

/// JSON has no line breaks outside strings and escapes them inside, so the data is one line.
fn named(name: &str, json: &str) -> Event {
    Event::default().event(name).data(json)
}
