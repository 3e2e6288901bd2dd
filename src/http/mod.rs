//! HTTP: health and metrics of every process, the analytics API and the dashboard of process 0.
//!
//! ```text
//! committer thread ──publish──▶ View ───┬─▶ /v1/windows/latest  /v1/pages  /v1/pages/{page}/windows
//!                                       └─▶ /v1/stream ─▶ / (the dashboard)
//! workers, sources ──set, add─▶ Status ─┬─▶ /v1/cluster  /healthz  /readyz
//!                                       └─▶ metrics ─▶ /metrics
//! ```
//!
//! Everything is read from memory. Architecture invariants: a request never waits for the pipeline and the pipeline
//! never waits for a request; nothing here knows of Kafka, timely or the configuration; no answer holds personal data.

pub mod health;
pub mod pages;
pub mod server;
pub mod status;
pub mod stream;
pub mod view;

mod dashboard;
mod feed;
mod problem;
mod query;
mod savepoints;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::sync::watch;

pub use health::{Health, HealthLimits};
pub use server::{Server, serve};
pub use status::{CheckpointStatus, PartitionStatus, ProcessIdentity, Status};
pub use view::{ClosedWindow, View, ViewLimits};

use crate::checkpoint::coordinator::SavepointRequests;
use problem::Problem;

/// What a server shows.
pub enum Site {
    /// A process of a job.
    Job(JobSite),
    /// The generator.
    Generator(GeneratorSite),
}

/// What a process of a job shows.
#[derive(Clone)]
pub struct JobSite {
    /// What the process says about itself.
    pub status: Arc<Status>,
    /// The closed windows, in process 0; the others serve neither the API nor the dashboard.
    pub view: Option<Arc<View>>,
    /// Where savepoints are asked for, in process 0 of a job that takes checkpoints.
    pub savepoints: Option<SavepointRequests>,
    /// What counts as healthy.
    pub limits: HealthLimits,
    /// The metrics.
    pub metrics: PrometheusHandle,
}

/// What the generator shows.
#[derive(Clone)]
pub struct GeneratorSite {
    /// Makes the answer of `/readyz` and `/metrics/health`; it is called on the server's thread and must not block.
    pub health: Arc<dyn Fn() -> Health + Send + Sync>,
    /// The metrics.
    pub metrics: PrometheusHandle,
}

/// What a server's own thread tells the streams.
#[derive(Clone)]
struct Live {
    /// The cluster as JSON.
    cluster: watch::Receiver<Arc<str>>,
    stop: watch::Receiver<bool>,
}

fn router(site: Site, live: Live) -> Router {
    let routes = match site {
        Site::Job(job) => job_routes(job, live),
        Site::Generator(generator) => generator_routes(generator),
    };
    routes
        .fallback(pages::no_such_path)
        .method_not_allowed_fallback(async || Problem {
            status: StatusCode::METHOD_NOT_ALLOWED,
            detail: "this path does not take that method".into(),
        })
        .layer(axum::middleware::map_response(with_security_headers))
}

fn job_routes(job: JobSite, live: Live) -> Router {
    let JobSite { status, view, savepoints, limits, metrics } = job;
    let (alive, ready) = (Arc::clone(&status), status);
    let routes = Router::new()
        .route("/healthz", get(async move || health_response(&health::liveness(&alive, &limits))))
        .route("/readyz", get(async move || health_response(&health::readiness(&ready, &limits))))
        .route("/metrics", get(prometheus).with_state(metrics));
    let Some(view) = view else { return routes };
    let cluster = live.cluster.clone();
    let streams = stream::Streams::new(Arc::clone(&view), live.cluster, live.stop);
    let windows = Router::new()
        .route("/v1/windows/latest", get(pages::latest_window))
        .route("/v1/pages", get(pages::top_pages))
        .route("/v1/pages/{page}/windows", get(pages::page_windows))
        .with_state(view);
    routes
        .merge(windows)
        .route("/v1/savepoints", post(savepoints::take).with_state(savepoints))
        .route("/v1/cluster", get(async move || json_text(cluster.borrow().to_string())))
        .route("/v1/stream", get(stream::stream).with_state(streams))
        .merge(dashboard::routes())
}

fn generator_routes(generator: GeneratorSite) -> Router {
    let GeneratorSite { health, metrics } = generator;
    let figures = Arc::clone(&health);
    // Alive is what answers: a generator that lags behind its schedule would lag no less after a restart.
    let alive = || Health::default().check("process", true, "it answers");
    Router::new()
        .route("/healthz", get(async move || health_response(&alive())))
        .route("/readyz", get(async move || health_response(&health())))
        .route("/metrics/health", get(async move || health_response(&figures())))
        .route("/metrics", get(prometheus).with_state(metrics))
}

async fn prometheus(State(metrics): State<PrometheusHandle>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], crate::metrics::page(&metrics))
        .into_response()
}

fn health_response(health: &Health) -> Response {
    #[derive(Serialize)]
    struct Body<'a> {
        status: &'static str,
        #[serde(flatten)]
        health: &'a Health,
    }
    let (code, status) =
        if health.ok() { (StatusCode::OK, "ok") } else { (StatusCode::SERVICE_UNAVAILABLE, "failing") };
    (code, json_response(&Body { status, health })).into_response()
}

fn json_response(body: &impl Serialize) -> Response {
    json_text(json(body))
}

fn json_text(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}

/// JSON of a value whose maps have string keys, which cannot fail.
fn json(body: &impl Serialize) -> String {
    serde_json::to_string(body).unwrap_or_else(|error| {
        tracing::error!(%error, "a response could not be written as JSON");
        "null".into()
    })
}

/// The dashboard's own files and the API are all that a page of this server may load; nobody may frame it.
async fn with_security_headers(mut response: Response) -> Response {
    const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; object-src 'none'; base-uri 'none'; \
        form-action 'none'; frame-ancestors 'none'";
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
