//! A job on a real Kafka, with topics and a name of its own, run by the program itself.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clicktide::avro::encode_event;
use clicktide::event::ClickEvent;
use clicktide::kafka::progress::{read_progress, read_progress_so_far};
use clicktide::progress::{CommittedProgress, Progress};
use clicktide_dataflows::event::EventType;
use clicktide_dataflows::time::Windows;
use serde_json::Value;
use tempfile::TempDir;

use super::topics::Topic;
use super::{Process, eventually, free_ports};

/// Generous: nothing is asserted about how long anything takes.
pub const DEADLINE: Duration = Duration::from_secs(90);

pub const SIZE_MS: i64 = 5_000;
pub const SLIDE_MS: i64 = 1_000;
pub const BOUND_MS: i64 = 500;
pub const IDLE_TIMEOUT: &str = "1500ms";

/// A way to the brokers: a listener, and what it asks for.
#[derive(Clone)]
pub struct Way {
    pub brokers: String,
    pub flags: Vec<String>,
}

impl Way {
    /// With further flags, which stand above those before.
    pub fn and(mut self, flags: impl IntoIterator<Item = String>) -> Way {
        self.flags.extend(flags);
        self
    }
}

/// A job with windows of 5 s every second.
pub struct Job {
    /// Where the generator, the audit and the test find the brokers.
    pub brokers: String,
    /// Where the job's own processes find them.
    pub job_brokers: String,
    pub name: String,
    pub events: Topic,
    pub results: Topic,
    pub dead_letters: Topic,
    pub progress: Topic,
    /// By which way the program reaches the brokers, if it is not the test's own.
    pub way: Option<Way>,
    /// Further flags of every command.
    pub flags: Vec<String>,
    dir: TempDir,
    ports: Vec<u16>,
    hosts: PathBuf,
    /// Tells the output of processes in one place from that of those in another.
    place: String,
}

impl Job {
    /// A job that has not begun, and its topics.
    pub fn new(brokers: &str, partitions: i32) -> Job {
        // In this one place, to be swapped for the program's own way to make topics.
        let topic = |prefix: &str, partitions, config: &[_]| Topic::create(brokers, prefix, partitions, config);
        let mut job = Job {
            brokers: brokers.to_owned(),
            job_brokers: brokers.to_owned(),
            name: super::unique("job"),
            events: topic("events", partitions, &[]),
            results: topic("results", 3, &[]),
            dead_letters: topic("dead-letters", 1, &[]),
            progress: topic("progress", 1, &[("cleanup.policy", "compact")]),
            way: None,
            flags: Vec::new(),
            dir: tempfile::tempdir().expect("a folder"),
            ports: Vec::new(),
            hosts: PathBuf::new(),
            place: String::new(),
        };
        job.move_to("");
        job
    }

    /// What is started from now on uses other addresses than before, and has output of its own.
    pub fn move_to(&mut self, place: &str) {
        self.ports = free_ports(3);
        let hosts: String = self.ports.iter().map(|port| format!("127.0.0.1:{port}\n")).collect();
        self.hosts = self.dir().join(format!("{place}hosts.txt"));
        std::fs::write(&self.hosts, hosts).expect("the hosts file");
        place.clone_into(&mut self.place);
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The address on which a process waits for the others.
    pub fn address(&self, process: usize) -> (&'static str, u16) {
        ("127.0.0.1", self.ports[process])
    }

    pub fn windows() -> Windows {
        Windows::new(SIZE_MS, SLIDE_MS, 0).expect("windows")
    }

    fn topic_flags(&self, brokers: &str) -> Vec<String> {
        let set = |key: &str, topic: &Topic| format!("--set=kafka.{key}_topic={}", topic.name);
        let brokers = self.way.as_ref().map_or(brokers, |way| &way.brokers);
        let mut flags = vec![
            format!("--brokers={brokers}"),
            set("events", &self.events),
            set("results", &self.results),
            set("dead_letters", &self.dead_letters),
            set("progress", &self.progress),
        ];
        flags.extend(self.way.iter().flat_map(|way| way.flags.iter().cloned()));
        flags
    }

    /// The flags that say which windows the job has.
    pub fn window_flags() -> [String; 3] {
        [format!("--size={SIZE_MS}ms"), format!("--slide={SLIDE_MS}ms"), format!("--bound={BOUND_MS}ms")]
    }

    /// The flags that `run`, `launch` and `audit` share.
    pub fn job_flags(&self, brokers: &str) -> Vec<String> {
        let mut flags = self.topic_flags(brokers);
        flags.extend(Job::window_flags());
        flags.extend([
            format!("--name={}", self.name),
            format!("--set=windows.idle_timeout={IDLE_TIMEOUT}"),
            "--set=http.listen=off".to_owned(),
            // Much more often than anybody would, so that there is one under way whenever anything happens.
            format!("--set=checkpoints.store={}", self.dir().join("checkpoints").display()),
            "--set=checkpoints.interval=1s".to_owned(),
        ]);
        flags.extend(self.flags.iter().cloned());
        flags
    }

    /// The flags of `check`: it takes no windows.
    pub fn check_flags(&self) -> Vec<String> {
        let mut flags = self.topic_flags(&self.job_brokers);
        let store = self.dir().join("checkpoints");
        flags.extend([format!("--set=job.name={}", self.name), format!("--set=checkpoints.store={}", store.display())]);
        flags.push("--set=http.listen=off".to_owned());
        flags
    }

    /// One process of the job, which waits for the others.
    pub fn process(&self, processes: usize, process: usize, workers: usize, flags: &[&str]) -> Process {
        let mut args = vec!["run".to_owned(), "-h".to_owned(), self.hosts.display().to_string()];
        for (flag, number) in [("-n", processes), ("-p", process), ("-w", workers)] {
            args.extend([flag.to_owned(), number.to_string()]);
        }
        args.extend(self.job_flags(&self.job_brokers));
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        Process::start(&format!("{}process-{process}", self.place), self.dir(), args)
    }

    /// All processes of the job.
    pub fn run(&self, processes: usize, workers: usize) -> Vec<Process> {
        (0..processes).map(|process| self.process(processes, process, workers, &[])).collect()
    }

    /// All processes of the job under their supervisor.
    pub fn launch(&self, processes: usize, workers: usize) -> Process {
        let mut args = vec!["launch".to_owned(), "--http=off".to_owned()];
        args.extend([format!("-n={processes}"), format!("-w={workers}")]);
        args.extend(self.job_flags(&self.job_brokers));
        Process::start(&format!("{}launch", self.place), self.dir(), args)
    }

    /// The generator; without a duration it goes on until it is dropped.
    pub fn generate(&self, rate: u32, duration: Option<&str>) -> Process {
        self.generate_by(&self.brokers, rate, duration, &[])
    }

    /// The generator, by another way to the brokers and with further flags.
    pub fn generate_by(&self, brokers: &str, rate: u32, duration: Option<&str>, flags: &[&str]) -> Process {
        let mut args = vec!["generate".to_owned(), format!("--rate={rate}"), "--json".to_owned()];
        args.extend(duration.map(|duration| format!("--duration={duration}")));
        args.extend(["--users=200", "--pages=20", "--set=generator.http_listen=off"].map(str::to_owned));
        args.extend(self.topic_flags(brokers));
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        Process::start("generator", self.dir(), args)
    }

    /// What the job has committed.
    pub fn committed(&self) -> CommittedProgress {
        let committed = read_progress(&self.brokers, &BTreeMap::new(), &self.progress.name);
        committed.unwrap_or_else(|error| panic!("{error}"))
    }

    /// How far it is known to have come, without waiting for a transaction that is open.
    pub fn committed_so_far(&self) -> Option<Progress> {
        let committed = read_progress_so_far(&self.brokers, &BTreeMap::new(), &self.progress.name);
        committed.unwrap_or_else(|error| panic!("{error}")).progress
    }

    /// Waits until what is committed is as it should be, while all processes run.
    pub fn until(
        &self,
        what: &str,
        processes: &mut [Process],
        mut condition: impl FnMut(&CommittedProgress) -> bool,
    ) -> Progress {
        let what = format!("{}: {what}", self.name);
        let mut latest = CommittedProgress::default();
        let wait = std::panic::AssertUnwindSafe(|| {
            eventually(&what, DEADLINE, || {
                thread::sleep(Duration::from_millis(150));
                for process in processes.iter_mut() {
                    let ended = process.exited();
                    assert!(ended.is_none(), "{what}: a process has ended: {ended:?}");
                }
                latest = self.committed();
                condition(&latest).then(|| latest.progress.clone()).flatten()
            })
        });
        std::panic::catch_unwind(wait).unwrap_or_else(|panic| {
            eprintln!("committed at last: {latest:#?}");
            std::panic::resume_unwind(panic)
        })
    }

    /// Waits until every window that ends at or before `end_ms` is final.
    pub fn until_final(&self, end_ms: i64, processes: &mut [Process]) -> Progress {
        self.until(&format!("final up to {end_ms}"), processes, |committed| {
            committed.progress.as_ref().and_then(|progress| progress.committed_through) >= Some(end_ms)
        })
    }

    /// Waits until this many more windows are final than are now.
    pub fn until_more(&self, windows: i64, processes: &mut [Process]) -> Progress {
        let through = |committed: &CommittedProgress| committed.progress.as_ref()?.committed_through;
        let mut from = through(&self.committed());
        self.until(&format!("{windows} more windows"), processes, |committed| {
            let now = through(committed);
            from = from.or(now);
            from.zip(now).is_some_and(|(from, now)| now >= from + windows * SLIDE_MS)
        })
    }

    /// What the audit finds.
    pub fn audit(&self) -> Audit {
        self.audit_by(&[])
    }

    fn audit_by(&self, flags: &[String]) -> Audit {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clicktide"));
        command.arg("audit").arg("--json").args(self.job_flags(&self.brokers)).args(flags);
        let output = command.output().expect("the audit runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let report = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}\n{errors}"));
        Audit { code: output.status.code(), report }
    }

    /// The audit, which must agree.
    pub fn audit_agrees(&self) -> Audit {
        let audit = self.audit();
        assert_eq!(audit.code, Some(0), "{}: {:#}", self.name, audit.report);
        assert!(audit.number("/results/expected") > 0, "{:#}", audit.report);
        let committed = audit.report["committed_through"].as_i64().unwrap_or(0);
        assert_eq!(committed % SLIDE_MS, 0, "a window end");
        audit
    }

    /// Compares the results with the expected ones in `truth`, which must agree; returns how many there are.
    pub fn agrees_with(&self, truth: &Path) -> i64 {
        let audit = self.audit_by(&[format!("--truth={}", truth.display())]);
        assert_eq!(audit.code, Some(0), "{}: {:#}", self.name, audit.report);
        audit.number("/results/expected")
    }
}

/// An audit's exit code and report.
pub struct Audit {
    pub code: Option<i32>,
    pub report: Value,
}

impl Audit {
    /// A number of the report, by its JSON pointer.
    pub fn number(&self, pointer: &str) -> i64 {
        let value = self.report.pointer(pointer).and_then(Value::as_i64);
        value.unwrap_or_else(|| panic!("no number {pointer} in {:#}", self.report))
    }
}

/// Stops processes in good order, by a signal to all of them.
pub fn stop(processes: &mut [Process], signal: &str) {
    processes.iter_mut().for_each(|process| process.signal(signal));
    processes.iter_mut().for_each(|process| process.wait_for_code(0, DEADLINE));
}

/// The end of a window after everything that has been produced so far has left its windows.
pub fn all_closed_ms() -> i64 {
    Job::windows().leave(now_ms()).0
}

/// The wall clock, ms.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis() as i64
}

/// An event, of whoever and wherever the number says.
pub fn event(number: i64, time_ms: i64) -> ClickEvent {
    let event_types = [EventType::View, EventType::View, EventType::Click, EventType::Purchase];
    ClickEvent {
        user_id: format!("user {}", number % 17),
        session_id: format!("session {}", number % 29),
        event_type: event_types[number.rem_euclid(4) as usize],
        page_url: format!("/page/{}", number % 5),
        product_id: None,
        timestamp: time_ms,
        user_agent: "-".to_owned(),
        ip_address: "-".to_owned(),
        referrer: None,
        session_duration: (number % 3 == 0).then_some((number % 90) as i32),
    }
}

/// An event as it is on the wire.
pub fn body(event: &ClickEvent) -> Vec<u8> {
    let mut body = Vec::new();
    encode_event(event, &mut body);
    body
}
