//! The server of process 0 without its sockets, for the fuzz targets. No part of the library's interface.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use clicktide_dataflows::event::PageAnalytics;
use clicktide_dataflows::time::Windows;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use super::change::Peer;
use super::{
    Access, ClosedWindow, HealthLimits, JobSite, Live, ProcessIdentity, Site, Status, View, ViewLimits, router,
};
use crate::report::Phase;

/// Longer than any answer about so few windows.
const ANSWER_BYTES_MAX: usize = 1 << 24;

/// Process 0 of a job with some closed windows.
pub struct Api {
    router: axum::Router,
    runtime: Runtime,
}

/// An answer.
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// Its content type.
    pub content_type: String,
    /// Its body.
    pub body: Vec<u8>,
}

impl Api {
    /// Three windows of twenty pages. A token is asked for, or none is.
    pub fn new(access: Access) -> Api {
        let view = Arc::new(View::new(ViewLimits { windows_max: 5, page_rows_max: 10_000 }));
        for window_end in [10, 20, 30] {
            view.publish(window(window_end));
        }
        let windows = Windows::new(50, 10, 0).expect("windows");
        let identity = ProcessIdentity {
            job: "clicks".to_owned(),
            process: 0,
            processes: 1,
            workers: 1,
            windows,
            disorder_bound_ms: 20,
        };
        let status = Status::new(identity);
        status.set_phase(Phase::Running);
        let site = JobSite {
            status: Arc::new(status),
            view: Some(view),
            savepoints: None,
            store: None,
            limits: HealthLimits::default(),
            metrics: crate::metrics::recorder().expect("valid buckets").handle(),
            access,
        };
        // Nobody tells of the cluster any more, nor of a stop, so that streams end.
        let live = Live { cluster: watch::channel("{}".into()).1, stop: watch::channel(false).1 };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Api { router: router(Site::Job(site), live), runtime }
    }

    /// What is answered to a request from this machine; none if it is no request at all, which hyper refuses before.
    pub fn answer(&self, method: &[u8], uri: &[u8], headers: &[(&[u8], &[u8])], body: &[u8]) -> Option<Answer> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let peer = Peer(SocketAddr::from(([127, 0, 0, 1], 9)));
        let request = request.extension(peer).body(Body::from(body.to_vec())).ok()?;
        Some(self.runtime.block_on(async {
            let answered = TowerToHyperService::new(self.router.clone()).call(request).await;
            let answer = answered.unwrap_or_else(|never| match never {});
            let content_type = answer.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let (status, content_type) = (answer.status().as_u16(), content_type.unwrap_or_default().to_owned());
            let body = to_bytes(answer.into_body(), ANSWER_BYTES_MAX).await.expect("a body that ends").to_vec();
            Answer { status, content_type, body }
        }))
    }
}

fn window(window_end: i64) -> ClosedWindow {
    let page = |views: i64| PageAnalytics {
        page_url: format!("/{views}"),
        window_start: window_end - 10,
        window_end,
        view_count: views,
        unique_users: 3,
        click_count: 2,
        conversion_count: 1,
        engagement_rate: 0.5,
        bounce_rate: 0.25,
        avg_session_duration: 12.5,
    };
    let pages = (0..20).map(page).collect();
    ClosedWindow { window_start: window_end - 10, window_end, close_to_commit_ms: Some(400), pages }
}
