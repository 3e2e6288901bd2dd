//! The dashboard's files, which are part of the binary.

use axum::Router;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;

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

pub(super) fn routes() -> Router {
    FILES.into_iter().fold(Router::new(), |router, (path, content_type, text)| {
        router.route(path, get(async move || file(content_type, text)))
    })
}

/// A new binary may bring new files at the same path, so a browser asks each time.
fn file(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, content_type), (header::CACHE_CONTROL, "no-cache")], text)
}
