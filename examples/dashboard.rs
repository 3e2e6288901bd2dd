//! Serves the dashboard with made-up windows, to work on the page without a broker or a job.
//!
//! `cargo run --example dashboard -- 127.0.0.1:8080 running`, or another of the states: `starting`, `replaying`, `lagging` (a
//! partition is behind, another idle), `many` (1,000 pages), `hostile` (page keys that try to break the page), `empty` (no
//! event yet). A third argument is the token that it asks for.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clicktide::config::Secret;
use clicktide::http::{
    Access, CheckpointStatus, ClosedWindow, HealthLimits, JobSite, PartitionStatus, ProcessIdentity, Site, Status,
    View, ViewLimits, serve,
};
use clicktide::report::{Phase, ProcessReport, WorkerReport};
use clicktide_dataflows::event::PageAnalytics;
use clicktide_dataflows::time::Windows;

const SLIDE_MS: i64 = 2_000;
const SIZE_MS: i64 = 60_000;
const BOUND_MS: i64 = 2_000;
/// Windows there are at the start.
const HISTORY: i64 = 40;
const PARTITIONS: i32 = 6;
const PROCESSES: usize = 2;
const WORKERS: usize = 2;

/// What is made up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Running,
    Starting,
    Replaying,
    Lagging,
    Many,
    Hostile,
    Empty,
}

const STATES: [(&str, State); 7] = [
    ("running", State::Running),
    ("starting", State::Starting),
    ("replaying", State::Replaying),
    ("lagging", State::Lagging),
    ("many", State::Many),
    ("hostile", State::Hostile),
    ("empty", State::Empty),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let listener = TcpListener::bind(arguments.next().unwrap_or_else(|| "127.0.0.1:8080".into()))?;
    let asked = arguments.next().unwrap_or_else(|| "running".into());
    let found = STATES.iter().find(|(name, _)| *name == asked);
    let state = found.ok_or_else(|| format!("no state {asked:?}: one of {:?}", STATES.map(|(name, _)| name)))?.1;
    let token = arguments.next();
    let urls = page_urls(state);

    let metrics = clicktide::metrics::install()?;
    let status = Arc::new(Status::new(ProcessIdentity {
        job: "clicktide-example".into(),
        process: 0,
        processes: PROCESSES,
        workers: WORKERS,
        windows: Windows::new(SIZE_MS, SLIDE_MS, 0)?,
        disorder_bound_ms: BOUND_MS,
    }));
    let view = Arc::new(View::new(ViewLimits::default()));
    let site = JobSite {
        status: Arc::clone(&status),
        view: Some(Arc::clone(&view)),
        savepoints: None,
        store: None,
        limits: HealthLimits::default(),
        metrics,
        access: Access { token: token.map(Secret::new), ..Access::default() },
    };
    let server = serve(listener, Site::Job(site))?;
    println!("http://{}/", server.address());
    status.set_notice("Made-up figures, in windows of 60 s every 2 s.");
    if state == State::Starting {
        loop {
            sleep(Duration::from_secs(1));
        }
    }
    status.set_run(17, PARTITIONS as usize);
    status.set_heard_from(|| (1..PROCESSES).map(|process| (process, Duration::from_millis(300))).collect());
    status.set_checkpoint_interval(30_000);

    // How far the slowest partition is behind the others.
    let behind_ms = match state {
        State::Lagging => 95_000,
        State::Replaying => 40_000,
        _ => 0,
    };
    let mut window_end = (now_ms() - BOUND_MS - behind_ms) / SLIDE_MS * SLIDE_MS - HISTORY * SLIDE_MS;
    if state == State::Replaying {
        view.restore((0..HISTORY).map(|window| closed_window(window_end + window * SLIDE_MS, &urls)).collect());
        status.set_committed(window_end + (HISTORY - 1) * SLIDE_MS);
    }
    status.set_phase(if state == State::Replaying { Phase::Replaying } else { Phase::Running });
    for step in 0_u64.. {
        let watermark_ms = now_ms() - BOUND_MS - behind_ms;
        if state != State::Empty {
            status.set_watermark(watermark_ms);
        }
        while !matches!(state, State::Replaying | State::Empty) && window_end <= watermark_ms {
            view.publish(closed_window(window_end, &urls));
            status.set_committed(window_end);
            status.add_results(urls.len() as u64);
            window_end += SLIDE_MS;
        }
        tell_partitions(&status, state, watermark_ms, behind_ms, step as i64);
        tell_workers(&status, state, step);
        if step % 300 == 20 {
            status.set_checkpoint(Ok(CheckpointStatus {
                name: format!("00000017-{window_end}"),
                through_ms: window_end,
                took_ms: 84,
                events: 31_204,
                bytes: 655_284,
                bytes_written: 211_020,
            }));
        }
        if state == State::Lagging && step % 300 == 40 {
            status.set_checkpoint(Err("put 00000017/pane-3: No space left on device".into()));
        }
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Partition 3 is the slowest where one is; partition 5 is idle in a job that lags.
fn tell_partitions(status: &Status, state: State, watermark_ms: i64, behind_ms: i64, step: i64) {
    for partition in 0..PARTITIONS {
        let slow = partition == 3;
        let idle = state == State::Empty || (state == State::Lagging && partition == 5);
        let lag = if slow && behind_ms > 0 { 48_000 + step * 3 } else { 12 };
        let watermark_ms = watermark_ms + if slow { 0 } else { behind_ms + i64::from(partition) * 40 };
        let position = 100_000 + step * 7 + i64::from(partition) * 977;
        let stands = PartitionStatus {
            partition,
            worker: partition as usize % (PROCESSES * WORKERS),
            position: if state == State::Empty { 0 } else { position },
            high_watermark: if state == State::Empty { 0 } else { position + if idle { 0 } else { lag } },
            watermark_ms: (state != State::Empty).then_some(watermark_ms),
            idle,
            awaited: None,
        };
        status.set_partition(stands, true);
    }
}

fn tell_workers(status: &Status, state: State, step: u64) {
    (0..WORKERS).for_each(|worker| status.worker_stepped(worker));
    for worker in 0..PROCESSES * WORKERS {
        let events = if state == State::Empty { 0 } else { 4_000 + step * 21 + worker as u64 * 100 };
        let rejected = [("undecodable", events / 900), ("future_timestamp", events / 1_300)];
        let phase = if state == State::Replaying { Phase::Replaying } else { Phase::Running };
        status.set_worker(&WorkerReport {
            worker,
            process: ProcessReport {
                process: worker / WORKERS,
                phase,
                uptime_ms: 4_000 + step * 100,
                resident_memory_bytes: Some(182_000_000 + worker as u64 * 1_000_000),
            },
            events,
            late: events / 700,
            duplicates: 0,
            other_pages: 0,
            rejected: rejected.into_iter().filter(|(_, n)| *n > 0).map(|(reason, n)| (reason.into(), n)).collect(),
        });
    }
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

fn page_urls(state: State) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    if state == State::Hostile {
        urls.extend([
            "/<img src=x onerror=\"document.title='broken'\">".into(),
            "/\"'><script>document.title='broken'</script>".into(),
            format!("https://example.com/{}", "very-long/".repeat(200)),
            "/\u{202e}gnp.exe/left\u{202c}".into(),
            "/مرحبا/بالعالم/שלום".into(),
            "/👩‍🚀/🦀/emoji?q=😀".into(),
            "javascript:document.title='broken'".into(),
            "/\u{0}\u{1b}[31mred\u{200b}zero".into(),
            "/%2e%2e/%3Cb%3E&amp;".into(),
            "/#page=/other".into(),
            "/{{7*7}}${7*7}</td></tr></table>".into(),
            "__proto__".into(),
        ]);
    }
    urls.extend(["/", "/search", "/cart", "/checkout"].map(String::from));
    let products = if state == State::Many { 996 } else { 116 };
    urls.extend((0..products).map(|product| format!("https://shop.example.com/products/{:04}", product * 37 % 1_000)));
    urls
}

/// Figures that look like traffic: few pages have most of it, and it swells and ebbs.
fn closed_window(window_end: i64, urls: &[String]) -> ClosedWindow {
    let window_start = window_end - SIZE_MS;
    let swell = 1.0 + 0.3 * (window_end as f64 / 19_000.0).sin();
    let page = |(rank, url): (usize, &String)| {
        let ripple = 1.0 + 0.15 * (window_end as f64 / 7_000.0 + rank as f64).sin();
        let view_count = (9_000.0 * swell * ripple / (rank + 2) as f64) as i64;
        PageAnalytics {
            page_url: url.clone(),
            window_start,
            window_end,
            view_count,
            unique_users: (view_count as f64 * 0.6) as i32,
            click_count: view_count / 4,
            conversion_count: view_count / 31,
            engagement_rate: 0.3 + 0.2 * (rank as f64).sin(),
            bounce_rate: 0.2 + 0.1 * (rank as f64).cos(),
            avg_session_duration: 95.0 + 60.0 * (rank as f64 / 3.0).sin(),
        }
    };
    let pages = urls.iter().enumerate().map(page).collect();
    ClosedWindow { window_start, window_end, close_to_commit_ms: Some(380 + (window_end / 100 % 90) as u64), pages }
}
