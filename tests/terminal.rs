//! What the commands show on a terminal, and what they say where there is none.
//!
//! Nothing here depends on how fast anything is: waits are for conditions, with generous deadlines.

mod support;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use serde_json::Value;
use support::job::{DEADLINE, Job};
use support::tty::{Tty, WIDE};
use support::{Process, brokers, eventually, send_signal};

const DEMO: [&str; 4] = ["demo", "--http=off", "--rate=200", "--log=info,librdkafka=off,rdkafka=off"];

/// That the lines that are drawn again are the last ones, and each is there once; the others are as they were written.
fn drawn_at_the_bottom(lines: &[String], drawn: &[&str]) {
    let (above, below) = lines.split_at(lines.len() - drawn.len());
    for (line, begin) in below.iter().zip(drawn) {
        assert!(line.starts_with(begin), "{line:?} in {lines:#?}");
    }
    for line in above {
        assert!(!line.contains(" · "), "a line was left behind: {line:?} in {lines:#?}");
    }
}

/// A line of the log for people, whole.
fn is_log_line(line: &str) -> bool {
    let starts = line.len() > 40 && line.as_bytes()[10] == b'T' && line.as_bytes()[23] == b'Z';
    let levels = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
    // The time is in a line once: two lines that got mixed up have it twice.
    starts && levels.iter().any(|level| line[24..32].contains(level)) && line.matches("Z  ").count() <= 1
}

#[test]
fn a_demo_is_drawn_in_place_and_an_interrupt_ends_it_well() {
    let dir = tempfile::tempdir().unwrap();
    let mut tty = Tty::start(dir.path(), WIDE, DEMO);
    let lines = tty.until("windows are closed", DEADLINE, |lines| {
        let last = lines.last()?;
        (last.starts_with("window to ") && lines.iter().any(|line| line.contains("last tick"))).then(|| lines.to_vec())
    });
    drawn_at_the_bottom(&lines, &["running · ", "window to "]);
    let status = lines[lines.len() - 2].clone();
    for part in [" events/s · ", " behind · ", "lag ", "late 0", "rejected 0", "clicktide-1"] {
        assert!(status.contains(part), "{part:?} in {status:?}");
    }
    tty.until("it goes on in place", DEADLINE, |lines| (lines.get(lines.len() - 2)? != &status).then_some(()));
    drawn_at_the_bottom(&tty.lines(), &["running · ", "window to "]);
    assert!(tty.lines().iter().filter(|line| is_log_line(line)).count() >= 1, "{:#?}", tty.lines());
    tty.interrupt();
    assert!(tty.wait(DEADLINE).success());
    let lines = tty.lines();
    assert!(lines.iter().all(|line| !line.contains(" · ")), "nothing is left of what was drawn: {lines:#?}");
}

#[test]
fn a_narrow_terminal_shows_the_beginning_without_wrapping() {
    let dir = tempfile::tempdir().unwrap();
    let tty = Tty::start(dir.path(), 40, ["demo", "--http=off", "--rate=200"]);
    let lines = tty.until("windows are closed", DEADLINE, |lines| {
        (lines.last()?.starts_with("window to ") && lines.len() == 2).then(|| lines.to_vec())
    });
    assert!(lines.iter().all(|line| line.chars().count() <= 40), "{lines:#?}");
    assert!(lines[0].starts_with("running · "), "{lines:#?}");
}

#[test]
fn without_a_terminal_a_demo_says_a_line_for_each_window_and_nothing_when_quiet() {
    let dir = tempfile::tempdir().unwrap();
    let start =
        |name: &str, flags: &[&str]| Process::start(name, dir.path(), [&DEMO[..3], &["--duration=6s"], flags].concat());
    let mut plain = start("plain", &[]);
    plain.until("two windows", DEADLINE, |plain| (plain.stdout().matches(" s  window to ").count() >= 2).then_some(()));
    plain.wait_for_code(0, DEADLINE);
    let mut json = start("json", &["--json"]);
    json.wait_for_code(0, DEADLINE);
    let documents: Vec<Value> = json.stdout().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(documents.iter().any(|document| document["phase"] == "running"), "{documents:?}");
    let mut quiet = start("quiet", &["--quiet"]);
    quiet.wait_for_code(0, DEADLINE);
    assert_eq!((quiet.stdout(), quiet.stderr()), (String::new(), String::new()));
    for process in [&plain, &json] {
        assert!(!process.stdout().contains('\x1b') && !process.stderr().contains('\x1b'));
    }
}

#[test]
fn a_launch_draws_its_state_below_the_log_of_all_processes() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 2);
    let _generator = job.generate(200, None);
    let mut args: Vec<String> =
        ["launch", "--http=off", "-n=2", "-w=1", "--log=info,clicktide=debug"].map(str::to_owned).into();
    args.extend(job.job_flags(&brokers));
    let mut tty = Tty::start(job.dir(), WIDE, args);
    let lines = tty.until("windows are committed", DEADLINE, |lines| {
        let committed = lines.iter().filter(|line| line.contains("a window is committed")).count();
        let taken = lines.iter().any(|line| line.contains("a checkpoint is taken"));
        (committed >= 3 && taken && lines.last()?.starts_with("running · ")).then(|| lines.to_vec())
    });
    drawn_at_the_bottom(&lines, &["running · "]);
    for line in &lines[..lines.len() - 1] {
        assert!(is_log_line(line), "{line:?} in {lines:#?}");
    }
    let run = lines[lines.len() - 1].rsplit(" · ").next().unwrap().to_owned();
    for process in [0, 1] {
        let said = |line: &&String| line.contains(&format!("run={run} process={process}"));
        assert!(lines.iter().any(|line| said(&line)), "process {process} of {run} in {lines:#?}");
    }
    // With colours, as on any terminal.
    assert!(tty.written().contains("\x1b[32m INFO\x1b[0m"));

    // One is killed: its and the others' last words are above what is drawn, and the job goes on.
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", tty.id())).unwrap();
    let child: u32 = children.split_whitespace().next_back().unwrap().parse().unwrap();
    assert!(send_signal(child, "KILL"));
    let lines = tty.until("another run", DEADLINE, |lines| {
        let last = lines.last()?;
        (last.starts_with("running · ") && !last.ends_with(&run)).then(|| lines.to_vec())
    });
    drawn_at_the_bottom(&lines, &["running · "]);
    assert!(lines.iter().any(|line| line.contains("starting the job again")), "{lines:#?}");
    tty.interrupt();
    assert!(tty.wait(DEADLINE).success(), "{:#?}", tty.lines());
    job.audit_agrees();
}

#[test]
fn without_a_terminal_a_launch_says_its_state_now_and_then() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 2);
    let _generator = job.generate(200, None);
    let launched = |flags: &[&str], seen: &dyn Fn(&str) -> bool| {
        let name = format!("launch{}", flags.concat());
        let mut args: Vec<String> = ["launch", "--http=off", "-n=2", "-w=1"].map(str::to_owned).into();
        args.extend(job.job_flags(&brokers));
        args.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let mut launch = Process::start(&name, job.dir(), args);
        launch.until("its state is said", DEADLINE, |launch| seen(&launch.stdout()).then_some(()));
        launch.signal("TERM");
        launch.wait_for_code(0, DEADLINE);
        launch.stdout()
    };
    let stdout = launched(&[], &|stdout| stdout.contains("Z running"));
    assert!(stdout.lines().all(|line| !line.starts_with('{')), "{stdout}");
    let stdout = launched(&["--json"], &|stdout| stdout.contains(r#""phase":"running""#));
    for line in stdout.lines() {
        let document: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert_eq!(document["job"], job.name.as_str());
    }
}

#[test]
fn a_job_goes_on_when_nobody_reads_its_state_or_its_log() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 1);
    let _generator = job.generate(200, None);
    let mut args: Vec<String> = ["run", "-w=1", "--status", "--log=trace"].map(str::to_owned).into();
    args.extend(job.job_flags(&brokers));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_clicktide"));
    command.args(args).stdin(std::process::Stdio::null());
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    // More than a pipe holds is said at this level, and nobody reads it.
    job.until_more(5, &mut []);
    assert!(child.try_wait().unwrap().is_none());
    drop((child.stdout.take(), child.stderr.take()));
    job.until_more(3, &mut []);
    assert!(child.try_wait().unwrap().is_none());
    assert!(send_signal(child.id(), "TERM"));
    let status = eventually("it stops", DEADLINE, || child.try_wait().unwrap());
    assert!(status.success(), "{status}");
    job.audit_agrees();
}

/// Events that take longer to replay than nobody would talk about.
fn many_events(dir: &Path) -> PathBuf {
    let mut events = String::new();
    let packed = fs::File::open("tests/oracle/steady.events.jsonl.gz").unwrap();
    GzDecoder::new(packed).read_to_string(&mut events).unwrap();
    let path = dir.join("many.jsonl");
    fs::write(&path, events.repeat(60)).unwrap();
    path
}

#[test]
fn a_replay_tells_how_far_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let events = many_events(dir.path()).display().to_string();
    let args = ["replay", "-w=1", "--json", "--output=results.jsonl", &events];
    let mut tty = Tty::start(dir.path(), 100, args);
    let status = tty.wait(DEADLINE);
    assert!(status.success(), "{:#?}", tty.lines());
    let summary = tty.until("the summary", DEADLINE, |lines| lines.last().cloned());
    let summary: Value = serde_json::from_str(&summary).unwrap_or_else(|error| panic!("{error}: {:#?}", tty.lines()));
    assert_eq!(summary["read"], 1_200_000);
    assert_eq!(tty.lines().len(), 1, "what was drawn is gone: {:#?}", tty.lines());
    let written = tty.written();
    assert!(written.contains("replay · ") && written.contains(" left"), "{written}");

    let mut plain = Process::start("plain", dir.path(), ["replay", "-w=1", "--output=/dev/null", &events]);
    plain.wait_for_code(0, DEADLINE);
    let stderr = plain.stderr();
    assert!(stderr.lines().next().unwrap().starts_with("replay · "), "{stderr}");
    assert!(stderr.ends_with("results 2993\n") || stderr.contains("read 1200000"), "{stderr}");
}
