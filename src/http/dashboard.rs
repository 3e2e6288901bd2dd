//! The dashboard's files, which are part of the binary.

use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

pub(super) fn routes() -> OpenApiRouter {
    OpenApiRouter::default()
        .routes(routes!(dashboard))
        .route("/dashboard.css", get(async || file(CSS, include_str!("dashboard/dashboard.css"))))
        .route("/dashboard.js", get(async || file(JS, include_str!("dashboard/dashboard.js"))))
        .route("/favicon.svg", get(async || file(SVG, include_str!("dashboard/favicon.svg"))))
}

/// The dashboard: a page that shows what `/v1/stream` sends.
#[utoipa::path(
    get,
    path = "/",
    tag = "operation",
    responses((status = 200, description = "The page.", body = String, content_type = "text/html"))
)]
async fn dashboard() -> Response {
    file(HTML, include_str!("dashboard/index.html")).into_response()
}

/// A new binary may bring new files at the same path, so a browser asks each time.
fn file(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-cache")], text)
}
