//! `clicktide replay` against the expected results in `tests/oracle`: at 1, 2 and 3 workers and as two processes, byte for
//! byte the same, from JSON Lines, packed JSON Lines and Avro container files.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use apache_avro::{Schema, Writer};
use clicktide::avro::CLICK_EVENT_SCHEMA;
use clicktide::event::ClickEvent;
use clicktide::privacy::{Domain, HashKey};
use clicktide_dataflows::event::PageAnalytics;
use flate2::read::GzDecoder;
use support::{Process, free_ports};

const DEADLINE: Duration = Duration::from_secs(120);

fn unpacked(name: &str) -> String {
    let path = Path::new("tests/oracle").join(name);
    let mut text = String::new();
    GzDecoder::new(fs::File::open(&path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

fn expected(name: &str) -> Vec<PageAnalytics> {
    unpacked(&format!("{name}.expected.jsonl.gz")).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Replays with these flags in one process; returns what is written, and what is said.
fn replay(dir: &Path, name: &str, flags: &[&str], files: &[PathBuf]) -> (String, String) {
    let output = dir.join(format!("{name}.jsonl"));
    let mut arguments: Vec<String> = ["replay", "--output"].map(str::to_owned).into();
    arguments.push(output.display().to_string());
    arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
    arguments.extend(files.iter().map(|file| file.display().to_string()));
    let mut process = Process::start(name, dir, arguments);
    process.wait_for_code(0, DEADLINE);
    (fs::read_to_string(output).unwrap(), process.stderr())
}

/// Replays as two processes of one worker each; returns what process 0 writes.
fn replay_as_two(dir: &Path, files: &[PathBuf]) -> String {
    let hosts = dir.join("hosts.txt");
    let ports = free_ports(2);
    fs::write(&hosts, format!("127.0.0.1:{}\n127.0.0.1:{}\n", ports[0], ports[1])).unwrap();
    let output = dir.join("two.jsonl");
    let mut processes: Vec<Process> = (0..2)
        .map(|index| {
            let mut arguments: Vec<String> = ["replay", "-n", "2", "-w", "1", "-p"].map(str::to_owned).into();
            arguments.push(index.to_string());
            arguments.extend(["-h".to_owned(), hosts.display().to_string()]);
            arguments.extend(["--output".to_owned(), output.display().to_string()]);
            arguments.extend(files.iter().map(|file| file.display().to_string()));
            Process::start(&format!("process-{index}"), dir, arguments)
        })
        .collect();
    for process in &mut processes {
        process.wait_for_code(0, DEADLINE);
    }
    fs::read_to_string(output).unwrap()
}

/// Not `assert_eq`, which would print megabytes.
fn same(actual: &str, expected: &str, what: &str) {
    let differing = actual.lines().zip(expected.lines()).find(|(actual, expected)| actual != expected);
    assert!(
        actual == expected,
        "{what}: {} bytes, {} expected, first difference {differing:?}",
        actual.len(),
        expected.len()
    );
}

fn check_results(actual: &str, expected: &[PageAnalytics]) {
    let actual: Vec<PageAnalytics> = actual.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(actual.len(), expected.len(), "number of results");
    for (actual, expected) in actual.iter().zip(expected) {
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-9;
        assert!(
            close(actual.engagement_rate, expected.engagement_rate)
                && close(actual.bounce_rate, expected.bounce_rate)
                && close(actual.avg_session_duration, expected.avg_session_duration),
            "{actual:?} is not {expected:?}"
        );
        let without_means = |result: &PageAnalytics| PageAnalytics {
            engagement_rate: 0.0,
            bounce_rate: 0.0,
            avg_session_duration: 0.0,
            ..result.clone()
        };
        assert_eq!(without_means(actual), without_means(expected));
    }
}

/// Replays one input in every way: the results are as expected, and the same to the byte. `said` is what is counted.
fn check(name: &str, said: &str) {
    let dir = tempfile::tempdir().unwrap();
    let packed = fs::canonicalize(format!("tests/oracle/{name}.events.jsonl.gz")).unwrap();
    let plain = dir.path().join("events.jsonl");
    fs::write(&plain, unpacked(&format!("{name}.events.jsonl.gz"))).unwrap();
    let container = dir.path().join("events.avro");
    write_container(&plain, &container);

    let (one, stderr) = replay(dir.path(), "one", &["-w", "1"], std::slice::from_ref(&packed));
    check_results(&one, &expected(name));
    assert!(stderr.contains(said), "{stderr}");
    for workers in ["2", "3"] {
        let (more, _) =
            replay(dir.path(), &format!("{workers}-workers"), &["-w", workers], std::slice::from_ref(&packed));
        same(&more, &one, &format!("{workers} workers"));
    }
    same(&replay_as_two(dir.path(), &[packed]), &one, "two processes");
    same(&replay(dir.path(), "plain", &[], std::slice::from_ref(&plain)).0, &one, "not packed");
    assert!(plain.metadata().unwrap().len() > 0);
    same(&replay(dir.path(), "container", &[], &[container]).0, &one, "Avro container");
}

fn write_container(events: &Path, container: &Path) {
    let schema = Schema::parse_str(CLICK_EVENT_SCHEMA).unwrap();
    let mut writer = Writer::new(&schema, fs::File::create(container).unwrap()).unwrap();
    for line in fs::read_to_string(events).unwrap().lines() {
        writer.append_ser(serde_json::from_str::<ClickEvent>(line).unwrap()).unwrap();
    }
    writer.flush().unwrap();
}

#[test]
fn sanitised_events_of_files_of_every_kind() {
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("events.jsonl");
    fs::write(&plain, unpacked("boundary.events.jsonl.gz") + "no event\n").unwrap();
    let container = dir.path().join("events.avro");
    let events = unpacked("boundary.events.jsonl.gz");
    fs::write(dir.path().join("good.jsonl"), &events).unwrap();
    write_container(&dir.path().join("good.jsonl"), &container);
    let sanitised = |name: &str, file: &PathBuf| {
        let output = dir.path().join(format!("{name}.sanitised.jsonl"));
        let flag = format!("--sanitised={}", output.display());
        replay(dir.path(), name, &[&flag, "--set=privacy.hash_key=x", "-w", "2"], std::slice::from_ref(file));
        let mut lines: Vec<String> = fs::read_to_string(output).unwrap().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let of_lines = sanitised("lines", &plain);
    assert_eq!(of_lines, sanitised("of-container", &container));
    let key = HashKey::new("x").unwrap();
    // All of them, the late ones too.
    let mut users: Vec<String> = events
        .lines()
        .map(|line| serde_json::from_str::<ClickEvent>(line).unwrap())
        .map(|event| format!("{:016x}", key.hash(Domain::User, &event.user_id)))
        .collect();
    users.sort();
    let mut hashed: Vec<String> = of_lines
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["user_id"].as_str().unwrap().to_owned())
        .collect();
    hashed.sort();
    assert_eq!(hashed, users);

    let refused = |flags: &[&str]| {
        let mut process = Process::start("refused", dir.path(), [&["replay"], flags].concat());
        process.wait_for_code(2, DEADLINE);
        process.stderr()
    };
    let (input, output) = (plain.display().to_string(), dir.path().join("both").display().to_string());
    assert!(refused(&[&input, "--sanitised", &input]).contains("--sanitised"));
    assert!(refused(&[&input, "--output", &output, "--sanitised", &output]).contains("where the results go, too"));
}

#[test]
fn boundary() {
    check("boundary", "read 2682, rejected 0, late 585, results 597");
}

#[test]
fn idle() {
    check("idle", "read 1908, rejected 0, late 1, results 880");
}

#[test]
fn steady() {
    check("steady", "read 20000, rejected 0, late 13, results 2993");
}

#[test]
fn several_files_are_several_partitions() {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = ["steady", "boundary", "idle"]
        .iter()
        .map(|name| fs::canonicalize(format!("tests/oracle/{name}.events.jsonl.gz")).unwrap())
        .collect();
    let (one, stderr) = replay(dir.path(), "one", &["-w", "1"], &files);
    // Lateness is judged in each partition by itself.
    assert!(stderr.contains("read 24590, rejected 0, late 599"), "{stderr}");
    same(&replay(dir.path(), "three", &["-w", "3"], &files).0, &one, "three workers");
    same(&replay_as_two(dir.path(), &files), &one, "two processes");
}

#[test]
fn windows_are_what_the_flags_say() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("one.jsonl");
    let event = r#"{"user_id":"u","session_id":"s","event_type":"VIEW","page_url":"/a","timestamp":1000,"user_agent":"","ip_address":""}"#;
    fs::write(&file, format!("{event}\n\nnot an event\n")).unwrap();
    let flags = ["--size", "1s", "--slide", "250ms", "--offset=-1ms", "--bound", "0s"];
    let (results, stderr) = replay(dir.path(), "flags", &flags, &[file]);
    let ends: Vec<i64> =
        results.lines().map(|line| serde_json::from_str::<PageAnalytics>(line).unwrap().window_end).collect();
    assert_eq!(ends, [1_249, 1_499, 1_749, 1_999]);
    assert!(stderr.contains("read 2, rejected undecodable 1, late 0, results 4"), "{stderr}");
}

#[test]
fn what_cannot_be_replayed_is_said() {
    fn check(arguments: &[&str], code: i32, said: &str) {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Process::start("bad", dir.path(), [&["replay"], arguments].concat());
        process.wait_for_code(code, DEADLINE);
        assert!(process.stderr().contains(said), "{arguments:?}: {}", process.stderr());
    }
    let dir = tempfile::tempdir().unwrap();
    let torn = dir.path().join("torn.avro");
    fs::File::create(&torn).unwrap().write_all(b"Obj\x01\x02").unwrap();
    let torn = torn.display().to_string();
    check(&["no-such-file.jsonl"], 16, "no-such-file.jsonl");
    check(&[&torn], 16, "not an Avro container file");
    check(&["Cargo.toml", "--size", "5 parsecs"], 2, "--size");
    check(&["Cargo.toml", "--size", "1s", "--slide", "2s"], 2, "slide");
    check(&["Cargo.toml", "-n", "2", "-p", "2"], 2, "-p");
    check(&[], 2, "FILE");
    let input = dir.path().join("input.jsonl");
    fs::write(&input, "keep me").unwrap();
    let input = input.display().to_string();
    check(&[&input, "--output", &input], 2, "is also read");
    assert_eq!(fs::read_to_string(input).unwrap(), "keep me");
}
