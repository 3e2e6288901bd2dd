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

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, sleep_until};

use super::feed::{Change, Feed, Feeds, Figures, RowsQuery, Snapshot};
use super::pages::{LIMIT_MAX, PAGE_KEY_BYTES_MAX};
use super::problem::Problem;
use super::query::{Order, PageSelection};
use super::server::stopped;
use super::view::{Edition, PageSort, View};

/// Most streams at a time; one more is answered with 503.
pub const STREAMS_MAX: usize = 256;

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
        let StreamQuery { rows, page } = query;
        let mut subscription = Subscription {
            feed: self.feeds.feed(rows),
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

/// What a stream asks for.
struct StreamQuery {
    rows: RowsQuery,
    /// The page that it wants to see in every window.
    page: Option<Arc<str>>,
}

impl StreamQuery {
    fn parse(pairs: Vec<(String, String)>) -> Result<StreamQuery, Problem> {
        let rows = RowsQuery { selection: PageSelection::default(), limit: 100 };
        let mut query = StreamQuery { rows, page: None };
        for (name, value) in pairs {
            match name.as_str() {
                "sort" => {
                    query.rows.selection.sort =
                        PageSort::parse(&value).ok_or_else(|| Problem::bad_request("unknown sort"))?;
                }
                "order" => {
                    query.rows.selection.order = match value.as_str() {
                        "asc" => Order::Asc,
                        "desc" => Order::Desc,
                        _ => return Err(Problem::bad_request("order should be asc or desc")),
                    };
                }
                "contains" => query.rows.selection.contains = value,
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=LIMIT_MAX).contains(limit));
                    query.rows.limit = limit.ok_or_else(|| Problem::bad_request("limit should be 1 to 1000"))?;
                }
                "page" if value.len() <= PAGE_KEY_BYTES_MAX => query.page = Some(value.into()),
                _ => return Err(Problem::bad_request("unknown parameter")),
            }
        }
        Ok(query)
    }
}

pub(super) async fn stream(
    State(streams): State<Streams>,
    pairs: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, Problem> {
    let Query(pairs) = pairs.map_err(|_| Problem::bad_request("the query is not valid: percent-encode its values"))?;
    let Some(subscription) = streams.subscribe(StreamQuery::parse(pairs)?) else {
        let detail = format!("there are {STREAMS_MAX} streams already");
        return Err(Problem { status: StatusCode::SERVICE_UNAVAILABLE, detail });
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
    page: Option<Arc<str>>,
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
