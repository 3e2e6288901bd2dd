//! Serves the dashboard with made-up windows, to work on the page without a broker or a job.
//!
//! `cargo run --example dashboard -- 127.0.0.1:8080`; add `hostile` for page keys that try to break it.

use std::net::TcpListener;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clicktide::http::{
    Access, ClosedWindow, HealthLimits, JobSite, PartitionStatus, ProcessIdentity, Site, Status, View, ViewLimits,
    serve,
};
use clicktide::report::{Phase, WorkerReport};
use clicktide_dataflows::event::PageAnalytics;
use clicktide_dataflows::time::Windows;

const SLIDE_MS: i64 = 2_000;
const SIZE_MS: i64 = 60_000;
const BOUND_MS: i64 = 2_000;
/// Windows there are at the start.
const HISTORY: i64 = 40;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let listener = TcpListener::bind(arguments.next().unwrap_or_else(|| "127.0.0.1:8080".into()))?;
    let urls = page_urls(arguments.next().as_deref() == Some("hostile"));

    let metrics = clicktide::metrics::install()?;
    let identity = ProcessIdentity {
        job: "clicktide-demo".into(),
        process: 0,
        processes: 1,
        workers: 2,
        windows: Windows::new(SIZE_MS, SLIDE_MS, 0)?,
        disorder_bound_ms: BOUND_MS,
    };
    let status = Arc::new(Status::new(identity));
    let view = Arc::new(View::new(ViewLimits::default()));
    let site = JobSite {
        status: Arc::clone(&status),
        view: Some(Arc::clone(&view)),
        savepoints: None,
        store: None,
        limits: HealthLimits::default(),
        metrics,
        access: Access::default(),
    };
    let server = serve(listener, Site::Job(site))?;
    println!("http://{}/", server.address());
    status.set_notice("Made-up figures, in windows of 60 s every 2 s.");
    status.set_phase(Phase::Running);

    let mut window_end = (now_ms() - BOUND_MS) / SLIDE_MS * SLIDE_MS - HISTORY * SLIDE_MS;
    for step in 0_u64.. {
        let watermark_ms = now_ms() - BOUND_MS;
        while window_end <= watermark_ms {
            view.publish(closed_window(window_end, &urls));
            status.set_committed(window_end);
            status.add_results(urls.len() as u64);
            window_end += SLIDE_MS;
        }
        status.set_watermark(watermark_ms);
        for partition in 0..3 {
            let idle = partition == 2;
            let stands = PartitionStatus {
                partition,
                worker: partition as usize % 2,
                position: 100_000 + step as i64 * 7,
                high_watermark: 100_000 + step as i64 * 7 + if idle { 0 } else { 12 },
                watermark_ms: Some(watermark_ms - if idle { 90_000 } else { i64::from(partition) * 40 }),
                idle,
            };
            status.set_partition(stands, true);
        }
        for worker in 0..2 {
            status.worker_stepped(worker);
            let rejected = [("undecodable", step / 14), ("future_timestamp", step / 20)];
            status.set_worker(&WorkerReport {
                worker,
                process: status.process_report(Some(40 << 20)),
                events: step * 10,
                late: step / 7,
                rejected: rejected.map(|(reason, count)| (reason.to_owned(), count)).into(),
            });
        }
        sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

fn page_urls(hostile: bool) -> Vec<String> {
    let mut urls: Vec<String> = Vec::new();
    if hostile {
        urls.extend([
            "/<img src=x onerror=\"document.title='broken'\">".into(),
            "/\"'><script>document.title='broken'</script>".into(),
            format!("https://example.com/{}", "very-long/".repeat(200)),
            "/\u{202e}gnp.exe/left\u{202c}".into(),
            "/مرحبا/بالعالم/שלום".into(),
            "javascript:alert(1)".into(),
            "/\u{0}\u{1b}[31mred\u{200b}zero".into(),
            "/%2e%2e/%3Cb%3E&amp;".into(),
        ]);
    }
    urls.extend(["/", "/search", "/cart", "/checkout"].map(String::from));
    urls.extend((0..116).map(|product| format!("https://shop.example.com/products/{:03}", product * 37 % 500)));
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
