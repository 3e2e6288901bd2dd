//! What the dashboard shows of earlier runs: the same as before, read again from the results topic of a real Kafka.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use clicktide::avro::encode_page_analytics;
use clicktide_dataflows::event::PageAnalytics;
use serde_json::{Value, json};
use support::job::{DEADLINE, Job, SIZE_MS, all_closed_ms, stop};
use support::topics::Plain;
use support::{Process, brokers, free_port};

/// A job whose process 0 answers on this port.
fn served(brokers: &str) -> (Job, u16) {
    let mut job = Job::new(brokers, 3);
    let port = free_port();
    job.flags.push(format!("--set=http.listen=127.0.0.1:{port}"));
    (job, port)
}

/// The answer to a request, if there is one.
fn get(port: u16, path: &str) -> Option<Value> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(20))).ok()?;
    // Of HTTP/1.0, so that the body is not in chunks.
    write!(socket, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").ok()?;
    let mut text = String::new();
    socket.read_to_string(&mut text).ok()?;
    serde_json::from_str(text.split_once("\r\n\r\n")?.1).ok()
}

/// Every window that is kept with the pages that are kept of it, oldest first, without what an earlier run alone could
/// measure.
fn kept(port: u16) -> Option<Vec<Value>> {
    let mut windows = get(port, "/v1/windows?order=asc&limit=1000")?["windows"].as_array()?.clone();
    for window in &mut windows {
        let pages = get(port, &format!("/v1/pages?limit=1000&window_end={}", window["window_end"]))?;
        window["close_to_commit_ms"] = Value::Null;
        window["pages"] = pages["pages"].clone();
    }
    Some(windows)
}

/// Waits until what is kept is as it should be.
fn until(process: &mut Process, what: &str, port: u16, mut condition: impl FnMut(&[Value]) -> bool) -> Vec<Value> {
    process.until(what, DEADLINE, |_| kept(port).filter(|windows| condition(windows)))
}

/// Waits until as many windows are kept, which must be these.
fn until_same(process: &mut Process, what: &str, port: u16, expected: &[Value]) {
    let found = until(process, what, port, |windows| windows.len() >= expected.len());
    let ends = |windows: &[Value]| windows.iter().map(|window| window["window_end"].clone()).collect::<Vec<_>>();
    assert_eq!(ends(&found), ends(expected), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found, expected, "{what}");
    }
}

#[test]
fn history_over_restarts() {
    let Some(brokers) = brokers() else { return };
    let (mut job, port) = served(&brokers);
    let mut generator = job.generate(300, Some("8s"));
    let mut process = job.process(1, 0, 2, &[]);
    generator.wait_for_code(0, DEADLINE);
    job.until_final(all_closed_ms(), std::slice::from_mut(&mut process));
    let before = until(&mut process, "all is shown", port, |windows| windows.len() >= 8);
    let rows: usize = before.iter().map(|window| window["pages"].as_array().map_or(0, Vec::len)).sum();
    assert!(rows > 100, "{rows}");
    assert_eq!(before[3]["totals"]["pages"], json!(before[3]["pages"].as_array().map(Vec::len)));

    // Stopped, and killed; with other workers.
    stop(std::slice::from_mut(&mut process), "TERM");
    let mut process = job.process(1, 0, 1, &[]);
    until_same(&mut process, "the same after a stop", port, &before);
    process.kill();
    let mut process = job.process(1, 0, 3, &[]);
    until_same(&mut process, "the same after a kill", port, &before);

    // What closes from now on comes after it.
    let mut generator = job.generate(300, Some("4s"));
    generator.wait_for_code(0, DEADLINE);
    job.until_final(all_closed_ms(), std::slice::from_mut(&mut process));
    let all = until(&mut process, "more windows", port, |windows| windows.len() > before.len() + 4);
    assert_eq!(all[..before.len()], before);

    // Only as much as may be kept: some windows, or some rows.
    stop(std::slice::from_mut(&mut process), "TERM");
    job.flags.push("--set=http.history_windows=3".to_owned());
    let mut process = job.process(1, 0, 1, &[]);
    until_same(&mut process, "the last windows", port, &all[all.len() - 3..]);
    stop(std::slice::from_mut(&mut process), "TERM");
    let count = |window: &Value| window["pages"].as_array().map_or(0, Vec::len);
    let rows_max = all[all.len() - 2..].iter().map(count).sum::<usize>();
    job.flags.extend([format!("--set=http.page_rows_max={rows_max}"), "--set=http.history_windows=60".to_owned()]);
    let mut process = job.process(1, 0, 1, &[]);
    until_same(&mut process, "the last rows", port, &all[all.len() - 2..]);
    stop(std::slice::from_mut(&mut process), "TERM");
}

#[test]
fn the_history_is_this_jobs_own() {
    let Some(brokers) = brokers() else { return };
    let (job, port) = served(&brokers);
    let mut generator = job.generate(300, Some("6s"));
    let mut process = job.process(1, 0, 1, &[]);
    generator.wait_for_code(0, DEADLINE);
    job.until_final(all_closed_ms(), std::slice::from_mut(&mut process));
    let before = until(&mut process, "all is shown", port, |windows| windows.len() >= 6);
    stop(std::slice::from_mut(&mut process), "TERM");

    // Behind them comes what is not its own: windows of another size, windows that end elsewhere, and no results at all.
    let plain = Plain::new(&brokers);
    let last_end = before.last().and_then(|window| window["window_end"].as_i64()).expect("a window");
    for number in 0..60 {
        let (size_ms, window_end) = if number % 2 == 0 { (SIZE_MS / 2, last_end) } else { (SIZE_MS, last_end - 7) };
        let mut body = Vec::new();
        encode_page_analytics(&result(window_end - size_ms, window_end), &mut body);
        plain.send(&job.results.name, number % 3, Some(&body));
        plain.send(&job.results.name, number % 3, Some(b"no result"));
        plain.send(&job.results.name, number % 3, None);
    }
    plain.flush();

    let mut process = job.process(1, 0, 1, &[]);
    until_same(&mut process, "its own", port, &before);
    stop(std::slice::from_mut(&mut process), "TERM");
}

fn result(window_start: i64, window_end: i64) -> PageAnalytics {
    PageAnalytics {
        page_url: "/elsewhere".to_owned(),
        window_start,
        window_end,
        view_count: 1,
        unique_users: 1,
        click_count: 0,
        conversion_count: 0,
        engagement_rate: 0.0,
        bounce_rate: 1.0,
        avg_session_duration: 0.0,
    }
}
