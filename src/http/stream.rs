//! `/v1/stream`: closed windows and the cluster as server-sent events, each saying only what has changed.
//!
//! A subscriber says which rows it wants (`sort`, `order`, `contains`, `limit`) and perhaps one page (`page`). It first gets
//! `snapshot`, then per closed window `window`, which changes what it has, and `cluster` about once a second:
//!
//! ```text
//! snapshot {table: {window, history, columns, sparkline_max, matching, rows}, page: {page_url, windows}, cluster}
//! window   {table: {window, forgotten, matching, order, added, changed}, page: figures}
//! cluster  {…}
//! ```
//!
//! `order` is null where the rows stay where they are; else runs `[first, count]` of the rows as they were, and `[-1, count]`
//! for the next rows of `added`. `changed` holds `[row, figures]` with places in the new order. Every row's views of the window
//! are one more point of its sparkline, and the window's totals one more of the history, which loses its first `forgotten`.
//! Another `snapshot` begins anew: for who was too slow, and when windows of an earlier run have been read again. Nothing
//! waits for a subscriber, and nothing is held for it but its place and the few events that it gets next.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use super::feed::{Change, Feed, Feeds, Figures, RowsQuery, Snapshot};
use super::limits::STREAMS_MAX;
use super::problem::{BadRequest, Problem, TooManyStreams};
use super::query::{Parameters, StreamQuery};
use super::server::stopped;
use super::view::{Edition, View};

const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long a client should wait before it connects again.
const RETRY: Duration = Duration::from_secs(1);

/// How long a stream is left alone after it has been told of windows, so that a job that catches up does not keep the server
/// busy with what nobody can follow.
const REST: Duration = Duration::from_millis(500);

/// What every stream reads from.
#[derive(Clone)]
pub(super) struct Streams {
    view: Arc<View>,
    feeds: Arc<Feeds>,
    /// The cluster as JSON, made anew every second.
    cluster: watch::Receiver<Arc<str>>,
    stop: watch::Receiver<bool>,
    free: Arc<Semaphore>,
}

impl Streams {
    pub(super) fn new(view: Arc<View>, cluster: watch::Receiver<Arc<str>>, stop: watch::Receiver<bool>) -> Streams {
        let feeds = Arc::new(Feeds::new(Arc::clone(&view)));
        Streams { view, feeds, cluster, stop, free: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }

    fn subscribe(&self, query: StreamQuery) -> Option<Subscription> {
        let permit = Arc::clone(&self.free).try_acquire_owned().ok()?;
        let (selection, limit, page) = query.into_parts();
        let mut subscription = Subscription {
            feed: self.feeds.feed(RowsQuery { selection, limit }),
            page,
            changes: self.view.changes(),
            cluster: self.cluster.clone(),
            stop: self.stop.clone(),
            shown: Edition::default(),
            rest_until: Instant::now(),
            pending: VecDeque::new(),
            _permit: permit,
        };
        let snapshot = subscription.snapshot().retry(RETRY);
        subscription.pending.push_back(snapshot);
        Some(subscription)
    }
}

/// Closed windows and the cluster as they come, as server-sent events that say what has changed.
///
/// The stream shows the pages that the parameters ask for. First comes `snapshot` with everything; then `window` for each
/// closed window, with what it changes, and `cluster`, the body of `/v1/cluster`, about once a second. Another `snapshot` begins
/// anew: for who reads too slowly, and when windows of an earlier run have been read again. The data of every event is JSON;
/// docs/http-api.md says how the changes are applied.
#[utoipa::path(
    get,
    path = "/v1/stream",
    tag = "pages",
    params(StreamQuery),
    responses(
        (status = 200, description = "The events.", body = String, content_type = "text/event-stream"),
        BadRequest,
        TooManyStreams
    )
)]
pub(super) async fn stream(
    State(streams): State<Streams>,
    Parameters(query): Parameters<StreamQuery>,
) -> Result<Response, Problem> {
    let Some(subscription) = streams.subscribe(query) else {
        let detail = format!("there are {STREAMS_MAX} streams already: try again later");
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail));
    };
    let events = stream::unfold(subscription, |mut subscription| async {
        let event = subscription.next().await?;
        Some((Ok::<_, Infallible>(event), subscription))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)).into_response())
}

/// One subscriber's place in the stream.
struct Subscription {
    feed: Arc<Feed>,
    /// The page that it wants to see in every window.
    page: Option<String>,
    changes: watch::Receiver<Edition>,
    cluster: watch::Receiver<Arc<str>>,
    stop: watch::Receiver<bool>,
    /// What the subscriber has once it has read everything.
    shown: Edition,
    /// Until when it is not told of windows.
    rest_until: Instant,
    /// Events to send before anything else.
    pending: VecDeque<Event>,
    _permit: OwnedSemaphorePermit,
}

impl Subscription {
    /// The next event, or none when the server stops.
    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Some(event);
            }
            let changes = &mut self.changes;
            let rest_until = self.rest_until;
            let changed = async move {
                sleep_until(rest_until).await;
                changes.changed().await
            };
            tokio::select! {
                () = stopped(&mut self.stop) => return None,
                changed = changed => {
                    changed.ok()?;
                    self.take_changes();
                }
                changed = self.cluster.changed() => {
                    changed.ok()?;
                    return Some(named("cluster", &self.cluster.borrow_and_update()));
                }
            }
        }
    }

    fn take_changes(&mut self) {
        match self.feed.changes_since(self.shown) {
            Some(changes) => {
                for change in changes {
                    self.shown = change.after;
                    let event = self.window(&change);
                    self.pending.push_back(event);
                }
            }
            None => {
                let snapshot = self.snapshot();
                self.pending.push_back(snapshot);
            }
        }
        self.rest_until = Instant::now() + REST;
    }

    fn snapshot(&mut self) -> Event {
        #[derive(Serialize)]
        struct PageHistory<'a> {
            page_url: &'a str,
            windows: Vec<Option<Figures>>,
        }
        let Snapshot { edition, windows, json } = self.feed.snapshot();
        self.shown = edition;
        let page = self.page.as_deref().map(|page_url| PageHistory {
            page_url,
            windows: windows.iter().map(|window| window.page(page_url).map(Figures::of)).collect(),
        });
        let page = super::json(&page);
        let cluster = Arc::clone(&self.cluster.borrow_and_update());
        named("snapshot", &format!(r#"{{"table":{json},"page":{page},"cluster":{cluster}}}"#))
    }

    fn window(&self, change: &Change) -> Event {
        let page = self.page.as_deref().and_then(|page_url| change.window.page(page_url)).map(Figures::of);
        named("window", &format!(r#"{{"table":{},"page":{}}}"#, change.json, super::json(&page)))
    }
}

/// JSON has no line breaks outside strings and escapes them inside, so the data is one line.
fn named(name: &str, json: &str) -> Event {
    Event::default().event(name).data(json)
}
