//! The log: what is in its lines, what never is, where they go, and how its levels are changed.
//!
//! Nothing here depends on how fast anything is: waits are for conditions, with generous deadlines.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use serde_json::Value;
use support::job::{DEADLINE, Job, now_ms};
use support::watched::Watched;
use support::{Process, brokers, eventually, free_port};

/// The lines of a log in JSON; what the program says at its end is none.
fn lines(log: &str) -> Vec<Value> {
    let lines = log.lines().filter(|line| !line.starts_with("clicktide: "));
    lines.map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// Sends a request with a body; returns the status code and what is answered.
fn put(port: u16, path: &str, body: &str) -> (u16, Value) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).expect("connect");
    let head = format!("PUT {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: application/json");
    write!(socket, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("write");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("read");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status code");
    (code, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}")))
}

/// Recognisable whatever is made of them: none of these may be in any line.
const PERSONAL: [&str; 7] =
    ["mallory", "sess10n-of-hers", "203.0.113.77", "Netscape/4", "/diary/of", "shop.test", "referred-by"];

/// Events of which some are rejected for every kind of reason, and some late.
fn personal_events(path: &Path) {
    let event = |user: &str, session: &str, url: &str, time: i64, duration: i64| {
        format!(
            r#"{{"user_id":"{user}","session_id":"{session}","event_type":"VIEW","page_url":"{url}","timestamp":{time},"user_agent":"Netscape/4","ip_address":"203.0.113.77","referrer":"https://shop.test/referred-by","session_duration":{duration}}}"#
        )
    };
    let url = "https://shop.test/diary/of/mallory?mail=mallory@shop.test";
    let long = format!("mallory{}", "y".repeat(300));
    let mut events: Vec<String> =
        (0..200).map(|i| event("mallory", "sess10n-of-hers", url, 1_000_000 + i * 1_000, 5)).collect();
    events.extend([
        event("", "sess10n-of-hers", url, 1_200_000, 5),
        event("mallory", "", url, 1_200_000, 5),
        event(&long, "sess10n-of-hers", url, 1_200_000, 5),
        event("mallory", "sess10n-of-hers", "diary/of mallory", 1_200_000, 5),
        event("mallory", "sess10n-of-hers", url, -5, 5),
        event("mallory", "sess10n-of-hers", url, 1_200_000, -5),
        event("mallory", "sess10n-of-hers", url, 10_000, 5),
        "{\"user_id\":\"mallory\", not JSON at https://shop.test/diary/of".to_owned(),
    ]);
    fs::write(path, events.join("\n")).unwrap();
}

#[test]
fn no_line_holds_personal_data_at_any_level() {
    let dir = tempfile::tempdir().unwrap();
    personal_events(&dir.path().join("events.jsonl"));
    let input = dir.path().join("events.jsonl").display().to_string();
    let file = format!("--set=logging.file={}", dir.path().join("log.jsonl").display());
    let flags =
        ["replay", "--log=trace", "--size=10s", "--slide=1s", "--bound=1s", "--output=/dev/null", &file, &input];
    let mut replay = Process::start("replay", dir.path(), flags);
    replay.wait_for_code(0, DEADLINE);
    assert!(replay.stderr().contains("late 1"), "{}", replay.stderr());

    // The same through Kafka and HTTP, with the generator's events, pages asked for by name and paths that are not there.
    let port = free_port();
    let http = format!("--http=127.0.0.1:{port}");
    let mut demo = Process::start("demo", dir.path(), ["demo", "--log=trace", "--rate=200", &http, &file]);
    let watched = Watched(port);
    demo.until("windows are closed", DEADLINE, |_| {
        watched.cluster("/committed_window_end_ms").filter(|end| !end.is_null())
    });
    for path in [
        "/v1/pages/https%3A%2F%2Fshop.example.com%2Fproducts%2F00001/windows",
        "/diary/of/mallory",
        "/v1/pages/%2Fdiary%2Fof/windows",
    ] {
        watched.get(path).expect("an answer");
    }
    demo.signal("INT");
    demo.wait_for_code(0, DEADLINE);

    let logs = [replay.stderr(), demo.stderr()];
    // A replay may have nothing to say, and then makes no file.
    let file = |name: &str| fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    let files = [file("log-replay.jsonl"), file("log-demo.jsonl")];
    assert!(logs[1].lines().count() > 10 && files[1].lines().count() > 10, "there is something to look at");
    let generated = ["user-0", "session-", "shop.example.com", "192.0.2.", "198.51.100.", "2001:db8", "Mozilla"];
    for log in logs.iter().chain(&files) {
        for personal in PERSONAL.iter().chain(&generated) {
            let found = log.lines().find(|line| line.contains(personal));
            assert_eq!(found, None, "{personal:?} is in the log");
        }
    }
}

#[test]
fn no_line_holds_a_secret() {
    let dir = tempfile::tempdir().unwrap();
    let flags = [
        "run",
        "--log=trace",
        "--brokers=127.0.0.1:1",
        "--set=kafka.lost_after=3s",
        "--set=http.listen=off",
        "--set=checkpoints.store=off",
        "--set=kafka.properties.sasl.mechanism=PLAIN",
        "--set=kafka.properties.security.protocol=SASL_PLAINTEXT",
        "--set=kafka.properties.sasl.username=somebody",
        "--set=kafka.properties.sasl.password=hunter2-of-kafka",
        "--set=privacy.hash_key=hunter2-of-hashes",
        "--set=cluster.secret=hunter2-of-the-cluster",
    ];
    let mut run = Process::start("run", dir.path(), flags);
    run.wait(DEADLINE);
    let stderr = run.stderr();
    let starts = lines(&stderr).into_iter().find(|line| line["message"] == "clicktide starts").expect("the first line");
    assert_eq!(starts["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(starts["kafka_properties"], "sasl.mechanism,sasl.password,sasl.username,security.protocol");
    assert!(!stderr.contains("hunter2"), "{stderr}");
}

#[test]
fn a_file_that_cannot_be_written_is_told_of_and_stops_nothing() {
    let dir = tempfile::tempdir().unwrap();
    personal_events(&dir.path().join("events.jsonl"));
    let input = dir.path().join("events.jsonl").display().to_string();
    fs::write(dir.path().join("taken"), "a file").unwrap();
    let file = format!("--set=logging.file={}", dir.path().join("taken/clicktide.log").display());
    let mut demo = Process::start("demo", dir.path(), ["demo", "--log=info", "--http=off", "--duration=3s", &file]);
    demo.wait_for_code(0, DEADLINE);
    let told = lines(&demo.stderr())
        .into_iter()
        .find(|line| line["message"].as_str().unwrap().contains("the log file can't be written"));
    let told = told.unwrap_or_else(|| panic!("{}", demo.stderr()));
    assert!(told["error"].as_str().unwrap().contains("os error"), "{told}");
    let mut replay = Process::start("replay", dir.path(), ["replay", "--output=/dev/null", &file, &input]);
    replay.wait_for_code(0, DEADLINE);
}

#[test]
fn every_line_of_a_run_says_so_and_the_levels_change_in_all_processes() {
    let Some(brokers) = brokers() else { return };
    let mut job = Job::new(&brokers, 2);
    let port = free_port();
    job.flags.push(format!("--set=logging.file={}", job.dir().join("clicktide.log").display()));
    let _generator = job.generate(200, None);
    let own = Watched(port).flag();
    let mut processes = vec![job.process(2, 0, 1, &[&own]), job.process(2, 1, 1, &[])];
    job.until_more(1, &mut processes);

    let (code, problem) = put(port, "/v1/logging", r#"{"filter": "clicktide=loud"}"#);
    assert_eq!((code, problem["title"].as_str()), (400, Some("Bad Request")), "{problem}");
    let (code, problem) = put(port, "/v1/logging", r#"{"filter": "info", "for": "5"}"#);
    assert!(code == 400 && problem["detail"].as_str().unwrap().contains("a duration"), "{problem}");
    let (code, problem) = put(port, "/v1/logging", r#"{"filter": "info", "for": "2days"}"#);
    assert!(code == 400 && problem["detail"].as_str().unwrap().contains("between 1s and 1day"), "{problem}");
    let (code, levels) = put(port, "/v1/logging", r#"{"filter": "info,clicktide=debug", "for": "2s"}"#);
    assert_eq!(
        (code, levels["filter"].as_str(), levels["configured"].as_str()),
        (200, Some("info,clicktide=debug"), Some("info"))
    );
    assert!(levels["until_ms"].as_i64().unwrap() > now_ms() - 60_000);
    // Both processes follow, and are as before when the time is over.
    for process in &mut processes {
        for filter in ["info,clicktide=debug", "info"] {
            process.until(filter, DEADLINE, |process| {
                let changed =
                    |line: &Value| line["message"] == "the log levels are changed" && line["filter"] == filter;
                lines(&process.stderr()).iter().any(changed).then_some(())
            });
        }
    }
    assert!(lines(&processes[0].stderr()).iter().any(|line| line["message"] == "a window is committed"));
    let levels = Watched(port).json("/v1/logging").expect("an answer");
    assert_eq!((levels["filter"].as_str(), levels["until_ms"].as_i64()), (Some("info"), None));

    support::job::stop(&mut processes, "TERM");
    let mut runs = std::collections::BTreeSet::new();
    for (index, process) in processes.iter().enumerate() {
        let log = process.stderr();
        let said = lines(&log);
        let together = said.iter().position(|line| line["message"] == "the processes are together").expect("they are");
        for line in &said[together..] {
            assert_eq!(line["process"], index, "{line}");
            runs.insert(line["run"].as_str().unwrap_or_else(|| panic!("no run: {line}")).to_owned());
        }
        let file = eventually("the file", DEADLINE, || {
            fs::read_to_string(job.dir().join(format!("clicktide-{index}.log"))).ok()
        });
        // Each place has its own reading of the clock.
        let untimed = |mut line: Value| line.as_object_mut().and_then(|line| line.remove("timestamp")).map(|_| line);
        let untimed = |log: &str| lines(log).into_iter().map(untimed).collect::<Option<Vec<_>>>();
        assert_eq!(untimed(&file), untimed(&log), "the file has the same lines");
    }
    assert_eq!(runs.len(), 1, "{runs:?}");
    let worker = lines(&processes[1].stderr()).into_iter().find(|line| line["worker"] == 1);
    assert!(worker.is_some(), "{}", processes[1].stderr());
}
