//! The server as a client sees it: over a socket, on a free port.

mod access;
mod checkpoints;
mod document;
mod limits;

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::testing::{Answer, get, page, post, request, send, status, window};
use super::{limits::HEADER_BYTES_MAX, *};
use crate::checkpoint::coordinator::{Committed, Coordinator, CoordinatorSettings};
use crate::progress::JobStart;
use crate::report::{Phase, WorkerReport};

/// A server on a free port, with what it shows.
struct Served {
    server: Server,
    status: Arc<Status>,
    view: Arc<View>,
}

impl Served {
    fn address(&self) -> SocketAddr {
        self.server.address()
    }
}

fn served(site: Site) -> Server {
    serve(TcpListener::bind("127.0.0.1:0").expect("a free port"), site).expect("a server")
}

fn metrics_handle() -> PrometheusHandle {
    crate::metrics::recorder().expect("valid buckets").handle()
}

/// What process 0 shows of a job that is running and takes no checkpoints.
fn site_of_process_0() -> JobSite {
    let status = Arc::new(status(0));
    status.set_phase(Phase::Running);
    JobSite {
        status,
        view: Some(Arc::new(View::new(ViewLimits { windows_max: 5, page_rows_max: 10_000 }))),
        savepoints: None,
        store: None,
        limits: HealthLimits::default(),
        metrics: metrics_handle(),
        access: Access::default(),
    }
}

/// Process 0, running.
fn process_0() -> Served {
    process_0_on("127.0.0.1:0", site_of_process_0())
}

/// The same, where it is told to listen, with what it shows.
fn process_0_on(listen: &str, site: JobSite) -> Served {
    let (status, view) = (Arc::clone(&site.status), site.view.clone().expect("process 0 has one"));
    let listener = TcpListener::bind(listen).expect("a free port");
    Served { server: serve(listener, Site::Job(site)).expect("a server"), status, view }
}

/// The head's value of a header.
fn header_of<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn health() {
    let served = process_0();
    let check = |path: &str, code: u16, status: &str| {
        let answer = get(served.address(), path);
        assert_eq!((answer.code, answer.json()["status"].as_str()), (code, Some(status)), "{path}: {}", answer.body);
        answer.json()["checks"].clone()
    };
    check("/healthz", 200, "ok");
    check("/readyz", 200, "ok");
    served.status.set_phase(Phase::Stopping);
    check("/healthz", 200, "ok");
    let checks = check("/readyz", 503, "failing");
    assert_eq!(checks[1], json!({"name": "running", "ok": false, "reason": "stopping"}));
    served.server.stop();
}

#[test]
fn api() {
    let served = process_0();
    served.view.publish(window(10, 3));
    served.view.publish(window(20, 2_000));
    let check = |path: &str, pointer: &str, expected: Value| {
        let answer = get(served.address(), path);
        assert_eq!(answer.code, 200, "{path}: {}", answer.body);
        assert_eq!(answer.json().pointer(pointer), Some(&expected), "{pointer} of {path}");
    };
    check("/v1/windows/latest", "/window_end", json!(20));
    check("/v1/windows/latest", "/totals/pages", json!(2_000));
    check("/v1/windows/latest", "/totals/click_count", json!(4_000));
    check("/v1/windows/latest", "/close_to_commit_ms", json!(400));
    check("/v1/windows/10", "/pages_kept", json!(3));
    check("/v1/windows", "/windows/0/window_end", json!(20));
    check("/v1/windows?order=asc", "/windows/0/window_end", json!(10));
    check("/v1/windows?window_end_max=19", "/windows/0/totals/view_count", json!(3));
    check("/v1/pages?limit=1", "/pages/0/page_url", json!("/1999"));
    check("/v1/pages", "/pages/0/view_count", json!(1_999));
    check("/v1/pages", "/matched", json!(2_000));
    check("/v1/pages", "/totals/view_count", json!(1_999_000));
    check("/v1/pages?sort=unique_users&limit=2", "/pages/1/page_url", json!("/1"));
    check("/v1/pages?window_end=10", "/pages/0/page_url", json!("/2"));
    check("/v1/pages?prefix=/19&contains=99&view_count_min=1998", "/matched", json!(2));
    check("/v1/pages?prefix=%2F19&order=asc", "/pages/0/page_url", json!("/19"));
    check("/v1/pages?contains=nowhere", "/pages", json!([]));
    check("/v1/pages/%2F2/windows", "/page_url", json!("/2"));
    check("/v1/pages/%2F2/windows", "/windows/0/window_end", json!(20));
    check("/v1/pages/%2F2/windows?order=asc", "/windows/0/window_end", json!(10));
    check("/v1/pages/%2F2/windows?window_end_min=11", "/windows/0/window_end", json!(20));
    check("/v1/pages/%2F2/windows?window_end_min=21", "/windows", json!([]));
    check("/v1/cluster", "/phase", json!("running"));
    let rows = |path: &str| get(served.address(), path).json()["pages"].as_array().map(Vec::len);
    assert_eq!(rows("/v1/pages"), Some(100));
    assert_eq!(rows("/v1/pages?limit=1000"), Some(1_000));
}

/// What follows `cursor=` in the answers to a path, one after the other, until there is no more: of each, its rows by `row`.
fn pages_of<T>(served: &Served, path: &str, rows: &str, row: impl Fn(&Value) -> T) -> Vec<Vec<T>> {
    let (mut answers, mut cursor) = (Vec::new(), String::new());
    loop {
        let answer = get(served.address(), &format!("{path}{cursor}")).json();
        answers.push(answer[rows].as_array().expect("rows").iter().map(&row).collect());
        match answer["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return answers,
        }
    }
}

#[test]
fn lists_go_on_from_their_cursors() {
    let served = process_0();
    for end in [10, 20, 30] {
        served.view.publish(window(end, 5));
    }
    let urls = |path: &str| pages_of(&served, path, "pages", |page| page["page_url"].as_str().map(str::to_owned));
    let check = |path: &str, expected: &[&[&str]]| {
        let found = urls(path);
        let found: Vec<Vec<&str>> =
            found.iter().map(|page| page.iter().flatten().map(String::as_str).collect()).collect();
        assert_eq!(found, expected, "{path}");
    };
    check("/v1/pages?limit=2", &[&["/4", "/3"], &["/2", "/1"], &["/0"]]);
    check("/v1/pages?limit=5", &[&["/4", "/3", "/2", "/1", "/0"]]);
    check("/v1/pages?limit=2&sort=bounce_rate&window_end=10", &[&["/0", "/1"], &["/2", "/3"], &["/4"]]);
    check("/v1/pages?limit=1&contains=3", &[&["/3"]]);
    check("/v1/pages?limit=2&view_count_min=9", &[&[]]);
    let ends = |path: &str| pages_of(&served, path, "windows", |window| window["window_end"].as_i64().expect("an end"));
    assert_eq!(ends("/v1/windows?limit=2"), [vec![30, 20], vec![10]]);
    assert_eq!(ends("/v1/windows?limit=2&order=asc"), [vec![10, 20], vec![30]]);
    assert_eq!(ends("/v1/windows?limit=1&window_end_min=15&window_end_max=30"), [vec![30], vec![20]]);
    assert_eq!(ends("/v1/pages/%2F2/windows?limit=2"), [vec![30, 20], vec![10]]);
    assert_eq!(ends("/v1/pages/%2F2/windows?limit=3&order=asc"), [vec![10, 20, 30]]);
}

#[test]
fn a_list_stays_in_its_window_until_that_is_forgotten() {
    let served = process_0();
    let check = |path: &str, cursor: &str, code: u16, pointer: &str, expected: Value| {
        let answer = get(served.address(), &format!("{path}&cursor={cursor}"));
        assert_eq!((answer.code, answer.json().pointer(pointer)), (code, Some(&expected)), "{path}: {}", answer.body);
    };
    let cursor = |path: &str| {
        let next = get(served.address(), path).json()["next_cursor"].as_str().map(str::to_owned);
        next.unwrap_or_else(|| panic!("{path} has no cursor"))
    };
    served.view.publish(window(10, 3));
    served.view.publish(window(20, 3));
    let (pages, windows, asc) = ("/v1/pages?limit=1", "/v1/windows?limit=1", "/v1/windows?limit=1&order=asc");
    let (of_pages, of_windows, of_asc) = (cursor(pages), cursor(windows), cursor(asc));
    served.view.publish(window(30, 3));
    check(pages, &of_pages, 200, "/window_end", json!(20));
    check(pages, &of_pages, 200, "/pages/0/page_url", json!("/1"));
    check("/v1/pages?limit=2", &of_pages, 200, "/pages/1/page_url", json!("/0"));
    check(windows, &of_windows, 200, "/windows/0/window_end", json!(10));
    check(asc, &of_asc, 200, "/windows/0/window_end", json!(20));

    // With other parameters, or of another list, it means nothing.
    let other = "cursor belongs to another list: repeat the parameters of the answer that it came with, but for limit";
    for path in ["/v1/pages?limit=1&sort=click_count", "/v1/pages?contains=1", "/v1/pages?window_end=20", windows] {
        check(path, &of_pages, 400, "/detail", json!(other));
    }
    check("/v1/pages/%2F1/windows?limit=1", &of_windows, 400, "/detail", json!(other));

    for end in [40, 50, 60] {
        served.view.publish(window(end, 3));
    }
    let gone = json!("windows that end before 20 are no longer kept in memory");
    check(asc, &of_asc, 410, "/detail", gone);
    check(pages, &of_pages, 200, "/window_end", json!(20));
    served.view.publish(window(70, 3));
    let gone = json!("windows that end before 30 are no longer kept in memory");
    check(pages, &of_pages, 410, "/detail", gone.clone());
    check(windows, &of_windows, 410, "/detail", gone);
}

#[test]
fn problems() {
    let served = process_0();
    let check = |method: &str, path: &str, code: u16, detail: &str| {
        let answer = request(served.address(), method, path);
        assert_eq!(answer.code, code, "{path}: {}", answer.body);
        assert_eq!(header_of(&answer, "content-type"), Some("application/problem+json"), "{path}");
        let body = answer.json();
        assert_eq!(body["status"], json!(code));
        assert!(body["detail"].as_str().is_some_and(|found| found.contains(detail)), "{path}: {body}");
    };
    check("GET", "/v1/pages", 404, "no window has closed");
    check("GET", "/v1/windows/latest", 404, "no window has closed");
    served.view.publish(window(10, 3));
    check("GET", "/v1/pages?sort=fame", 400, "sort: unknown variant `fame`, expected one of `page_url`, `view_count`");
    check("GET", "/v1/pages?order=up", 400, "order: unknown variant `up`, expected `desc` or `asc`");
    for limit in ["0", "1001", "-1", "", "1.5", "99999999999999999999999"] {
        check("GET", &format!("/v1/pages?limit={limit}"), 400, "limit: must be a whole number from 1 to 1000");
    }
    check(
        "GET",
        "/v1/pages?view_count_min=-1",
        400,
        "view_count_min: must be a whole number from 0 to 9007199254740991",
    );
    check(
        "GET",
        "/v1/pages?window_end=9007199254740992",
        400,
        "window_end: must be a whole number from -9007199254740991",
    );
    check(
        "GET",
        &format!("/v1/pages?prefix={}", "é".repeat(513)),
        400,
        "prefix: must have at most 512 characters, not 513",
    );
    check("GET", "/v1/pages?cursor=", 400, "cursor: must be the next_cursor of an answer");
    check("GET", &format!("/v1/pages?cursor={}", "a".repeat(40)), 400, "cursor belongs to another list");
    check("GET", "/v1/pages?colour=red", 400, "unknown parameter `colour`, expected one of `window_end`, `sort`");
    check("GET", "/v1/pages?limit=1&limit=2", 400, "duplicate field `limit`");
    check("GET", "/v1/pages?contains=%FF", 400, "percent-encode");
    check("GET", "/v1/windows?sort=view_count", 400, "unknown parameter `sort`");
    check("GET", "/v1/windows/yesterday", 400, "or as \"latest\"");
    check("GET", "/v1/windows/5", 410, "windows that end before 10 are no longer kept");
    check("GET", "/v1/windows/20", 404, "no window that ends after 10 has closed yet");
    check("GET", "/v1/pages?window_end=20", 404, "no window that ends after 10 has closed yet");
    check("GET", "/v1/pages/%2Fnone/windows", 404, "no event");
    check("GET", "/v1/pages/%FF/windows", 400, "percent-encode");
    check("GET", &format!("/v1/pages/{}/windows", "a".repeat(2_049)), 404, "no event");
    check("GET", "/nothing", 404, "nothing at this path");
    check("GET", "/v1/pages//windows", 404, "no event");
    check("POST", "/v1/pages", 405, "does not take that method");
    check("DELETE", "/", 405, "does not take that method");
    let too_long = get(served.address(), &format!("/{}", "a".repeat(HEADER_BYTES_MAX)));
    assert!((400..500).contains(&too_long.code), "{}", too_long.head);
}

#[test]
fn hostile_page_keys() {
    let served = process_0();
    let longest = format!("/{}", "é".repeat(1_023));
    let keys = [
        "https://shop.example.com/a?b=c&d=%20#e",
        "/<img src=x onerror=alert(1)>",
        "/\"'\\\u{0}\r\n\u{202e}",
        "/../..//.",
        "/مرحبا",
        "/100%",
        &longest,
    ];
    let pages = keys.iter().map(|key| page(key, 10, 1)).collect();
    served.view.publish(ClosedWindow { window_start: 0, window_end: 10, close_to_commit_ms: None, pages });
    for key in keys {
        let encoded: String = key.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = get(served.address(), &format!("/v1/pages/{encoded}/windows"));
        assert_eq!(answer.code, 200, "{key:?}: {}", answer.body);
        assert_eq!(header_of(&answer, "content-type"), Some("application/json"));
        let body = answer.json();
        assert_eq!((&body["page_url"], &body["windows"][0]["page_url"]), (&json!(key), &json!(key)));
    }
}

#[test]
fn dashboard_and_headers() {
    let served = process_0();
    let check = |path: &str, content_type: &str| {
        let answer = get(served.address(), path);
        assert_eq!((answer.code, header_of(&answer, "content-type")), (200, Some(content_type)), "{path}");
        assert!(
            header_of(&answer, "content-security-policy").is_some_and(|policy| policy.contains("default-src 'self'"))
        );
        assert_eq!(header_of(&answer, "x-content-type-options"), Some("nosniff"));
        assert_eq!(header_of(&answer, "access-control-allow-origin"), None);
    };
    for (path, content_type, _) in dashboard::FILES {
        check(path, content_type);
    }
    check("/metrics", "text/plain; version=0.0.4; charset=utf-8");
    check("/v1/cluster", "application/json");

    // What the policy would stop, or what would let a page key in as markup.
    let never_in_html = [" style=", "<style", " onclick", "http:", "https:"];
    let never_in_scripts = ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "DOMParser"];
    for (path, content_type, text) in dashboard::FILES {
        let never: &[&str] = match content_type {
            "text/html; charset=utf-8" => &never_in_html,
            "text/javascript; charset=utf-8" => &never_in_scripts,
            _ => &[],
        };
        never.iter().for_each(|never| assert!(!text.contains(never), "{never} in {path}"));
    }
}

/// Worker 0 of a job that has committed nothing, which answers for as long as anybody asks.
fn coordinator(requests: SavepointRequests) {
    let settings = CoordinatorSettings {
        job: "clicks".into(),
        configuration: "{}".into(),
        topic_id: None,
        interval_ms: i64::MAX,
        processes: 1,
    };
    let start = JobStart::fresh(1);
    let committed = Arc::new(Mutex::new(Committed::at(&start, 10)));
    let mut coordinator = Coordinator::new(settings, &start, committed, requests, 0);
    std::thread::spawn(move || {
        loop {
            assert_eq!(coordinator.begin(0, false), None);
            std::thread::sleep(Duration::from_millis(5));
        }
    });
}

#[test]
fn savepoints_are_refused() {
    let requests = SavepointRequests::default();
    coordinator(requests.clone());
    let all = process_0_on("0.0.0.0:0", JobSite { savepoints: Some(requests), ..site_of_process_0() });
    let off = process_0();
    let port = all.address().port();
    let local = SocketAddr::from(([127, 0, 0, 1], port));
    let check = |address: SocketAddr, content_type: &str, body: &str, code: u16, detail: &str| {
        let answer = post(address, "/v1/savepoints", content_type, body);
        assert_eq!(answer.code, code, "{body}: {}", answer.body);
        let problem = answer.json();
        assert!(problem["detail"].as_str().is_some_and(|found| found.contains(detail)), "{body}: {problem}");
    };
    let (json, good) = ("application/json", r#"{"name": "mine"}"#);
    for bad in ["", "{", "[]", r#"{"called": "mine"}"#, r#"{"name": 5}"#, r#"{"name": "mine", "force": true}"#] {
        check(local, json, bad, 400, "the body must be like");
    }
    for bad in ["", "..", "a/b", "a b"] {
        check(local, json, &json!({ "name": bad }).to_string(), 400, "can't be called");
    }
    for other in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"] {
        check(local, other, good, 415, "must be application/json");
    }
    check(local, json, good, 409, "nothing is committed yet");
    check(off.address(), json, good, 409, "checkpoints.store is \"off\"");
    assert_eq!(get(local, "/v1/savepoints").code, 405);

    // The machine by its other address, if it has one; nothing is sent to where this points.
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    if let Ok(address) = socket.connect("198.51.100.1:9").and_then(|()| socket.local_addr())
        && !address.ip().is_loopback()
    {
        check(SocketAddr::new(address.ip(), port), json, good, 403, "own machine only");
    }
}

#[test]
fn other_processes_and_the_generator_have_no_api() {
    let site = JobSite { status: Arc::new(status(0)), view: None, ..site_of_process_0() };
    let process_1 = served(Site::Job(site));
    let health = || Health::default().check("rate", false, "2 s behind schedule").figure("events_per_second", 998.5);
    let generator = served(Site::Generator(GeneratorSite {
        health: Arc::new(health),
        metrics: metrics_handle(),
        access: Access::default(),
    }));
    let check = |server: &Server, path: &str, code: u16| {
        let answer = get(server.address(), path);
        assert_eq!(answer.code, code, "{path}: {}", answer.body);
    };
    check(&process_1, "/healthz", 200);
    check(&process_1, "/readyz", 503);
    check(&process_1, "/metrics", 200);
    check(&process_1, "/", 404);
    check(&process_1, "/v1/stream", 404);
    check(&generator, "/healthz", 200);
    check(&generator, "/metrics", 200);
    check(&generator, "/readyz", 503);
    assert_eq!(
        get(generator.address(), "/metrics/health").json(),
        json!({
            "status": "failing",
            "checks": [{"name": "rate", "ok": false, "reason": "2 s behind schedule"}],
            "figures": {"events_per_second": 998.5},
        })
    );
}

/// The events of a stream, as they come.
struct Events {
    lines: BufReader<TcpStream>,
}

impl Events {
    fn subscribe(address: SocketAddr, query: &str) -> Events {
        Events { lines: BufReader::new(send(address, &format!("GET /v1/stream{query} HTTP/1.1"))) }
    }

    /// The next event's name and data, or none at the end. Chunk sizes between the lines are passed over.
    fn next(&mut self) -> Option<(String, Value)> {
        let mut name = None;
        let mut line = Vec::new();
        loop {
            line.clear();
            if self.lines.read_until(b'\n', &mut line).expect("read") == 0 {
                return None;
            }
            let text = String::from_utf8_lossy(&line);
            if let Some(event) = text.strip_prefix("event: ") {
                name = Some(event.trim().to_owned());
            } else if let (Some(data), Some(name)) = (text.strip_prefix("data: "), name.clone()) {
                return Some((name, serde_json::from_str(data).expect("JSON")));
            }
        }
    }

    fn next_named(&mut self, wanted: &str) -> Value {
        loop {
            let (name, data) = self.next().expect("another event");
            if name == wanted {
                return data;
            }
        }
    }
}

#[test]
fn stream() {
    let served = process_0();
    served.view.publish(window(10, 3));
    served.view.publish(window(20, 150));
    let mut events = Events::subscribe(served.address(), "?limit=40&sort=view_count&order=asc&page=%2F1");

    let (name, snapshot) = events.next().expect("a snapshot");
    assert_eq!(name, "snapshot");
    let check = |body: &Value, pointer: &str, expected: Value| {
        assert_eq!(body.pointer(pointer), Some(&expected), "{pointer} of {body:#}");
    };
    check(&snapshot, "/table/window/window_end", json!(20));
    check(&snapshot, "/table/window/totals/pages", json!(150));
    check(&snapshot, "/table/matching", json!(150));
    check(&snapshot, "/table/history/0/window_end", json!(10));
    check(&snapshot, "/table/columns/0", json!("view_count"));
    check(&snapshot, "/table/rows/2/page_url", json!("/2"));
    check(&snapshot, "/table/rows/2/views", json!([2, 2]));
    check(&snapshot, "/table/rows/1/figures", json!([1, 3, 2, 1, 1.0, 0.5, 0.25, 12.5]));
    check(&snapshot, "/page/page_url", json!("/1"));
    check(&snapshot, "/page/windows/0/0", json!(1));
    check(&snapshot, "/cluster/job", json!("clicks"));
    assert_eq!(snapshot["table"]["rows"].as_array().map(Vec::len), Some(40));

    served.view.publish(window(30, 1));
    let change = events.next_named("window");
    check(&change, "/table/window/window_end", json!(30));
    check(&change, "/table/order", json!([[0, 1]]));
    check(&change, "/table/changed", json!([]));
    check(&change, "/table/added", json!([]));
    check(&change, "/page", Value::Null);
    served.status.set_worker(&WorkerReport { late: 7, ..WorkerReport::default() });
    let late = (0..3).map(|_| events.next_named("cluster")["late"].clone()).last();
    assert_eq!(late, Some(json!(7)));

    // What an earlier run has left comes before it.
    served.view.restore(vec![window(1, 1), window(2, 1)]);
    let snapshot = events.next_named("snapshot");
    check(&snapshot, "/table/history/0/window_end", json!(1));
    check(&snapshot, "/table/window/window_end", json!(30));

    // Stopping ends the stream at once.
    let stopping = Instant::now();
    served.server.stop();
    while events.next().is_some() {}
    assert!(stopping.elapsed() < Duration::from_secs(5));
}

#[test]
fn stream_before_the_first_window() {
    let served = process_0();
    let mut events = Events::subscribe(served.address(), "");
    let (_, snapshot) = events.next().expect("a snapshot");
    let table = &snapshot["table"];
    assert_eq!((&table["window"], &table["history"], &snapshot["page"]), (&Value::Null, &json!([]), &Value::Null));
    served.view.publish(window(10, 1));
    let change = events.next_named("window");
    assert_eq!(change["table"]["added"][0]["page_url"], json!("/0"));
}

#[test]
fn a_slow_stream_starts_again() {
    let served = process_0();
    let mut events = Events::subscribe(served.address(), "");
    assert_eq!(events.next().map(|(name, _)| name).as_deref(), Some("snapshot"));

    // Far more than the sockets between hold, while nobody reads.
    let key = "x".repeat(2_000);
    let last = 300;
    let mut slowest = Duration::ZERO;
    for end in 1..=last {
        let pages = (0..100).map(|i| page(&format!("/{i}/{end}/{key}"), end, 1)).collect();
        let publishing = Instant::now();
        served.view.publish(ClosedWindow { window_start: end - 10, window_end: end, close_to_commit_ms: None, pages });
        slowest = slowest.max(publishing.elapsed());
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(slowest < Duration::from_secs(1), "publishing took {slowest:?}");

    // It goes forward only, window by window or with a new beginning, and in the end it is where the view is.
    let (mut reached, mut again) = (0, 0);
    while reached < last {
        let (name, data) = events.next().expect("another event");
        if name == "cluster" {
            continue;
        }
        let window_end = data["table"]["window"]["window_end"].as_i64().expect("a number");
        assert!(window_end > reached, "{name} {window_end} after {reached}");
        // Before the first one nothing was shown, so that nothing is missed.
        assert!(window_end == reached + 1 || name == "snapshot" || reached == 0, "{name} {window_end} after {reached}");
        again += u32::from(name == "snapshot");
        reached = window_end;
    }
    assert!(again > 0);
    served.view.publish(window(last + 1, 1));
    assert_eq!(events.next_named("window")["table"]["window"]["window_end"], json!(last + 1));
}

#[test]
fn streams_are_limited() {
    let served = process_0();
    let mut streams: Vec<TcpStream> = Vec::new();
    for _ in 0..super::limits::STREAMS_MAX {
        let mut socket = send(served.address(), "GET /v1/stream HTTP/1.1");
        socket.read_exact(&mut [0; 12]).expect("an answer");
        streams.push(socket);
    }
    assert_eq!(get(served.address(), "/v1/stream").code, 503);
    assert_eq!(get(served.address(), "/healthz").code, 200);
    streams.clear();
    let freed = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        let mut head = [0; 12];
        send(served.address(), "GET /v1/stream HTTP/1.1").read_exact(&mut head).expect("an answer");
        &head == b"HTTP/1.1 200"
    });
    assert!(freed, "streams that ended should make room");
}
