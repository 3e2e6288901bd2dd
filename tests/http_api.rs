//! The HTTP API against its own document: schemathesis makes requests up from `/v1/openapi.json`, good and bad ones, and looks
//! whether the answers are as they are described.

mod support;

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use clicktide::checkpoint::store::{MemoryStore, Store};
use clicktide::checkpoint::{Manifest, names};
use clicktide::config::Secret;
use clicktide::http::{
    Access, ClosedWindow, HealthLimits, JobSite, JobStore, PartitionStatus, ProcessIdentity, Server, Site, Status,
    View, ViewLimits, serve,
};
use clicktide::report::Phase;
use clicktide_dataflows::event::PageAnalytics;
use clicktide_dataflows::time::{Tick, Windows};
use support::python;

const TOKEN: &str = "0123456789abcdef";

/// Process 0 of a job with some windows and a checkpoint, where it serves.
fn server(access: Access) -> Server {
    let identity = ProcessIdentity {
        job: "clicks".into(),
        process: 0,
        processes: 1,
        workers: 1,
        windows: Windows::new(60_000, 10_000, 0).expect("valid windows"),
        disorder_bound_ms: 30_000,
    };
    let status = Arc::new(Status::new(identity));
    status.set_phase(Phase::Running);
    status.set_checkpoint_interval(30_000);
    status.set_watermark(95_000);
    status.set_partition(
        PartitionStatus {
            partition: 0,
            worker: 0,
            position: 90,
            high_watermark: 100,
            watermark_ms: Some(95_000),
            idle: false,
            awaited: None,
        },
        true,
    );
    let view = Arc::new(View::new(ViewLimits::default()));
    for window_end in [70_000, 80_000, 90_000] {
        view.publish(window(window_end));
    }
    let store = MemoryStore::default();
    let manifest = Manifest {
        job: "clicks".into(),
        generation: 1,
        configuration: "{}".into(),
        topic_id: None,
        through: Tick(80_000),
        input: Vec::new(),
        resume: Vec::new(),
        idle_advances: Vec::new(),
        objects: Vec::new(),
    };
    store.put_new(&names::checkpoint(Tick(80_000), 1), manifest.encode()).expect("a new name");
    store.put_new("savepoints/torn", b"{".to_vec()).expect("a new name");
    let site = JobSite {
        status,
        view: Some(view),
        savepoints: None,
        store: Some(JobStore { store: Arc::new(store), job: "clicks".into(), configuration: "{}".into() }),
        limits: HealthLimits::default(),
        metrics: clicktide::metrics::recorder().expect("valid buckets").handle(),
        access,
    };
    serve(TcpListener::bind("127.0.0.1:0").expect("a free port"), Site::Job(site)).expect("a server")
}

fn window(window_end: i64) -> ClosedWindow {
    let window_start = window_end - 60_000;
    let page = |rank: i64| PageAnalytics {
        page_url: format!("https://shop.example.com/products/{rank:03}"),
        window_start,
        window_end,
        view_count: 1_000 / (rank + 1),
        unique_users: 10,
        click_count: 3,
        conversion_count: 1,
        engagement_rate: 0.5,
        bounce_rate: 1.0,
        avg_session_duration: 12.25,
    };
    ClosedWindow { window_start, window_end, close_to_commit_ms: Some(400), pages: (0..150).map(page).collect() }
}

/// Has schemathesis test the server, with this token if there is one.
fn is_as_described(server: Server, token: Option<&str>) {
    let Some(python) = python() else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/http_api");
    let reports = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(python);
    command.args(["-m", "schemathesis.cli", "--config-file"]).arg(folder.join("schemathesis.toml"));
    command.arg("run");
    command.args(token.map(|token| format!("--header=Authorization: Bearer {token}")));
    command.arg(format!("http://{}/v1/openapi.json", server.address()));
    command
        .current_dir(reports.path())
        .env("SCHEMATHESIS_HOOKS", folder.join("hooks.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    let output = command.output().expect("schemathesis can be run");
    let told = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}");
    // All but /v1/stream, which never ends.
    assert!(told.contains("Selected: 14/15") && told.contains("Tested: 14"), "{told}");
    server.stop();
}

#[test]
fn the_api_is_as_its_document_says() {
    is_as_described(server(Access::default()), None);
}

#[test]
fn the_api_with_a_token_is_as_its_document_says() {
    let access = Access { token: Some(Secret::new(TOKEN)), ..Access::default() };
    is_as_described(server(access), Some(TOKEN));
}
