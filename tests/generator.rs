//! The generator's scenarios: what the dataflow makes of them is the truth that comes with them, from files at any number of
//! workers, and through Kafka.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clicktide::audit::Comparison;
use clicktide::generator::Scenario;
use clicktide_dataflows::event::PageAnalytics;
use serde_json::Value;
use support::job::{DEADLINE, Job};
use support::topics::{Plain, Topic};
use support::{Process, brokers};

const REPLAYED: Duration = Duration::from_secs(300);

fn summary(process: &mut Process, code: i32) -> Value {
    process.wait_for_code(code, REPLAYED);
    let stdout = process.stdout();
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{}", process.stderr()))
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {pointer} in {value:#}"))
}

/// Generates files, one for each partition, and their truth; returns what is said of it.
fn generate(dir: &Path, name: &str, files: &[PathBuf], truth: &Path, flags: &[&str]) -> Value {
    let mut arguments: Vec<String> =
        ["generate", "--json", "--start=2026-01-31T12:00:00Z", "--duration=13m"].map(str::to_owned).into();
    arguments.extend(files.iter().map(|file| format!("--output={}", file.display())));
    arguments.push(format!("--truth={}", truth.display()));
    arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
    summary(&mut Process::start(name, dir, arguments), 0)
}

fn replay(dir: &Path, workers: usize, files: &[PathBuf]) -> (String, Value) {
    let output = dir.join(format!("results-{workers}.jsonl"));
    let mut arguments: Vec<String> = ["replay", "--json"].map(str::to_owned).into();
    arguments.push(format!("--output={}", output.display()));
    arguments.push(format!("-w={workers}"));
    arguments.extend(files.iter().map(|file| file.display().to_string()));
    let counts = summary(&mut Process::start(&format!("replay-{workers}"), dir, arguments), 0);
    (fs::read_to_string(output).unwrap(), counts)
}

fn results(text: &str) -> impl Iterator<Item = PageAnalytics> {
    text.lines().map(|line| serde_json::from_str(line).unwrap())
}

/// Every result of the truth is there once, with its values, and no other; in the same order.
fn is_the_truth(actual: &str, truth: &str) {
    let mut comparison = Comparison::new(i64::MIN..=i64::MAX, 3);
    results(actual).for_each(|result| comparison.actual(result));
    results(truth).for_each(|result| comparison.expected(&result));
    let report = comparison.finish();
    assert!(report.agrees(), "{report:#?}");
    let order = |text: &str| results(text).map(|result| (result.window_end, result.page_url)).collect::<Vec<_>>();
    assert!(order(actual) == order(truth), "the order is another");
}

/// Thirteen minutes of a scenario in three partitions.
fn check(scenario: Scenario, flags: &[&str], expected: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = (0..3).map(|number| dir.path().join(format!("{number}.jsonl"))).collect();
    let truth = dir.path().join("truth.jsonl");
    let flags = [&["--rate=60", "--pages=12", "--scenario", scenario.name()], flags].concat();
    let generated = generate(dir.path(), "generate", &files, &truth, &flags);
    for kind in expected {
        assert!(number(&generated, &format!("/injected/{kind}")) > 0, "{kind}: {generated:#}");
    }
    let (sent, counted) = (number(&generated, "/sent"), number(&generated, "/truth/counted"));
    let (late, rejected) = (number(&generated, "/truth/late"), number(&generated, "/truth/rejected"));
    assert_eq!((number(&generated, "/acknowledged"), counted + late + rejected), (sent, sent), "{generated:#}");

    let truth = fs::read_to_string(truth).unwrap();
    let (one, counts) = replay(dir.path(), 1, &files);
    is_the_truth(&one, &truth);
    assert_eq!(number(&counts, "/read"), sent);
    assert_eq!(number(&counts, "/late"), late);
    assert_eq!(number(&counts, "/results"), number(&generated, "/truth/results"));
    let reasons = counts["rejected"].as_object().unwrap();
    assert_eq!(reasons.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), rejected);
    // As many as were put in, reason by reason.
    let injected = |kind: &str| number(&generated, &format!("/injected/{kind}"));
    for (reason, count) in reasons {
        let put_in = match reason.as_str() {
            "undecodable" => ["truncated", "garbage", "empty", "other_schema"].into_iter().map(injected).sum(),
            reason => injected(reason),
        };
        assert_eq!(count.as_u64(), Some(put_in), "{reason}: {generated:#}");
    }
    for workers in [2, 3] {
        let (more, counts) = replay(dir.path(), workers, &files);
        assert!(more == one, "{workers} workers differ from one");
        assert_eq!(number(&counts, "/late"), late);
    }
}

#[test]
fn normal() {
    check(Scenario::Normal, &[], &[]);
}

#[test]
fn burst() {
    check(Scenario::Burst, &["--set=generator.burst.events_per_second=150"], &[]);
}

#[test]
fn messy() {
    // Every reason and every kind is there, and more comes too late than the default windows would show.
    let flags = [
        "--set=generator.invalid.share=0.02",
        "--set=generator.malformed.truncated=0.01",
        "--set=generator.mobile.upload_min=5m",
    ];
    let expected = [
        "delayed",
        "uploaded",
        "duplicate",
        "truncated",
        "garbage",
        "empty",
        "other_schema",
        "skewed",
        "silenced",
        "empty_user_id",
        "too_long_user_id",
        "empty_session_id",
        "too_long_session_id",
        "empty_page_url",
        "too_long_page_url",
        "invalid_page_url",
        "invalid_timestamp",
        "future_timestamp",
        "invalid_session_duration",
    ];
    check(Scenario::Messy, &flags, &expected);
}

#[test]
fn flash_crowd() {
    check(Scenario::FlashCrowd, &["--set=generator.burst.events_per_second=120"], &["hot_page"]);
}

#[test]
fn bots() {
    check(Scenario::Bots, &[], &["bot"]);
}

#[test]
fn night() {
    check(Scenario::Night, &[], &["bot", "silenced"]);
}

#[test]
fn the_same_start_gives_the_same_files() {
    let dir = tempfile::tempdir().unwrap();
    let files = |name: &str| (0..2).map(|number| dir.path().join(format!("{name}-{number}.jsonl"))).collect::<Vec<_>>();
    let make = |name: &str, flags: &[&str]| {
        let flags = [&["--rate=20", "--scenario=messy"], flags].concat();
        let truth = dir.path().join(format!("{name}.truth"));
        generate(dir.path(), name, &files(name), &truth, &flags);
        let read = |file: PathBuf| fs::read(file).unwrap();
        (files(name).into_iter().map(read).collect::<Vec<_>>(), read(truth))
    };
    let one = make("one", &[]);
    assert!(one == make("again", &[]), "not the same again");
    assert!(one != make("other", &["--seed=2"]), "another seed gives the same");
}

#[test]
fn what_cannot_be_generated_is_said() {
    let check = |arguments: &[&str], code: i32, said: &str| {
        let dir = tempfile::tempdir().unwrap();
        let mut process = Process::start("bad", dir.path(), [&["generate"], arguments].concat());
        process.wait_for_code(code, REPLAYED);
        assert!(process.stderr().contains(said), "{arguments:?}: {}", process.stderr());
    };
    check(&["--scenario=calm"], 2, "messy");
    check(&["--output=events.jsonl"], 2, "--output needs an end");
    check(&["--output=/no/such/folder/events.jsonl", "--duration=1s"], 1, "can't write /no/such/folder/events.jsonl");
    check(&["--start=2026-01-31T12:00:00Z"], 2, "--output");
    check(&["--output=events.jsonl", "--start=yesterday"], 2, "a time such as");
    check(
        &["--set=generator.mobile.upload_max=1s", "--scenario=messy"],
        2,
        "generator.mobile.upload_max = 1s (flag --set): must be between 1m and 7days",
    );
}

/// What the audit says of the results, compared with a truth.
fn audit(job: &Job, truth: &Path) -> (Option<i32>, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clicktide"));
    command.args(["audit", "--json", "--truth"]).arg(truth).args(job.job_flags(&job.brokers));
    let output = command.output().expect("the audit runs");
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code(), serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{errors}")))
}

/// Flags of a messy run of some seconds, and of its truth.
fn messy_flags(truth: &Path) -> Vec<String> {
    let mut flags: Vec<String> = [
        "--scenario=messy",
        "--set=generator.delays.median=300ms",
        "--set=generator.mobile.upload_min=1s",
        "--set=generator.mobile.upload_max=7s",
        "--set=generator.duplicates.delay_max=2s",
        "--set=generator.silence.start=2s",
        "--set=generator.silence.duration=2s",
        "--set=generator.silence.repeat=4s",
        "--set=generator.clock_skew.max=3s",
        "--size=5s",
        "--slide=1s",
        "--bound=500ms",
    ]
    .map(str::to_owned)
    .into();
    flags.push(format!("--truth={}", truth.display()));
    flags
}

#[test]
fn a_messy_job_publishes_the_truth() {
    let Some(brokers) = brokers() else { return };
    // The log's own time, and the producer's.
    for timestamps in ["LogAppendTime", "CreateTime"] {
        let mut job = Job::new(&brokers, 3);
        job.events = Topic::create(&brokers, "events", 3, &[("message.timestamp.type", timestamps)]);
        job.flags.push("--set=windows.idle_timeout=off".to_owned());
        let truth = job.dir().join("truth.jsonl");
        let flags = messy_flags(&truth);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let generated = summary(&mut job.generate_by(&brokers, 300, Some("12s"), &flags), 0);
        let mut process = job.process(1, 0, 2, &["--until-end"]);
        process.wait_for_code(0, DEADLINE);

        let (code, report) = audit(&job, &truth);
        assert_eq!(code, Some(0), "{timestamps}: {report:#}");
        let expected = number(&generated, "/truth/results");
        assert!(expected > 50 && report["input"].is_null(), "{report:#}");
        assert_eq!(number(&report, "/results/expected"), expected);
        let recomputed = job.audit_agrees();
        for count in ["counted", "late", "rejected", "results"] {
            let told = number(&generated, &format!("/truth/{count}")) as i64;
            assert_eq!(recomputed.number(&format!("/input/{count}")), told, "{timestamps}: {count}: {generated:#}");
        }
        assert!(number(&generated, "/truth/late") > 0 && number(&generated, "/truth/rejected") > 0, "{generated:#}");

        // Another truth is not what the job has published.
        let text = fs::read_to_string(&truth).unwrap();
        let (first, rest) = text.split_once('\n').unwrap();
        fs::write(&truth, rest.replacen("\"view_count\":", "\"view_count\":1", 1)).unwrap();
        let (code, report) = audit(&job, &truth);
        assert_eq!(code, Some(20), "{report:#}");
        assert_eq!((number(&report, "/results/unexpected/count"), number(&report, "/results/different/count")), (1, 1));
        fs::write(&truth, format!("{first}\nnonsense\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_clicktide"));
        command.args(["audit", "--truth"]).arg(&truth).args(job.job_flags(&brokers));
        let errors = String::from_utf8_lossy(&command.output().unwrap().stderr).into_owned();
        assert!(errors.contains("truth.jsonl:2: no result"), "{errors}");
    }
}

#[test]
fn there_is_no_truth_of_what_others_write() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 1);
    let truth = job.dir().join("truth.jsonl");
    let flag = format!("--truth={}", truth.display());
    let mut generator = job.generate_by(&brokers, 100, Some("6s"), &[&flag]);
    generator.until("it has begun", DEADLINE, |_| truth.with_extension("jsonl.partial").exists().then_some(()));
    let plain = Plain::new(&brokers);
    plain.send(&job.events.name, 0, Some(b"not the generator's"));
    plain.flush();
    generator.wait_for_code(1, DEADLINE);
    assert!(generator.stderr().contains("partition 0 has records of others"), "{}", generator.stderr());
    assert!(!truth.exists());
}
