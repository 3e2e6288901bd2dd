//! Copies of events count once, and pages beyond the limit count together: over files in every shape, and on a real Kafka across
//! kills and restarts, with the audit's word on what came of it.

mod support;

use std::fs;
use std::path::{Path, PathBuf};

use clicktide::event::ClickEvent;
use clicktide::history::OTHER_PAGES;
use clicktide_dataflows::event::PageAnalytics;
use rand::prelude::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use support::job::{BOUND_MS, DEADLINE, Job, SIZE_MS, SLIDE_MS, body, event, now_ms, stop};
use support::topics::Plain;
use support::{Process, brokers, free_ports};

/// Three partitions of events within the bound, without copies and with: of one in three, at once or after a while, some of
/// them so much later that they are late.
fn files(dir: &Path) -> (Vec<PathBuf>, Vec<PathBuf>, u64) {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let (mut once, mut copied, mut copies) = (Vec::new(), Vec::new(), 0);
    for partition in 0..3 {
        let mut lines: Vec<String> = Vec::new();
        let mut with_copies: Vec<String> = Vec::new();
        for number in 0..2_000 {
            let time_ms = 1_000_000 + number * 20 - random.random_range(0..BOUND_MS);
            let event = ClickEvent { product_id: Some(format!("{partition}-{number}")), ..event(number, time_ms) };
            lines.push(serde_json::to_string(&event).expect("JSON"));
            with_copies.push(lines.last().expect("a line").clone());
            if random.random_ratio(1, 3) {
                let back = *[1, 10, 100, 1_000].choose(&mut random).expect("some");
                with_copies.push(lines[lines.len().saturating_sub(back)].clone());
                copies += 1;
            }
        }
        for (name, lines, paths) in [("once", &lines, &mut once), ("copied", &with_copies, &mut copied)] {
            let path = dir.join(format!("{name}-{partition}.jsonl"));
            fs::write(&path, lines.join("\n")).expect("a file");
            paths.push(path);
        }
    }
    (once, copied, copies)
}

/// Replays with these flags; returns the results and the summary.
fn replay(dir: &Path, name: &str, flags: &[&str], files: &[PathBuf]) -> (String, serde_json::Value) {
    let output = dir.join(format!("{name}.jsonl"));
    let mut arguments: Vec<String> = ["replay", "--json", "--output"].map(str::to_owned).into();
    arguments.push(output.display().to_string());
    arguments
        .extend([("size", SIZE_MS), ("slide", SLIDE_MS), ("bound", BOUND_MS)].map(|(of, ms)| format!("--{of}={ms}ms")));
    arguments.extend(flags.iter().map(|flag| (*flag).to_owned()));
    arguments.extend(files.iter().map(|file| file.display().to_string()));
    let mut process = Process::start(name, dir, arguments);
    process.wait_for_code(0, DEADLINE);
    let summary = process.stdout().lines().find_map(|line| serde_json::from_str(line).ok());
    (fs::read_to_string(output).unwrap_or_default(), summary.unwrap_or_default())
}

#[test]
fn results_are_those_without_the_copies_in_every_shape() {
    let dir = tempfile::tempdir().expect("a folder");
    let (once, copied, copies) = files(dir.path());
    let (expected, _) = replay(dir.path(), "expected", &["-w", "1"], &once);
    let (with_copies, _) = replay(dir.path(), "off", &["-w", "1"], &copied);
    assert_ne!(with_copies, expected, "copies count unless they are not to");
    // As long as a window is enough: what comes later is late.
    for (name, horizon) in [("as-long-as-a-window", SIZE_MS), ("longer", 60_000)] {
        let horizon = format!("--set=deduplication.horizon={horizon}ms");
        for workers in ["1", "2", "3"] {
            let (results, summary) = replay(dir.path(), name, &["-w", workers, &horizon], &copied);
            assert!(results == expected, "{name} at {workers} workers");
            let (duplicates, late) = (summary["duplicates"].as_u64(), summary["late"].as_u64());
            assert_eq!(
                duplicates.zip(late).map(|(duplicates, late)| duplicates + late),
                Some(copies),
                "{name}: {summary}"
            );
            assert_eq!(late > Some(0), name == "as-long-as-a-window", "{name}: {summary}");
        }
    }
    let horizon = "--set=deduplication.horizon=60s";
    let hosts = dir.path().join("hosts.txt");
    let ports = free_ports(2);
    fs::write(&hosts, format!("127.0.0.1:{}\n127.0.0.1:{}\n", ports[0], ports[1])).expect("a file");
    let hosts = hosts.display().to_string();
    std::thread::scope(|scope| {
        let run = |process: &'static str| {
            let flags = ["-n", "2", "-w", "1", "-p", process, "-h", &hosts, horizon];
            replay(dir.path(), &format!("two-{process}"), &flags, &copied)
        };
        let other = scope.spawn(move || run("1"));
        assert!(run("0").0 == expected, "as two processes");
        other.join().expect("it ends");
    });
    assert!(copies > 1_500, "{copies}");
}

#[test]
fn pages_beyond_the_limit_count_together_in_every_shape() {
    let dir = tempfile::tempdir().expect("a folder");
    let (once, ..) = files(dir.path());
    let parse = |text: &str| -> Vec<PageAnalytics> {
        text.lines().map(|line| serde_json::from_str(line).expect("a result")).collect()
    };
    let limited = |workers| replay(dir.path(), "limited", &["-w", workers, "--set=privacy.pages_max=2"], &once).0;
    let (all, one) = (replay(dir.path(), "all", &["-w", "1"], &once).0, limited("1"));
    assert!(limited("2") == one && limited("3") == one);
    let (all, limited) = (parse(&all), parse(&one));
    let mut others = 0;
    for end in all.iter().map(|result| result.window_end).collect::<std::collections::BTreeSet<_>>() {
        let of = |results: &[PageAnalytics]| -> Vec<PageAnalytics> {
            results.iter().filter(|result| result.window_end == end).cloned().collect()
        };
        let (all, limited) = (of(&all), of(&limited));
        // No event is lost, and no page has more than it has.
        let views = |results: &[PageAnalytics]| results.iter().map(|result| result.view_count).sum::<i64>();
        assert_eq!(views(&all), views(&limited), "{end}");
        for result in limited.iter().filter(|result| result.page_url != OTHER_PAGES) {
            let whole = all.iter().find(|whole| whole.page_url == result.page_url).expect("such a page");
            assert!(result.view_count <= whole.view_count && result.unique_users <= whole.unique_users, "{end}");
        }
        if limited.iter().any(|result| result.page_url == OTHER_PAGES) {
            others += 1;
        } else {
            assert_eq!(all, limited, "{end}: all pages were told apart");
        }
    }
    assert!(others > 10, "{others}");
}

/// Events of every partition, one every 250 ms, sent once or again, always with the same bytes.
struct Traffic {
    plain: Plain,
    start_ms: i64,
}

impl Traffic {
    fn at(&self, second: i64) -> i64 {
        self.start_ms + second * 1_000
    }

    /// Sends the events of these seconds; returns how many.
    fn send(&self, job: &Job, seconds: std::ops::Range<i64>) -> i64 {
        let times_ms = || (self.at(seconds.start)..self.at(seconds.end)).step_by(250);
        for time_ms in times_ms() {
            for partition in 0..PARTITIONS {
                let event = event(time_ms / 250 + i64::from(partition) * 5, time_ms - time_ms / 250 % 3 * 40);
                self.plain.send(&job.events.name, partition, Some(&body(&event)));
            }
        }
        self.plain.flush();
        times_ms().count() as i64 * i64::from(PARTITIONS)
    }
}

const PARTITIONS: i32 = 3;

/// Copies of what was committed before a kill come after it, and after another.
fn copies_across_kills(flags: &[&str], expect_restored: bool) {
    let Some(brokers) = brokers() else { return };
    let mut job = Job::new(&brokers, PARTITIONS);
    job.flags.extend(flags.iter().map(|flag| (*flag).to_owned()));
    // Without idleness, which follows the wall clock, it is known what is late: nothing.
    job.flags.extend(["--set=deduplication.horizon=40s", "--set=windows.idle_timeout=off"].map(str::to_owned));
    let start_ms = Job::windows().tick_at_or_before(now_ms() - 3_600_000).0;
    let traffic = Traffic { plain: Plain::new(&brokers), start_ms };
    let (mut events, mut copies) = (traffic.send(&job, 0..20), traffic.send(&job, 18..20));
    let mut processes = job.run(2, 1);
    job.until_final(traffic.at(18), &mut processes);
    events += traffic.send(&job, 20..30);
    copies += traffic.send(&job, 12..30);
    job.until_final(traffic.at(28), &mut processes);
    processes.iter_mut().for_each(Process::kill);

    copies += traffic.send(&job, 5..28);
    events += traffic.send(&job, 30..36);
    job.move_to("again-");
    let mut processes = job.run(1, 3);
    job.until_final(traffic.at(34), &mut processes);
    processes[0].kill();
    assert!(!expect_restored || processes[0].stderr().contains("restoring"), "{}", processes[0].stderr());

    copies += traffic.send(&job, 10..36);
    events += traffic.send(&job, 36..45);
    job.move_to("at-last-");
    let mut processes = job.run(2, 2);
    job.until_final(traffic.at(43), &mut processes);
    stop(&mut processes, "TERM");
    let audit = job.audit_agrees();
    assert_eq!(audit.number("/input/duplicates"), copies, "{:#}", audit.report);
    assert_eq!(audit.number("/input/counted"), events, "{:#}", audit.report);
    // Where the past was needed, it was among what was committed.
    let progress = job.committed().progress.expect("progress");
    assert!(
        progress.input.iter().all(|cut| cut.history_from.is_some_and(|from| from < cut.replay_from)),
        "{progress:?}"
    );
}

#[test]
fn copies_count_once_across_kills_with_checkpoints() {
    copies_across_kills(&[], true);
}

#[test]
fn copies_count_once_across_kills_without_checkpoints_and_with_few_pages() {
    copies_across_kills(&["--set=checkpoints.store=off", "--set=privacy.pages_max=2"], false);
}
