//! The processes of a cluster, in whatever state: hung, foreign, unprotected, outgrown.
//!
//! Nothing here depends on how fast anything is: waits are for conditions, with generous deadlines.

mod support;

use std::process::Command;
use std::time::Duration;

use clicktide::exit::end_on_panic;
use support::job::{DEADLINE, Job, body, event, now_ms, stop};
use support::topics::Plain;
use support::{Broker, Process, brokers, eventually};

const CONFIGURATION: i32 = 2;
const KAFKA: i32 = 10;
const REFUSED: i32 = 12;
const PEER_LOST: i32 = 13;
const PANIC: i32 = 14;
const AGAIN: i32 = 18;

/// Events of one partition, four a second of their own time, from so many seconds after the start on.
fn produce(job: &Job, plain: &Plain, partition: i32, start_ms: i64, seconds: std::ops::Range<i64>) {
    for number in seconds.start * 4..seconds.end * 4 {
        let bytes = body(&event(number + i64::from(partition), start_ms + number * 250));
        plain.send(&job.events.name, partition, Some(&bytes));
    }
    plain.flush();
}

/// What the program has to say about its end, which must be one line.
fn last_words(process: &Process) -> String {
    let stderr = process.stderr();
    let words: Vec<&str> = stderr.lines().filter(|line| line.starts_with("clicktide: ")).collect();
    assert_eq!(words.len(), 1, "{stderr}");
    words[0].to_owned()
}

/// Waits until a process says so in its log.
fn until_said(process: &mut Process, what: &str) {
    process.until(what, DEADLINE, |process| process.stderr().contains(what).then_some(()));
}

#[test]
fn a_process_that_hangs_ends_the_others_and_itself_when_it_goes_on() {
    let Some(brokers) = brokers() else { return };
    for hung in [1, 0] {
        let mut job = Job::new(&brokers, 3);
        job.flags.push("--set=cluster.heartbeat_timeout=3s".to_owned());
        let _generator = job.generate(200, None);
        let mut processes = job.run(3, 1);
        job.until_more(1, &mut processes);
        processes[hung].signal("STOP");
        for index in (0..3).filter(|index| *index != hung) {
            processes[index].wait_for_code(PEER_LOST, DEADLINE);
        }
        // The first to notice names it; the other one may have lost the first by then.
        let named = format!("lost another process of the job: process {hung} has not been heard for 3 s");
        let words: Vec<String> =
            (0..3).filter(|index| *index != hung).map(|index| last_words(&processes[index])).collect();
        assert!(words.iter().any(|words| words.contains(&named)), "{words:?}");
        let at_rest = job.committed().progress;
        processes[hung].signal("CONT");
        processes[hung].wait_for_code(PEER_LOST, DEADLINE);
        let words = last_words(&processes[hung]);
        assert!(words.contains("lost another process of the job: the connection to process"), "{words}");
        if hung != 0 {
            assert_eq!(job.committed().progress, at_rest);
        }

        let mut processes = job.run(2, 2);
        job.until_more(2, &mut processes);
        stop(&mut processes, "TERM");
        job.audit_agrees();
    }
}

#[test]
fn another_secret_is_turned_away_and_the_others_wait_on() {
    let Some(brokers) = brokers() else { return };
    let mut job = Job::new(&brokers, 2);
    let plain = Plain::new(&brokers);
    let start_ms = Job::windows().tick_at_or_before(now_ms() - 60_000).0;
    (0..2).for_each(|partition| produce(&job, &plain, partition, start_ms, 0..20));
    let secret = "--set=cluster.secret=what all processes know";
    job.flags.push(secret.to_owned());
    let mut first = job.process(2, 0, 1, &[]);
    for other in [Some("--set=cluster.secret=what nobody else knows"), None] {
        job.flags.clear();
        job.flags.extend(other.map(str::to_owned));
        let mut stranger = job.process(2, 1, 1, &[]);
        stranger.wait_for_code(REFUSED, DEADLINE);
        let stderr = stranger.stderr();
        let words = stderr.lines().last().unwrap_or_default();
        assert!(words.contains("process 0 turned process 1 away: the secret differs"), "{words}");
        assert!(!stderr.contains("nobody else"), "a secret is shown");
        assert!(first.exited().is_none());
    }
    until_said(&mut first, "the secret differs");
    job.flags = vec![secret.to_owned()];
    let mut processes = vec![first, job.process(2, 1, 1, &[])];
    job.until_final(start_ms + 15_000, &mut processes);
    stop(&mut processes, "TERM");
    for process in &processes {
        assert!(!process.stderr().contains("all processes know"), "a secret is shown");
    }
    job.audit_agrees();
}

#[test]
fn no_process_elsewhere_without_a_secret() {
    let dir = tempfile::tempdir().expect("a folder");
    let hosts = dir.path().join("hosts.txt");
    // An address for documentation, which nobody has.
    std::fs::write(&hosts, "127.0.0.1:1\n192.0.2.1:2101\n").expect("the hosts file");
    let flags = ["run", "-n", "2", "-p", "0", "-w", "1", "--set=http.listen=off", "--set=checkpoints.store=off", "-h"];
    let args = flags.into_iter().map(str::to_owned).chain([hosts.display().to_string()]);
    let mut process = Process::start("unprotected", dir.path(), args);
    process.wait_for_code(CONFIGURATION, DEADLINE);
    let words = last_words(&process);
    assert!(words.contains("process 1 is at 192.0.2.1:2101") && words.contains("set cluster.secret_file"), "{words}");
}

/// Set in the process in which a worker panics.
const PANICS: &str = "CLICKTIDE_TEST_PANICS";

#[test]
fn a_panic_on_any_thread_ends_the_process() {
    if std::env::var_os(PANICS).is_some() {
        end_on_panic();
        // One of two workers, while the other one waits for it for ever.
        let workers = timely::execute(timely::Config::process(2), |worker| {
            assert!(worker.index() == 0, "a worker's own fault");
            loop {
                worker.step_or_park(None);
            }
        });
        drop(workers.expect("two workers"));
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--exact", "a_panic_on_any_thread_ends_the_process", "--nocapture"]).env(PANICS, "1");
    let mut process = Process::spawn("panics", dir.path(), command);
    process.wait_for_code(PANIC, DEADLINE);
    let words = last_words(&process);
    assert!(words.contains("a thread failed") && words.contains("a worker's own fault"), "{words}");
}

#[test]
fn a_lost_broker_ends_all_processes_and_a_short_restart_none() {
    if brokers().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(dir.path(), &[]);
    let mut job = Job::new(&broker.address, 1);
    // However slowly it starts here, and with a commit under way or not.
    job.flags.extend(["--set=kafka.lost_after=2m", "--set=kafka.transaction_timeout=2m"].map(str::to_owned));
    let plain = Plain::new(&broker.address);
    let start_ms = Job::windows().tick_at_or_before(now_ms() - 60_000).0;
    produce(&job, &plain, 0, start_ms, 0..10);
    // Process 1 has no partition.
    let mut processes = job.run(2, 1);
    job.until_final(start_ms + 8_000, &mut processes);
    broker.kill();
    std::thread::sleep(Duration::from_secs(5));
    broker.start_again();
    produce(&job, &plain, 0, start_ms, 10..30);
    job.until_final(start_ms + 28_000, &mut processes);
    stop(&mut processes, "TERM");

    let mut job = Job::new(&broker.address, 1);
    job.flags.push("--set=kafka.lost_after=4s".to_owned());
    let mut processes = job.run(2, 1);
    processes.iter_mut().for_each(|process| until_said(process, "the processes are together"));
    broker.kill();
    let mut codes: Vec<Option<i32>> = processes.iter_mut().map(|process| process.wait(DEADLINE).code()).collect();
    let words: Vec<String> = processes.iter().map(last_words).collect();
    let says = format!("Kafka at {} has not answered for 4 s", broker.address);
    assert!(words.iter().any(|words| words.contains(&says)), "{words:?}");
    // Whoever is not the first may have lost the first before.
    codes.sort_unstable();
    codes.dedup();
    assert!(codes == [Some(KAFKA)] || codes == [Some(KAFKA), Some(PEER_LOST)], "{codes:?} {words:?}");
}

#[test]
fn a_topic_that_grows_is_read_after_a_restart() {
    let Some(brokers) = brokers() else { return };
    let mut job = Job::new(&brokers, 1);
    job.flags.push("--set=kafka.partitions_check_every=1s".to_owned());
    let plain = Plain::new(&brokers);
    let start_ms = Job::windows().tick_at_or_before(now_ms() - 3_600_000).0;
    produce(&job, &plain, 0, start_ms, 0..20);
    let mut launch = job.launch(2, 1);
    job.until_final(start_ms + 18_000, std::slice::from_mut(&mut launch));
    let before = job.committed().progress.expect("progress");

    job.events.add_partitions(3);
    let grown = job.until("a run with all partitions", std::slice::from_mut(&mut launch), |committed| {
        committed.progress.as_ref().is_some_and(|progress| progress.input.len() == 3)
    });
    assert!(grown.generation > before.generation && grown.committed_through >= before.committed_through);
    let stderr = launch.stderr();
    assert!(stderr.contains("the job has to be started again: its input has grown"), "{stderr}");
    assert!(!stderr.contains("a process ended with"), "{stderr}");
    let plain = Plain::new(&brokers);
    (0..3).for_each(|partition| produce(&job, &plain, partition, start_ms, 20..60));
    job.until_final(start_ms + 58_000, std::slice::from_mut(&mut launch));
    launch.signal("TERM");
    launch.wait_for_code(0, DEADLINE);
    let audit = job.audit_agrees();
    let events = audit.number("/input/counted") + audit.number("/input/late");
    assert_eq!(events, 20 * 4 + 3 * 40 * 4, "{:#}", audit.report);
    assert!(audit.number("/input/counted") > 20 * 4, "{:#}", audit.report);

    // Without a supervisor all processes say that they have to be started again.
    let mut processes = job.run(2, 1);
    processes.iter_mut().for_each(|process| until_said(process, "the processes are together"));
    job.events.add_partitions(4);
    for process in &mut processes {
        process.wait_for_code(AGAIN, DEADLINE);
        last_words(process);
    }
    eventually("it is said from how many to how many", DEADLINE, || {
        processes.iter().any(|process| process.stderr().contains(r#""from":3,"to":4"#)).then_some(())
    });
    // A bounded run ends where its input ended when it began.
    let mut bounded = Job::new(&brokers, 1);
    bounded.flags.push("--set=kafka.partitions_check_every=1s".to_owned());
    produce(&bounded, &plain, 0, start_ms, 0..20);
    let mut process = bounded.process(1, 0, 1, &["--until-end"]);
    until_said(&mut process, "the processes are together");
    process.wait_for_code(0, DEADLINE);
}
