//! Checkpoints and savepoints of real processes on a real Apache Kafka: taken over by other jobs, damaged, not there, and of no
//! use; with the audit's word on what came of it.
//!
//! Nothing here depends on how fast anything is: waits are for conditions, with generous deadlines.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clicktide::avro::decode_page_analytics;
use clicktide::checkpoint::{Manifest, names};
use clicktide::event::ClickEvent;
use clicktide_dataflows::event::PageAnalytics;
use clicktide_dataflows::time::Windows;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use support::expected::results_of;
use support::job::{Audit, BOUND_MS, DEADLINE, Job, SIZE_MS, SLIDE_MS, all_closed_ms, body, event, now_ms, stop};
use support::topics::{Plain, Topic, Transactions};
use support::{Process, brokers, free_port};

const KAFKA: i32 = 10;
const REFUSED: i32 = 12;
const PEER_LOST: i32 = 13;
const CHECKPOINTS: i32 = 19;

const PARTITIONS: i32 = 3;

/// What a job keeps in its store.
fn kept(job: &Job) -> PathBuf {
    job.dir().join("checkpoints").join(&job.name)
}

/// The files below a directory, by name.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

/// The manifests of a job's checkpoints, the newest last.
fn manifests(job: &Job) -> Vec<PathBuf> {
    let of = |path: &Path| names::checkpoint_of(&format!("{}{}", names::CHECKPOINTS, named(path)));
    let mut manifests = files(&kept(job).join("checkpoints"));
    manifests.retain(|path| of(path).is_some());
    manifests.sort_by_key(|path| of(path).map(|(through, generation)| (generation, through)));
    manifests
}

fn named(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

/// Waits until this many more checkpoints are taken than now, as process 0 tells.
fn until_checkpoints(process: &mut Process, more: usize) {
    let taken = |process: &Process| process.stderr().matches("a checkpoint is taken").count();
    let before = taken(process);
    process.until("checkpoints", DEADLINE, |process| (taken(process) >= before + more).then_some(()));
}

/// Waits until there is a checkpoint through this window end or a later one, as process 0 tells.
fn until_checkpoint(process: &mut Process, through_ms: i64) {
    process.until("a checkpoint", DEADLINE, |process| {
        let stderr = process.stderr();
        let taken = stderr.lines().filter(|line| line.contains("a checkpoint is taken"));
        let through = |line: &str| serde_json::from_str::<serde_json::Value>(line).ok()?["through_ms"].as_i64();
        taken.filter_map(through).any(|through| through >= through_ms).then_some(())
    });
}

/// `clicktide checkpoint …`: its exit code and what it says.
fn checkpoint(job: &Job, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_clicktide"));
    command.arg("checkpoint").args(arguments).args(["--name", &job.name]);
    command.arg(format!("--set=checkpoints.store={}", job.dir().join("checkpoints").display()));
    let output = command.output().expect("it runs");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code(), text)
}

/// A job of another name, with topics of its own, over the events of `old`, that begins with a savepoint of it.
fn successor(old: &Job, savepoint: &str) -> (Job, String) {
    let mut job = Job::new(&old.brokers, 1);
    job.events = Topic { brokers: old.brokers.clone(), name: old.events.name.clone() };
    job.flags.push(format!("--set=checkpoints.store={}", old.dir().join("checkpoints").display()));
    (job, format!("--from-savepoint={}/{savepoint}", old.name))
}

/// All results of a job, in order of window and page.
fn results(job: &Job) -> Vec<PageAnalytics> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &job.brokers)
        .set("group.id", &job.name)
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let mut from = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        from.add_partition_offset(&job.results.name, partition, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&from).expect("it is assigned");
    let mut results = Vec::new();
    let mut ends = 0;
    while ends < PARTITIONS {
        match consumer.poll(DEADLINE).expect("a message or the end") {
            Ok(message) => {
                results.push(decode_page_analytics(message.payload().unwrap_or_default()).expect("a result"))
            }
            Err(_) => ends += 1,
        }
    }
    results.sort_by(|a, b| (a.window_end, &a.page_url).cmp(&(b.window_end, &b.page_url)));
    results
}

/// Events of all partitions in turn, one every 250 ms in each, none late for a bound of 100 ms or more; and a bad record now
/// and then. Kept, to compute from.
struct Traffic {
    plain: Plain,
    start_ms: i64,
    events: Vec<Vec<ClickEvent>>,
}

impl Traffic {
    /// From an hour ago.
    fn new(brokers: &str) -> Traffic {
        let start_ms = Windows::new(60_000, 60_000, 0).expect("minutes").tick_at_or_before(now_ms() - 3_600_000).0;
        Traffic { plain: Plain::new(brokers), start_ms, events: vec![Vec::new(); PARTITIONS as usize] }
    }

    /// The time of a second of it.
    fn at(&self, second: i64) -> i64 {
        self.start_ms + second * 1_000
    }

    fn produce(&mut self, job: &Job, seconds: std::ops::Range<i64>) {
        for time_ms in (self.at(seconds.start)..self.at(seconds.end)).step_by(250) {
            for (partition, events) in (0..).zip(&mut self.events) {
                let number = time_ms / 250 + i64::from(partition) * 5;
                let event = event(number, time_ms - number % 3 * 40);
                self.plain.send(&job.events.name, partition, Some(&body(&event)));
                if number % 7 == 0 {
                    self.plain.send(&job.events.name, partition, Some(b"bad"));
                }
                events.push(event);
            }
        }
        self.plain.flush();
    }

    /// The results of all windows that end within a range, computed from the first event on.
    fn results(&self, windows: Windows, bound_ms: i64, ends: std::ops::RangeInclusive<i64>) -> Vec<PageAnalytics> {
        let (mut results, totals) = results_of(&self.events, windows, bound_ms, *ends.end());
        assert_eq!(totals.late, 0);
        results.retain(|result| ends.contains(&result.window_end));
        results
    }
}

/// An audit that agrees and has something to compare, also where windows end at other moments than those of most jobs.
fn agrees(job: &Job) -> Audit {
    let audit = job.audit();
    assert_eq!(audit.code, Some(0), "{}: {:#}", job.name, audit.report);
    assert!(audit.number("/results/expected") > 0, "{:#}", audit.report);
    audit
}

/// A line of the log at level warn that holds this.
fn warned(processes: &[Process], what: &str) -> bool {
    processes.iter().any(|process| process.stderr().lines().any(|line| line.contains("WARN") && line.contains(what)))
}

#[test]
fn another_job_goes_on_from_a_savepoint() {
    let Some(brokers) = brokers() else { return };
    let old = Job::new(&brokers, PARTITIONS);
    let port = free_port();
    let (address, url) = (format!("--set=http.listen=127.0.0.1:{port}"), format!("http://127.0.0.1:{port}"));
    let mut generator = old.generate(200, Some("16s"));
    let mut before = vec![old.process(2, 0, 2, &[&address]), old.process(2, 1, 2, &[])];
    old.until_more(5, &mut before);

    let (code, answer) = checkpoint(&old, &["savepoint", "mine", "--http", &url]);
    assert_eq!(code, Some(0), "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("an answer");
    let through = answer["through_ms"].as_i64().expect("a window end");
    assert!(answer["events"].as_i64() > Some(0), "{answer}");
    let (code, answer) = checkpoint(&old, &["savepoint", "mine", "--http", &url]);
    assert!(code == Some(1) && answer.contains("no savepoint: savepoints/mine is there already"), "{code:?} {answer}");
    let (code, listed) = checkpoint(&old, &["verify", "mine"]);
    assert_eq!(code, Some(0), "{listed}");

    // Both go on; the new one in another shape, and with a checkpoint of its own.
    let (mut new, from) = successor(&old, "mine");
    // Killed before it has a checkpoint of its own, it goes on from the savepoint once more.
    let mut after = vec![new.process(1, 0, 2, &[&from, "--set=checkpoints.interval=1h"])];
    new.until_more(1, &mut after);
    after[0].kill();
    new.move_to("next-");
    let mut after: Vec<Process> = (0..3).map(|process| new.process(3, process, 1, &[&from])).collect();
    assert_eq!(new.until_more(2, &mut after).began_after, Some(through));
    let stderr = after[0].stderr();
    assert!(stderr.lines().any(|line| line.contains("restoring") && line.contains("savepoints/mine")), "{stderr}");
    until_checkpoints(&mut after[0], 2);
    after[1].kill();
    after[0].wait_for_code(PEER_LOST, DEADLINE);
    after[2].wait_for_code(PEER_LOST, DEADLINE);
    old.until_more(1, &mut before);
    stop(&mut before, "TERM");
    let (code, deleted) = checkpoint(&old, &["delete", "mine"]);
    assert_eq!(code, Some(0), "{deleted}");
    fs::remove_dir_all(kept(&old)).expect("the old job's checkpoints are deleted");

    new.move_to("again-");
    let mut after: Vec<Process> = (0..2).map(|process| new.process(2, process, 1, &[&from])).collect();
    new.until_more(1, &mut after);
    assert!(after[0].stderr().contains("restoring"), "it has checkpoints of its own");
    generator.wait_for_code(0, DEADLINE);
    new.until_final(all_closed_ms(), &mut after);
    stop(&mut after, "TERM");
    old.audit_agrees();
    let audit = new.audit_agrees();
    assert_eq!(audit.number("/compared_from"), through + 1);
    assert_eq!(results(&new)[0].window_end, through + SLIDE_MS);
}

#[test]
fn a_job_with_another_configuration_takes_over() {
    let Some(brokers) = brokers() else { return };
    let mut old = Job::new(&brokers, PARTITIONS);
    old.flags.extend(["--set=dead_letters.late=true", "--set=deduplication.horizon=7s"].map(str::to_owned));
    let mut traffic = Traffic::new(&brokers);
    let port = free_port();
    let (address, url) = (format!("--set=http.listen=127.0.0.1:{port}"), format!("http://127.0.0.1:{port}"));
    traffic.produce(&old, 0..20);
    let mut before = vec![old.process(1, 0, 2, &[&address])];
    old.until_final(traffic.at(18), &mut before);
    let (code, answer) = checkpoint(&old, &["savepoint", "mine", "--http", &url]);
    assert_eq!(code, Some(0), "{answer}");
    let answer: serde_json::Value = serde_json::from_str(&answer).expect("an answer");
    let through = answer["through_ms"].as_i64().expect("a window end");
    traffic.produce(&old, 20..40);
    old.until_final(traffic.at(38), &mut before);
    stop(&mut before, "TERM");
    old.audit_agrees();

    let check = |changes: &[&str], size_ms: i64, slide_ms: i64, offset_ms: i64, bound_ms: i64| {
        let (mut new, from) = successor(&old, "mine");
        new.flags.push("--set=dead_letters.late=true".to_owned());
        new.flags.extend(changes.iter().map(|change| format!("--set={change}")));
        let windows = Windows::new(size_ms, slide_ms, offset_ms).expect("windows");
        let mut processes = vec![new.process(1, 0, 2, &[&from])];
        let progress = new.until_final(traffic.at(34), &mut processes);
        assert!(!processes[0].stderr().contains("restoring"), "{changes:?}: its events are read from Kafka");
        // Killed, and on from there: the same as without.
        processes[0].kill();
        new.move_to("again-");
        let mut processes = vec![new.process(1, 0, 3, &[&from])];
        new.until_final(traffic.at(36), &mut processes);
        stop(&mut processes, "TERM");

        let first = windows.next(windows.tick_at_or_before(through + (size_ms - SIZE_MS).max(0))).0;
        assert_eq!(progress.began_after, Some(first - slide_ms), "{changes:?}");
        let audit = agrees(&new);
        let (actual, last) = (results(&new), audit.number("/committed_through"));
        // The audit knows from where the job has read. This does not.
        let expected = traffic.results(windows, bound_ms, first..=last);
        assert_eq!(actual[0].window_end, first, "{changes:?}");
        assert_eq!(actual.len(), expected.len(), "{changes:?}");
        for (actual, expected) in actual.iter().zip(&expected) {
            assert_eq!(actual, expected, "{changes:?}");
        }
    };
    check(&["windows.size=8s"], 8_000, SLIDE_MS, 0, BOUND_MS);
    check(&["windows.size=3s", "windows.slide=700ms", "windows.offset=-90ms"], 3_000, 700, -90, BOUND_MS);
    check(&["windows.disorder_bound=2500ms"], SIZE_MS, SLIDE_MS, 0, 2_500);
    check(&["windows.disorder_bound=100ms", "windows.size=6500ms"], 6_500, SLIDE_MS, 0, 100);
    check(&["privacy.hash_key=another one"], SIZE_MS, SLIDE_MS, 0, BOUND_MS);
    check(&["deduplication.horizon=20s"], SIZE_MS, SLIDE_MS, 0, BOUND_MS);
}

#[test]
fn damaged_ones_are_passed_over() {
    let Some(brokers) = brokers() else { return };
    let mut job = Job::new(&brokers, PARTITIONS);
    let mut traffic = Traffic::new(&brokers);
    let mut second = 10;
    traffic.produce(&job, 0..second);
    let mut processes = job.run(1, 2);
    job.until_final(traffic.at(second - 2), &mut processes);
    until_checkpoint(&mut processes[0], traffic.at(second - 2));
    traffic.produce(&job, second..second + 5);
    second += 5;
    job.until_final(traffic.at(second - 2), &mut processes);
    stop(&mut processes, "TERM");
    assert!(manifests(&job).len() >= 2);

    type Damage = fn(&Job, &[PathBuf]) -> Vec<String>;
    let damages: [(&str, Damage, bool); 7] = [
        (
            "cut off",
            |_, manifests| {
                let newest = manifests.last().expect("a checkpoint");
                let bytes = fs::read(newest).expect("a manifest");
                fs::write(newest, &bytes[..bytes.len() / 2]).expect("it is cut off");
                vec![named(newest), "it is cut off".to_owned()]
            },
            true,
        ),
        (
            "flipped",
            |job, manifests| {
                let newest = manifests.last().expect("a checkpoint");
                let object = objects_of(job, newest).pop().expect("an object");
                let mut bytes = fs::read(&object).expect("an object");
                let middle = bytes.len() / 2;
                bytes[middle] ^= 4;
                fs::write(&object, bytes).expect("it is changed");
                vec![named(newest), named(&object), "it is damaged".to_owned()]
            },
            false,
        ),
        (
            "deleted",
            |job, manifests| {
                let newest = manifests.last().expect("a checkpoint");
                let object = objects_of(job, newest).pop().expect("an object");
                fs::remove_file(&object).expect("it is deleted");
                vec![named(newest), named(&object), "is not there".to_owned()]
            },
            false,
        ),
        (
            "foreign",
            |job, _| {
                for directory in ["checkpoints", "panes", "savepoints", "generations"] {
                    fs::create_dir_all(kept(job).join(directory)).expect("a directory");
                    fs::write(kept(job).join(directory).join(".nfs what is this"), "?").expect("it is written");
                }
                fs::write(kept(job).join("checkpoints/readme.txt"), "?").expect("it is written");
                vec![]
            },
            true,
        ),
        (
            "half written",
            |job, manifests| {
                let newest = manifests.last().expect("a checkpoint");
                let bytes = fs::read(newest).expect("a manifest");
                let half = kept(job).join("checkpoints/9999999999999-9#1");
                fs::write(half, &bytes[..bytes.len() / 2]).expect("it is written");
                vec![]
            },
            true,
        ),
        (
            "of another job",
            |job, manifests| {
                let newest = manifests.last().expect("a checkpoint");
                let mut manifest = Manifest::decode(&fs::read(newest).expect("a manifest")).expect("a good one");
                manifest.job = "another".to_owned();
                fs::remove_file(newest).expect("it is removed");
                fs::write(newest, manifest.encode()).expect("it is written");
                // And one as it is, under the name of another.
                let other = kept(job).join("checkpoints").join(named(newest).replacen('1', "2", 1));
                fs::write(other, manifest.encode()).expect("it is written");
                vec![named(newest), "it is of job \\\"another\\\"".to_owned()]
            },
            true,
        ),
        (
            "all of them",
            |_, manifests| {
                for manifest in manifests {
                    fs::write(manifest, "{}").expect("it is written");
                }
                manifests.iter().map(|manifest| named(manifest)).collect()
            },
            false,
        ),
    ];
    for (round, (what, damage, restores)) in damages.into_iter().enumerate() {
        let manifests = manifests(&job);
        assert!(!manifests.is_empty(), "{what}");
        let reasons = damage(&job, &manifests);
        job.move_to(&format!("{round}-"));
        traffic.produce(&job, second..second + 5);
        second += 5;
        let mut processes = job.run(1 + round % 2, 2 - round % 2);
        job.until_final(traffic.at(second - 2), &mut processes);
        for reason in &reasons {
            assert!(warned(&processes, reason), "{what}: {reason}\n{}", processes[0].stderr());
        }
        if reasons.is_empty() {
            assert!(!warned(&processes, "a checkpoint can't be used"), "{what}: {}", processes[0].stderr());
        }
        let restored = processes[0].stderr().contains("restoring");
        assert!(restored || !restores, "{what}: an older one is used\n{}", processes[0].stderr());
        if what == "all of them" {
            assert!(!restored, "{what}: there is none");
        }
        stop(&mut processes, "TERM");
        assert!(!warned(&processes, "no checkpoint:"), "{what}: {}", processes[0].stderr());
        job.audit_agrees();
    }
    let expected = traffic.results(Job::windows(), BOUND_MS, i64::MIN..=job.audit().number("/committed_through"));
    assert_eq!(results(&job), expected);
    // What is not the job's is left alone.
    assert!(kept(&job).join("panes/.nfs what is this").exists());
}

/// The pane objects of a checkpoint.
fn objects_of(job: &Job, manifest: &Path) -> Vec<PathBuf> {
    let manifest = Manifest::decode(&fs::read(manifest).expect("a manifest")).expect("a good one");
    manifest.objects.iter().map(|object| kept(job).join(&object.name)).collect()
}

#[test]
fn retention_has_passed_the_resume_point() {
    let Some(brokers) = brokers() else { return };
    let mut job = Job::new(&brokers, PARTITIONS);
    // The audit takes a deleted event for as far ahead of its record as is allowed.
    job.flags.push("--set=validation.future=0s".to_owned());
    let transactions = Transactions::new(&brokers);
    let start_ms = Job::windows().tick_at_or_before(now_ms() - 3_600_000).0;
    let at = |second: i64| start_ms + second * 1_000;
    let events = Topic { brokers: brokers.clone(), name: job.events.name.clone() };
    let produce = |seconds: std::ops::Range<i64>| {
        transactions.commit(|| {
            for time_ms in (at(seconds.start)..at(seconds.end)).step_by(250) {
                for partition in 0..PARTITIONS {
                    let bytes = body(&event(time_ms / 250 + i64::from(partition), time_ms));
                    events.produce_at(&transactions, partition, time_ms, &bytes);
                }
            }
        });
    };
    // Each transaction is followed by its marker.
    let delete_before = |second: i64, transactions_before: i64| {
        (0..PARTITIONS).for_each(|partition| events.delete_before(partition, second * 4 + transactions_before));
    };
    let run = |job: &Job, flags: &[&str]| job.process(1, 0, 2, flags);
    let mut processes = vec![run(&job, &[])];
    for seconds in [0..15, 15..18, 18..20] {
        let end_ms = at(seconds.end - 1);
        produce(seconds);
        job.until_final(end_ms, &mut processes);
    }
    stop(&mut processes, "TERM");

    // With a checkpoint nothing is lost.
    job.move_to("checkpoint-");
    delete_before(17, 1);
    produce(20..40);
    let mut processes = vec![run(&job, &[])];
    job.until_final(at(39), &mut processes);
    let restored = "\"through_ms\":".to_owned() + &at(19).to_string();
    let stderr = processes[0].stderr();
    assert!(stderr.lines().any(|line| line.contains("restoring") && line.contains(&restored)), "{stderr}");
    stop(&mut processes, "TERM");
    let audit = job.audit_agrees();
    assert!(audit.number("/compared_from") <= at(24), "{:#}", audit.report);
    assert!(audit.number("/compared_from") > at(17), "{:#}", audit.report);

    // Without any it refuses, and says what to do.
    delete_before(38, 3);
    fs::remove_dir_all(kept(&job)).expect("its checkpoints are deleted");
    let mut refused = run(&job, &[]);
    refused.wait_for_code(REFUSED, DEADLINE);
    let stderr = refused.stderr();
    let line = stderr.lines().last().unwrap_or_default();
    for said in
        ["records of partition 0 of topic", "are gone (offsets ", " to 155, deleted by retention)", "--accept-gap"]
    {
        assert!(line.contains(said), "{said:?} is not in {line}");
    }

    // The gap is accepted once; the next start needs no leave.
    produce(40..60);
    let mut processes = vec![run(&job, &["--accept-gap"])];
    job.until_final(at(50), &mut processes);
    processes[0].kill();
    let mut processes = vec![run(&job, &[])];
    job.until_final(at(59), &mut processes);
    stop(&mut processes, "TERM");
    let audit = job.audit_agrees();
    assert!(audit.number("/compared_from") <= at(44), "{:#}", audit.report);
    assert!(audit.number("/results/expected") >= 14, "{:#}", audit.report);
}

#[test]
fn what_means_something_else_is_refused() {
    let Some(brokers) = brokers() else { return };
    let mut job = Job::new(&brokers, PARTITIONS);
    let mut traffic = Traffic::new(&brokers);
    traffic.produce(&job, 0..12);
    let mut processes = job.run(1, 2);
    job.until_final(traffic.at(10), &mut processes);
    stop(&mut processes, "TERM");
    let all = |job: &Job| -> BTreeMap<PathBuf, Vec<u8>> {
        let directories = ["checkpoints", "panes", "generations", "savepoints"].map(|name| kept(job).join(name));
        let files = directories.iter().flat_map(|directory| files(directory));
        files.map(|file| (file.clone(), fs::read(&file).expect("a file"))).collect()
    };
    let kept_before = all(&job);
    assert!(kept_before.len() >= 3, "{:?}", kept_before.keys());

    let check = |job: &Job, flags: &[&str], said: &[&str]| {
        let mut refused = job.process(1, 0, 1, flags);
        refused.wait_for_code(REFUSED, DEADLINE);
        let stderr = refused.stderr();
        let why = &stderr[stderr.rfind("clicktide: ").expect("a line that says why")..];
        for said in said {
            assert!(why.contains(said), "{said:?} is not in {why}");
        }
        assert_eq!(all(job), kept_before, "{flags:?}: the checkpoints are as they were");
    };
    for (flag, said) in [
        ("--set=windows.size=7s", "windows.size: 5s committed, 7s configured"),
        ("--set=windows.slide=500ms", "windows.slide: 1s committed, 500ms configured"),
        ("--set=windows.offset=250ms", "windows.offset: 0s committed, 250ms configured"),
        ("--set=windows.disorder_bound=1s", "windows.disorder_bound: 500ms committed, 1s configured"),
        ("--set=windows.idle_timeout=off", "windows.idle_timeout: 1s 500ms committed, off configured"),
        ("--set=privacy.page_key=no_query", "privacy.page_key: full committed, no_query configured"),
        ("--set=privacy.hash_key=another", "privacy.hash_key_fingerprint: "),
    ] {
        check(&job, &[flag], &["can't be resumed", "start a job with another name", said]);
    }
    job.audit_agrees();

    job.events.make_anew(PARTITIONS);
    traffic.produce(&job, 0..20);
    check(&job, &[], &["was made anew: its id is ", "start a job with another name"]);
    check(&job, &["--accept-gap"], &["was made anew: its id is "]);
    job.progress.delete();
    let mut without = job.process(1, 0, 1, &[]);
    // It may be there again in a moment.
    without.wait_for_code(KAFKA, DEADLINE);
    assert!(without.stderr().contains("cannot be read"), "{}", without.stderr());
    job.progress.make_anew(1);
    check(
        &job,
        &[],
        &["checkpoints of a job of this name", "holds nothing: was it deleted", "clicktide checkpoint delete"],
    );

    // A savepoint is not to be had from a job that has none; and what a job has committed is not disturbed by asking.
    job.move_to("savepoint-");
    check(&job, &["--from-savepoint=nothing"], &["savepoint \"nothing\"", "it is not there"]);
}

#[test]
fn processes_that_do_not_share_the_store_do_not_start() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, PARTITIONS);
    let other = format!("--set=checkpoints.store={}", job.dir().join("elsewhere").display());
    let mut processes = [job.process(2, 0, 1, &[]), job.process(2, 1, 1, &[&other])];
    processes[1].wait_for_code(CHECKPOINTS, DEADLINE);
    let stderr = processes[1].stderr();
    let line = stderr.lines().last().unwrap_or_default();
    for said in ["does not see probes/1-", "do not share the store", "use s3://"] {
        assert!(line.contains(said), "{said:?} is not in {stderr}");
    }
    processes[0].wait_for_code(PEER_LOST, DEADLINE);
}

#[test]
fn a_store_that_fails_holds_nobody_up() {
    let Some(brokers) = brokers() else { return };
    let mut job = Job::new(&brokers, PARTITIONS);
    let mut traffic = Traffic::new(&brokers);
    traffic.produce(&job, 0..10);
    let mut processes = job.run(2, 1);
    job.until_final(traffic.at(8), &mut processes);
    until_checkpoint(&mut processes[0], traffic.at(8));
    let panes = kept(&job).join("panes");

    // With all that is in it.
    fs::rename(&panes, kept(&job).join("panes-away")).expect("the directory is moved away");
    fs::write(&panes, "a file").expect("a file in its place");
    let failures = |process: &Process| process.stderr().matches("no checkpoint: it is tried again").count();
    for second in [15, 20] {
        traffic.produce(&job, second - 5..second);
        let before = failures(&processes[0]);
        job.until_final(traffic.at(second - 2), &mut processes);
        processes[0].until("a warning", DEADLINE, |process| (failures(process) > before).then_some(()));
    }
    assert!(warned(&processes, "no checkpoint"), "{}", processes[0].stderr());

    // What was written before is lost; so what is whole does not come before that has left the windows.
    fs::remove_file(&panes).expect("the file is removed");
    traffic.produce(&job, 20..35);
    job.until_final(traffic.at(33), &mut processes);
    traffic.produce(&job, 35..40);
    job.until_final(traffic.at(38), &mut processes);
    until_checkpoint(&mut processes[0], traffic.at(38));
    processes[1].kill();
    processes[0].wait_for_code(PEER_LOST, DEADLINE);
    let (code, verified) = checkpoint(&job, &["verify", &named(manifests(&job).last().expect("a checkpoint"))]);
    assert_eq!(code, Some(0), "{verified}");

    job.move_to("again-");
    traffic.produce(&job, 40..45);
    let mut processes = job.run(1, 3);
    job.until_final(traffic.at(43), &mut processes);
    assert!(processes[0].stderr().contains("restoring"), "{}", processes[0].stderr());
    stop(&mut processes, "TERM");
    job.audit_agrees();
}
