//! HTTP: health and metrics of every process, the analytics API and the dashboard of process 0.
//!
//! ```text
//! committer thread ──publish──▶ View ───┬─▶ /v1/windows…  /v1/pages…
//!                                       └─▶ /v1/stream ─▶ / (the dashboard)
//! workers, sources ──set, add─▶ Status ─┬─▶ /v1/cluster  /healthz  /readyz
//!                                       └─▶ metrics ─▶ /metrics
//! ```
//!
//! Everything is read from memory. Architecture invariants: a request never waits for the pipeline and the pipeline
//! never waits for a request; nothing here knows of Kafka or timely, or reads the configuration; no answer holds personal data.

pub mod cluster;
#[doc(hidden)]
pub mod fuzzing;
pub mod health;
pub mod limits;
pub mod query;
pub mod server;
pub mod status;
pub mod stream;
pub mod view;

mod auth;
mod change;
mod checkpoints;
mod dashboard;
mod feed;
mod logging;
mod openapi;
mod pages;
mod problem;
mod savepoints;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn, map_response};
use axum::response::{IntoResponse, Response};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::sync::watch;
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

pub use health::{Health, HealthLimits};
pub use server::{Server, serve};
pub use status::{CheckpointStatus, PartitionStatus, ProcessIdentity, Status};
pub use view::{ClosedWindow, View, ViewLimits};

use crate::checkpoint::coordinator::SavepointRequests;
use crate::checkpoint::store::Store;
use crate::config::Secret;
use crate::metrics::HTTP_REQUESTS;
use auth::Token;
use checkpoints::Shelf;
use cluster::ClusterSnapshot;
use limits::URL_BYTES_MAX;
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
    /// Where the checkpoints of such a job are, in process 0.
    pub store: Option<JobStore>,
    /// What counts as healthy.
    pub limits: HealthLimits,
    /// The metrics.
    pub metrics: PrometheusHandle,
    /// Who may see it.
    pub access: Access,
}

/// Where a job's checkpoints are.
#[derive(Clone)]
pub struct JobStore {
    /// The store, of this job alone. It may be slow: no answer waits for it but the one about itself.
    pub store: Arc<dyn Store>,
    /// The job's name.
    pub job: String,
    /// The configuration that gives its events their meaning, as JSON.
    pub configuration: String,
}

/// What the generator shows.
#[derive(Clone)]
pub struct GeneratorSite {
    /// Makes the answer of `/readyz` and `/metrics/health`; it is called on the server's thread and must not block.
    pub health: Arc<dyn Fn() -> Health + Send + Sync>,
    /// The metrics.
    pub metrics: PrometheusHandle,
    /// Who may see it.
    pub access: Access,
}

/// Who may see what a server shows.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// Without it only health and the dashboard's own files are shown; all is, if there is none.
    pub token: Option<Secret>,
    /// The origins of other sites whose pages may read the API in a browser.
    pub cors_origins: Vec<String>,
}

/// What a server's own thread tells the streams.
#[derive(Clone)]
struct Live {
    /// The cluster as JSON.
    cluster: watch::Receiver<Arc<str>>,
    stop: watch::Receiver<bool>,
}

/// Makes the answer of a health check.
type HealthCheck = Arc<dyn Fn() -> Health + Send + Sync>;

fn router(site: Site, live: Live) -> Router {
    let access = match &site {
        Site::Job(job) => job.access.clone(),
        Site::Generator(generator) => generator.access.clone(),
    };
    let (open, guarded) = match site {
        Site::Job(job) => job_routes(job, live),
        Site::Generator(generator) => generator_routes(generator),
    };
    let router = openapi::with_document(open, guarded, access.token.as_ref().map(Token::new))
        .fallback(async || Problem::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method")
        })
        .layer(from_fn(bounded_url));
    let router = match access.cors_origins.is_empty() {
        true => router,
        false => router.layer(cors(&access.cors_origins)),
    };
    router.layer(map_response(with_security_headers)).layer(from_fn(counted))
}

/// Lets pages of these origins read, and change nothing.
fn cors(origins: &[String]) -> CorsLayer {
    let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::HEAD])
        .allow_headers([header::AUTHORIZATION])
        .max_age(Duration::from_secs(3_600))
}

async fn bounded_url(request: Request, next: Next) -> Response {
    let uri = request.uri();
    let bytes = uri.path_and_query().map_or(0, |path_and_query| path_and_query.as_str().len());
    if bytes > URL_BYTES_MAX {
        let detail = format!("the path and the query have {bytes} bytes, and may have {URL_BYTES_MAX}");
        return Problem::new(StatusCode::URI_TOO_LONG, detail).into_response();
    }
    next.run(request).await
}

/// Counts a request once it is answered; a stream, once it begins.
async fn counted(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let response = next.run(request).await;
    let status = response.status().as_u16().to_string();
    metrics::counter!(HTTP_REQUESTS, "route" => route, "status" => status).increment(1);
    response
}

/// The routes that are open to all, and those that need the token.
fn job_routes(job: JobSite, live: Live) -> (OpenApiRouter, OpenApiRouter) {
    let JobSite { status, view, savepoints, store, limits, metrics, access: _ } = job;
    let (alive, ready) = (Arc::clone(&status), status);
    let open = health_routes(
        Arc::new(move || health::liveness(&alive, &limits)),
        Arc::new(move || health::readiness(&ready, &limits)),
    );
    let guarded = OpenApiRouter::default().routes(routes!(prometheus)).with_state(metrics);
    let Some(view) = view else { return (open, guarded) };
    let cluster_now = live.cluster.clone();
    let streams = stream::Streams::new(Arc::clone(&view), live.cluster, live.stop);
    let windows = OpenApiRouter::default()
        .routes(routes!(pages::windows))
        .routes(routes!(pages::latest_window))
        .routes(routes!(pages::window))
        .routes(routes!(pages::pages))
        .routes(routes!(pages::page_windows))
        .with_state(view);
    let guarded = guarded
        .merge(windows)
        .routes(routes!(logging::levels, logging::change))
        .merge(OpenApiRouter::default().routes(routes!(savepoints::take)).with_state(savepoints))
        .merge(OpenApiRouter::default().routes(routes!(stream::stream)).with_state(streams))
        .merge(OpenApiRouter::default().routes(routes!(cluster)).with_state(cluster_now))
        .merge(OpenApiRouter::default().routes(routes!(checkpoints::checkpoints)).with_state(Shelf::new(store)));
    (open.merge(dashboard::routes()), guarded)
}

/// The same of the generator.
fn generator_routes(generator: GeneratorSite) -> (OpenApiRouter, OpenApiRouter) {
    let GeneratorSite { health, metrics, access: _ } = generator;
    // Alive is what answers: a generator that lags behind its schedule would lag no less after a restart.
    let alive = || Health::default().check("process", true, "it answers");
    let figures = OpenApiRouter::default().routes(routes!(figures)).with_state(Arc::clone(&health));
    let guarded = OpenApiRouter::default().routes(routes!(prometheus)).with_state(metrics);
    (health_routes(Arc::new(alive), health).merge(figures), guarded)
}

fn health_routes(alive: HealthCheck, ready: HealthCheck) -> OpenApiRouter {
    let alive = OpenApiRouter::default().routes(routes!(healthz)).with_state(alive);
    alive.merge(OpenApiRouter::default().routes(routes!(readyz)).with_state(ready))
}

/// Whether the process is alive. If it is not, start it again.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    responses(
        (status = 200, description = "It is.", body = HealthBody),
        (status = 503, description = "It is not, for the reasons given.", body = HealthBody)
    )
)]
async fn healthz(State(health): State<HealthCheck>) -> Response {
    health_response(health())
}

/// Whether the process does its work. If it does not, wait, and look at the reasons.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operation",
    responses(
        (status = 200, description = "It does.", body = HealthBody),
        (status = 503, description = "It does not, for the reasons given.", body = HealthBody)
    )
)]
async fn readyz(State(health): State<HealthCheck>) -> Response {
    health_response(health())
}

/// Whether the generator keeps to its schedule, with its figures.
#[utoipa::path(
    get,
    path = "/metrics/health",
    tag = "operation",
    responses(
        (status = 200, description = "It does.", body = HealthBody),
        (status = 503, description = "It does not, for the reasons given.", body = HealthBody)
    )
)]
async fn figures(State(health): State<HealthCheck>) -> Response {
    health_response(health())
}

/// The whole cluster: its processes, workers, partitions and checkpoints, and where it is in event time.
///
/// What it counts, it counts since the run began. The answer may be a second old.
#[utoipa::path(
    get,
    path = "/v1/cluster",
    tag = "job",
    responses((status = 200, description = "The cluster.", body = ClusterSnapshot))
)]
async fn cluster(State(cluster): State<watch::Receiver<Arc<str>>>) -> Response {
    let text = cluster.borrow().to_string();
    json_text(text)
}

/// The metrics of the process, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "operation",
    responses((
        status = 200,
        description = "The metrics, in Prometheus' text format. docs/metrics.md says what each of them means.",
        body = String,
        content_type = "text/plain; version=0.0.4"
    ))
)]
async fn prometheus(State(metrics): State<PrometheusHandle>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], crate::metrics::page(&metrics))
        .into_response()
}

/// Whether something is well, and why.
#[derive(Serialize, ToSchema)]
struct HealthBody {
    /// `ok` if every check is.
    status: HealthStatus,
    #[serde(flatten)]
    health: Health,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum HealthStatus {
    Ok,
    Failing,
}

fn health_response(health: Health) -> Response {
    let (code, status) = if health.ok() {
        (StatusCode::OK, HealthStatus::Ok)
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, HealthStatus::Failing)
    };
    (code, json_response(&HealthBody { status, health })).into_response()
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
