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

/// Where each file is, what it is, and its text.
pub(super) const FILES: [(&str, &str, &str); 13] = [
    ("/", HTML, include_str!("dashboard/index.html")),
    ("/dashboard.css", CSS, include_str!("dashboard/dashboard.css")),
    ("/dashboard.js", JS, include_str!("dashboard/dashboard.js")),
    ("/charts.js", JS, include_str!("dashboard/charts.js")),
    ("/cluster.js", JS, include_str!("dashboard/cluster.js")),
    ("/detail.js", JS, include_str!("dashboard/detail.js")),
    ("/dom.js", JS, include_str!("dashboard/dom.js")),
    ("/event-time.js", JS, include_str!("dashboard/event-time.js")),
    ("/format.js", JS, include_str!("dashboard/format.js")),
    ("/model.js", JS, include_str!("dashboard/model.js")),
    ("/pages.js", JS, include_str!("dashboard/pages.js")),
    ("/stream.js", JS, include_str!("dashboard/stream.js")),
    ("/favicon.svg", SVG, include_str!("dashboard/favicon.svg")),
];

pub(super) fn routes() -> OpenApiRouter {
    let page = OpenApiRouter::default().routes(routes!(dashboard));
    FILES.into_iter().filter(|(path, ..)| *path != "/").fold(page, |router, (path, content_type, text)| {
        router.route(path, get(async move || file(content_type, text)))
    })
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
