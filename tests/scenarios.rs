//! The scenarios of the requirements, against a real Apache Kafka: the generator says what must come of its traffic
//! (`--truth`), the audit recomputes it from the topics, and both agree with the results to the last row.
//!
//! A schema that changes in mid-run is in `tests/schema_registry.rs`: a topic has several schemas only by a registry.

mod support;

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use clicktide_dataflows::event::PageAnalytics;
use serde_json::Value;
use support::job::{DEADLINE, Job, SIZE_MS, SLIDE_MS, all_closed_ms, body, event, stop};
use support::proxy::Network;
use support::topics::Plain;
use support::{Broker, Process, brokers, test_name};

/// Of the longest of the scenarios, which takes five minutes by itself.
const SCENARIO_DEADLINE: Duration = Duration::from_secs(600);

/// Partitions of the input.
const PARTITIONS: i32 = 3;

/// A job, the traffic for it, and what must come of that.
struct Scenario {
    /// Dropped before the job, in whose folder is what it has said.
    generator: Process,
    job: Job,
    /// None where the generator has said that there is none.
    truth: Option<PathBuf>,
    /// Whether the broker has just been started, or is stopped: then an acknowledgement may come without an offset, after a request
    /// that was repeated, and there is no truth.
    broker_of_its_own: bool,
}

impl Scenario {
    /// Starts the generator: so many events per second, for so long.
    fn begin(mut job: Job, rate: u32, duration: &str, flags: &[&str]) -> Scenario {
        // Longer than any pause here: what a partition that was idle makes of late events depends on the wall clock, and the
        // generator cannot know of it.
        job.flags.push("--set=windows.idle_timeout=15s".to_owned());
        let truth = job.dir().join("truth.jsonl");
        let mut all = vec![format!("--truth={}", truth.display())];
        all.extend(Job::window_flags());
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        let generator = job.generate_by(&job.brokers, rate, Some(duration), &all);
        Scenario { generator, job, truth: Some(truth), broker_of_its_own: false }
    }

    /// The same with a broker of the test's own.
    fn begin_with_broker(job: Job, rate: u32, duration: &str) -> Scenario {
        Scenario { broker_of_its_own: true, ..Scenario::begin(job, rate, duration, &[]) }
    }

    /// Waits until the generator has ended by itself; returns its summary. Where it may not know what came of its traffic, it has to
    /// say so, and the audit alone has the word.
    fn generated(&mut self) -> Value {
        if self.generator.wait(SCENARIO_DEADLINE).code() != Some(0) {
            let errors = self.generator.stderr();
            assert!(self.broker_of_its_own && errors.contains("there is no truth"), "{errors}");
            eprintln!("{}: {errors}", test_name());
            self.truth = None;
        }
        let summary: Value = serde_json::from_str(&self.generator.stdout()).expect("the summary");
        assert_eq!(summary["sent"], summary["acknowledged"], "{summary:#}");
        summary
    }

    /// Waits until all of it is final, stops the job, and compares.
    fn end(mut self, running: &mut [Process]) {
        let summary = self.generated();
        self.job.until_final(all_closed_ms(), running);
        stop(running, "TERM");
        self.agrees(&summary);
    }

    /// The job's results are what the audit and the generator expect, each by itself.
    fn agrees(&self, summary: &Value) {
        let audit = self.job.audit_agrees();
        let input: i64 = ["counted", "late", "rejected"].iter().map(|of| audit.number(&format!("/input/{of}"))).sum();
        assert_eq!(Some(input), summary["acknowledged"].as_i64(), "{:#}\n{summary:#}", audit.report);
        if let Some(truth) = &self.truth {
            let expected = self.job.agrees_with(truth);
            assert_eq!(audit.number("/results/expected"), expected, "{:#}", audit.report);
        }
    }
}

#[test]
fn normal_load() {
    let Some(brokers) = brokers() else { return };
    let scenario = Scenario::begin(Job::new(&brokers, PARTITIONS), 1_000, "20s", &[]);
    let mut launch = [scenario.job.launch(2, 1)];
    scenario.end(&mut launch);
}

#[test]
fn a_burst_of_five_minutes() {
    let Some(brokers) = brokers() else { return };
    let flags = ["--scenario=burst", "--set=generator.burst.start=5s"];
    let scenario = Scenario::begin(Job::new(&brokers, PARTITIONS), 1_000, "5m 10s", &flags);
    let mut launch = [scenario.job.launch(2, 1)];
    scenario.end(&mut launch);
}

/// Traffic as it really is, of one kind after another. The runs are bounded, so no partition is ever idle: some of them fall
/// silent for longer than a window.
#[test]
fn every_kind_of_traffic() {
    let Some(brokers) = brokers() else { return };
    for (kind, processes, workers) in [("messy", 1, 3), ("flash-crowd", 2, 1), ("bots", 2, 2), ("night", 1, 1)] {
        let flags = [format!("--scenario={kind}"), "--set=generator.silence.start=3s".to_owned()];
        let flags = flags.each_ref().map(String::as_str);
        let mut scenario = Scenario::begin(Job::new(&brokers, PARTITIONS), 300, "12s", &flags);
        let summary = scenario.generated();
        let job = &scenario.job;
        let mut running: Vec<Process> =
            (0..processes).map(|process| job.process(processes, process, workers, &["--until-end"])).collect();
        running.iter_mut().for_each(|process| process.wait_for_code(0, DEADLINE));
        scenario.agrees(&summary);
    }
}

#[test]
fn the_network_is_cut() {
    let Some(_) = brokers() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    // The generator takes the direct way to the broker, the job that by the network.
    let (broker, network, by_network) = Broker::start_behind_proxy(&dir.path().join("kafka"));
    let mut job = Job::new(&broker.address, PARTITIONS);
    job.job_brokers = by_network;
    let scenario = Scenario::begin_with_broker(job, 500, "20s");
    let mut launch = [scenario.job.launch(2, 1)];
    for fault in [Network::Cut, Network::Stalls] {
        scenario.job.until_more(2, &mut launch);
        network.set(fault);
        thread::sleep(Duration::from_secs(3));
        network.set(Network::Passes);
    }
    scenario.end(&mut launch);
}

#[test]
fn the_broker_is_restarted() {
    let Some(_) = brokers() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(&dir.path().join("kafka"), &[]);
    let scenario = Scenario::begin_with_broker(Job::new(&broker.address, PARTITIONS), 500, "25s");
    let mut launch = [scenario.job.launch(2, 1)];
    scenario.job.until_more(2, &mut launch);
    broker.stop();
    broker.start_again();
    scenario.job.until_more(2, &mut launch);
    broker.kill();
    broker.start_again();
    scenario.job.until_more(2, &mut launch);
    scenario.end(&mut launch);
}

#[test]
fn the_job_is_restarted() {
    let Some(brokers) = brokers() else { return };
    let scenario = Scenario::begin(Job::new(&brokers, PARTITIONS), 500, "25s", &[]);
    let job = &scenario.job;
    let mut running = job.run(1, 1);
    job.until_more(2, &mut running);
    running.iter_mut().for_each(Process::kill);
    running = job.run(2, 2);
    job.until_more(2, &mut running);
    stop(&mut running, "TERM");
    running = job.run(3, 1);
    job.until_more(2, &mut running);
    running[1].kill();
    running = job.run(1, 3);
    scenario.end(&mut running);
}

#[test]
fn window_boundaries() {
    let Some(brokers) = brokers() else { return };
    // By hand: one page, one visitor who views it, at and beside the ends of slides.
    let job = Job::new(&brokers, 1);
    let begin_ms = 1_700_000_000_000;
    let times_ms: Vec<i64> =
        (0..8).flat_map(|slide| [-1, 0, 1].map(|beside| begin_ms + slide * SLIDE_MS + beside)).collect();
    let plain = Plain::new(&brokers);
    for time_ms in &times_ms {
        plain.send(&job.events.name, 0, Some(&body(&event(0, *time_ms))));
    }
    plain.flush();

    let ends = (begin_ms..=begin_ms + 8 * SLIDE_MS + SIZE_MS).step_by(SLIDE_MS as usize);
    let rows: String = ends
        .filter_map(|end_ms| {
            let within = |time_ms: &&i64| (end_ms - SIZE_MS..end_ms).contains(*time_ms);
            let views = times_ms.iter().filter(within).count() as i64;
            (views > 0).then(|| one_visitor(end_ms, views))
        })
        .map(|row| serde_json::to_string(&row).expect("a row") + "\n")
        .collect();
    let truth = job.dir().join("truth.jsonl");
    fs::write(&truth, &rows).expect("the truth");

    job.process(1, 0, 2, &["--until-end"]).wait_for_code(0, DEADLINE);
    let audit = job.audit_agrees();
    assert_eq!(audit.number("/results/expected"), job.agrees_with(&truth), "{:#}", audit.report);
    assert_eq!(rows.lines().count() as i64, audit.number("/results/expected"), "{rows}");
}

/// The result of a window with so many views by one visitor.
fn one_visitor(window_end: i64, view_count: i64) -> PageAnalytics {
    PageAnalytics {
        page_url: "/page/0".to_owned(),
        window_start: window_end - SIZE_MS,
        window_end,
        view_count,
        unique_users: 1,
        click_count: 0,
        conversion_count: 0,
        engagement_rate: 0.0,
        bounce_rate: if view_count == 1 { 1.0 } else { 0.0 },
        avg_session_duration: 0.0,
    }
}
