//! Ten incidents, tried for real: what an operator sees of each, where, and that it is over when its cause is.
//!
//! `docs/troubleshooting.md` tells of the same ten in the same order. Nothing here depends on how fast anything is: waits are
//! for what is seen, with generous deadlines.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clicktide::event::ClickEvent;
use serde_json::{Value, json};
use support::acls::{self, Acl};
use support::job::{BOUND_MS, DEADLINE, Job, body, event, now_ms, stop};
use support::topics::{Plain, Transactions};
use support::watched::Watched;
use support::{Broker, Process, brokers, free_port};

const KAFKA: i32 = 10;
const PEER_LOST: i32 = 13;
const BAD: i32 = 21;
const DENIED: i32 = 22;

/// Process 0 of a job of one process, and where it is watched.
fn watched(job: &Job, flags: &[&str]) -> (Process, Watched) {
    watched_of(job, 1, 0, flags)
}

fn watched_of(job: &Job, processes: usize, process: usize, flags: &[&str]) -> (Process, Watched) {
    let watched = Watched(free_port());
    let http = watched.flag();
    let flags = [flags, &[http.as_str()]].concat();
    (job.process(processes, process, 2, &flags), watched)
}

/// Produces events of now to some partitions, a few of each.
fn produce(plain: &Plain, job: &Job, partitions: std::ops::Range<i32>) {
    let now_ms = now_ms();
    for partition in partitions {
        for number in 0..4 {
            plain.send(&job.events.name, partition, Some(&body(&event(number, now_ms - number))));
        }
    }
    plain.flush();
}

/// Goes on producing to some partitions until something is seen.
fn until<T>(
    job: &Job,
    partitions: std::ops::Range<i32>,
    watched: Watched,
    what: &str,
    see: impl Fn(Watched) -> Option<T>,
) -> T {
    let plain = Plain::new(&job.brokers);
    watched.until(what, |watched| {
        produce(&plain, job, partitions.clone());
        see(watched)
    })
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn broker_gone() {
    if brokers().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let broker = Broker::start(&dir.path().join("kafka"), &[]);
    let job = Job::new(&broker.address, 3);
    let (mut process, watched) = watched(&job, &["--set=kafka.lost_after=10m", "--set=kafka.transaction_timeout=2m"]);
    until(&job, 0..3, watched, "windows are committed", |watched| {
        watched.cluster("/committed_window_end_ms")?.as_i64()
    });
    watched.until_ready(&mut process);

    broker.kill();
    let reason = watched.until("Kafka does not answer", |watched| watched.failing("/readyz", "kafka"));
    assert!(reason.contains("Kafka has not answered for"), "{reason}");
    assert_eq!(watched.get("/healthz").map(|(code, _)| code), Some(200), "the process itself is well");
    assert!(process.stderr().contains("Kafka does not answer"), "{}", process.stderr());

    broker.start_again();
    watched.until_ready(&mut process);
    process.until("it says so", DEADLINE, |process| process.stderr().contains("Kafka answers again").then_some(()));
    drop(process);

    // One that may be lost for less long ends by itself, for its supervisor to start it again.
    let (mut process, watched) = self::watched(&job, &["--set=kafka.lost_after=3s"]);
    watched.until_ready(&mut process);
    broker.kill();
    process.wait_for_code(KAFKA, DEADLINE);
    assert!(process.stderr().contains("has not answered for 3 s"), "{}", process.stderr());
}

#[test]
fn a_silent_partition() {
    let Some(brokers) = brokers() else { return };
    // Idle partitions hold nobody back.
    let job = Job::new(&brokers, 3);
    let (mut process, watched) = watched(&job, &[]);
    until(&job, 0..3, watched, "all have a watermark", |watched| {
        let known = |partition| watched.cluster(&format!("/partitions/{partition}/watermark_ms"))?.as_i64();
        (known(0).is_some() && known(1).is_some() && known(2).is_some()).then_some(())
    });
    until(&job, 0..2, watched, "partition 2 is idle", |watched| {
        (watched.cluster("/partitions/2/idle")? == true).then_some(())
    });
    let committed = number(&watched.cluster("/committed_window_end_ms").expect("a cluster"));
    until(&job, 0..2, watched, "windows are committed without it", |watched| {
        (number(&watched.cluster("/committed_window_end_ms")?) > committed + 2_000).then_some(())
    });
    stop(std::slice::from_mut(&mut process), "TERM");

    // With idleness off it holds the others back, and it is seen which one does.
    let mut job = Job::new(&brokers, 3);
    job.flags.push("--set=windows.idle_timeout=off".to_owned());
    let (_process, watched) = self::watched(&job, &["--set=health.commit_age_max=1s"]);
    until(&job, 0..3, watched, "windows are committed", |watched| {
        watched.cluster("/committed_window_end_ms")?.as_i64()
    });
    let (held, others) = until(&job, 0..2, watched, "partition 2 is behind", |watched| {
        let cluster = watched.json("/v1/cluster")?;
        let of = |partition: usize| cluster["partitions"][partition]["watermark_ms"].as_i64();
        (of(0)?.min(of(1)?) > of(2)? + 3_000).then(|| (cluster["watermark_ms"].clone(), cluster["partitions"].clone()))
    });
    assert_eq!(held, others[2]["watermark_ms"], "the job's watermark is the least: {others:#}");
    assert_eq!(others[2]["idle"], false);
    let lag = watched.metric(r#"clicktide_watermark_timestamp_seconds{partition="2"}"#);
    assert!(lag < watched.metric(r#"clicktide_watermark_timestamp_seconds{partition="0"}"#), "{lag:?}");
}

#[test]
fn a_hot_page() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 3);
    let (mut process, watched) = watched(&job, &[]);
    let plain = Plain::new(&brokers);
    let top = watched.until("the page is seen", |watched| {
        for number in 0..60 {
            let page_url = if number % 20 == 0 { "/page/quiet" } else { "/page/hot" }.to_owned();
            let hot = ClickEvent { page_url, ..event(number, now_ms()) };
            plain.send(&job.events.name, (number % 3) as i32, Some(&body(&hot)));
        }
        plain.flush();
        let (_, window) = watched.get("/v1/pages?limit=1")?;
        let window: Value = serde_json::from_str(&window).ok()?;
        let top = window["pages"].get(0)?.clone();
        (top["page_url"] == "/page/hot" && number(&top["view_count"]) > 100).then_some(window)
    });
    let views = number(&top["totals"]["view_count"]);
    assert!(number(&top["pages"][0]["view_count"]) * 10 > views * 8, "most views are of it: {top:#}");
    // It costs no worker more than another, and nobody waits for it.
    watched.until("all is read", |watched| (watched.cluster("/lag_records")? == 0).then_some(()));
    watched.until_ready(&mut process);
}

#[test]
fn a_bad_producer() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 3);
    let (mut process, watched) = watched(&job, &[]);
    let plain = Plain::new(&brokers);
    for number in 0..30 {
        plain.send(&job.events.name, number % 3, Some(b"{\"not\": \"avro\"}"));
        plain.send(&job.events.name, number % 3, None);
        let nobody = ClickEvent { user_id: String::new(), ..event(1, now_ms()) };
        plain.send(&job.events.name, number % 3, Some(&body(&nobody)));
    }
    plain.flush();
    watched.until("they are counted by reason", |watched| {
        let rejected = watched.cluster("/rejected")?;
        (rejected == json!({"undecodable": 60, "empty_user_id": 30})).then_some(())
    });
    assert_eq!(watched.cluster("/watermark_ms"), Some(Value::Null), "they move no clock");
    let rejected = watched.metric(r#"clicktide_rejected_events_total{reason="undecodable"}"#);
    assert_eq!(rejected, Some(60.0));
    // They are committed with the windows that were open when they came.
    until(&job, 0..3, watched, "they are dead letters", |watched| {
        // And so that the audit has something to compare.
        let results = watched.cluster("/results")?.as_i64()?;
        (watched.cluster("/dead_letters")? == 90 && results > 0).then_some(())
    });
    watched.until_ready(&mut process);
    stop(std::slice::from_mut(&mut process), "TERM");
    job.audit_agrees();
}

#[test]
fn skewed_clocks() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 3);
    let (mut process, watched) = watched(&job, &[]);
    let plain = Plain::new(&brokers);
    let send = |partition, ahead_ms| {
        plain.send(&job.events.name, partition, Some(&body(&event(1, now_ms() + ahead_ms))));
        plain.flush();
    };
    const MINUTE_MS: i64 = 60_000;
    watched.until("the watermark is known", |watched| {
        (0..3).for_each(|partition| send(partition, 0));
        watched.cluster("/watermark_ms")?.as_i64()
    });
    // Far ahead: rejected. A little ahead: counted, and no clock follows it.
    send(0, 10 * MINUTE_MS);
    send(0, 2 * MINUTE_MS);
    watched.until("it is rejected", |watched| {
        (watched.cluster("/rejected")? == json!({"future_timestamp": 1})).then_some(())
    });
    watched.until("all is read", |watched| (watched.cluster("/lag_records")? == 0).then_some(()));
    let lag_ms = |watched: Watched| watched.cluster("/watermark_lag_ms")?.as_i64();
    assert!(lag_ms(watched) >= Some(BOUND_MS / 2), "the watermark does not run ahead: {:?}", lag_ms(watched));
    // Behind: late.
    send(0, -10 * MINUTE_MS);
    watched.until("it is late", |watched| (watched.cluster("/late")? == 1).then_some(()));
    assert_eq!(watched.metric("clicktide_late_events_total"), Some(1.0));
    watched.until_ready(&mut process);
}

/// A file system of 1 MiB, which only root can make.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<SmallDisk> {
        fs::create_dir(at).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(at).stderr(std::process::Stdio::null());
        mount.status().is_ok_and(|status| status.success()).then(|| SmallDisk(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

#[test]
fn a_full_disk_for_checkpoints() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 3);
    let at = job.dir().join("small-disk");
    let Some(disk) = SmallDisk::mount(&at) else {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "SKIPPED {}: only root can mount a small disk", support::test_name());
        return;
    };
    let store = format!("--set=checkpoints.store={}", at.display());
    let (mut process, watched) = watched(&job, &[&store]);
    until(&job, 0..3, watched, "a checkpoint is taken", |watched| {
        watched.cluster("/checkpoints/last/through_ms")?.as_i64()
    });

    let filler = at.join("filler");
    let full = fs::write(&filler, vec![0; 2 << 20]);
    assert!(full.is_err(), "the disk is small");
    let reason = until(&job, 0..3, watched, "the failure", |watched| {
        watched.cluster("/checkpoints/failure/reason")?.as_str().map(str::to_owned)
    });
    assert!(reason.contains("No space left"), "{reason}");
    assert!(watched.metric(r#"clicktide_checkpoints_total{outcome="failed"}"#) >= Some(1.0));
    assert!(process.stderr().contains("no checkpoint"), "{}", process.stderr());
    // Results need no checkpoint.
    let committed = number(&watched.cluster("/committed_window_end_ms").expect("a cluster"));
    until(&job, 0..3, watched, "windows are committed all the same", |watched| {
        (number(&watched.cluster("/committed_window_end_ms")?) > committed + 2_000).then_some(())
    });
    watched.until_ready(&mut process);

    fs::remove_file(&filler).expect("room again");
    until(&job, 0..3, watched, "the next one is taken", |watched| {
        watched.cluster("/checkpoints/failure")?.is_null().then_some(())
    });
    stop(std::slice::from_mut(&mut process), "TERM");
    drop(disk);
    job.audit_agrees();
}

#[test]
fn a_hung_peer() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 3);
    let timeout = "--set=cluster.heartbeat_timeout=8s";
    let (mut first, watched) = watched_of(&job, 2, 0, &[timeout]);
    let (mut second, watched_second) = watched_of(&job, 2, 1, &[timeout]);
    until(&job, 0..3, watched, "windows are committed", |watched| {
        watched.cluster("/committed_window_end_ms")?.as_i64()
    });
    watched.until_ready(&mut first);
    watched_second.until_ready(&mut second);
    assert_eq!(watched_second.get("/v1/cluster").map(|(code, _)| code), Some(404), "process 0 speaks for all");
    let hears = |watched: Watched| watched.cluster("/processes/1/heard_ms_ago")?.as_u64();
    assert!(hears(watched).is_some());

    second.signal("STOP");
    watched.until("it has not been heard for long", |watched| hears(watched).filter(|ms| *ms > 2_500));
    first.wait_for_code(PEER_LOST, DEADLINE);
    assert!(first.stderr().contains("process 1 has not been heard for 8 s"), "{}", first.stderr());
    second.signal("CONT");
    second.wait_for_code(PEER_LOST, DEADLINE);
}

#[test]
fn a_backlog() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 3);
    // An hour and a half of event time. Most of partition 0 is in a transaction that is still open, so that it stays unread for as
    // long as anybody likes to look.
    let (plain, held) = (Plain::new(&brokers), Transactions::new(&brokers));
    let end_ms = now_ms();
    let begin_ms = end_ms - 5_400_000;
    held.begin();
    for (number, time_ms) in (0..).zip((begin_ms..end_ms).step_by(250)) {
        let body = body(&event(number, time_ms));
        match (number % 3) as i32 {
            0 if time_ms > begin_ms + 600_000 => job.events.produce_at(&held, 0, end_ms, &body),
            partition => plain.send(&job.events.name, partition, Some(&body)),
        }
    }
    plain.flush();
    held.flush();
    let (mut process, watched) = watched(&job, &["--set=health.lag_records_max=1000"]);
    let reason = watched.until("it is behind", |watched| watched.failing("/readyz", "caught_up"));
    assert!(reason.contains("records unread in 3 partitions, the limit is 1000"), "{reason}");
    watched.until("event time is behind", |watched| {
        watched.cluster("/watermark_lag_ms")?.as_i64().filter(|ms| *ms > 3_600_000)
    });
    assert_eq!(watched.cluster("/held_back_by"), Some(json!(0)));
    held.end();
    watched.until("it has caught up", |watched| (number(&watched.cluster("/lag_records")?) == 0).then_some(()));
    watched.until_ready(&mut process);
    let lag = watched.metric(r#"clicktide_consumer_lag_records{partition="0"}"#);
    assert_eq!(lag, Some(0.0));
}

#[test]
fn a_wrong_schema() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 3);
    let (mut process, watched) = watched(&job, &[]);
    until(&job, 0..3, watched, "windows are committed", |watched| {
        watched.cluster("/committed_window_end_ms")?.as_i64()
    });
    // The producers are deployed anew, and write the same events in the wire format of a schema registry.
    let plain = Plain::new(&brokers);
    let framed = |number| [&[0, 0, 0, 0, 7], body(&event(number, now_ms())).as_slice()].concat();
    for number in 0..300 {
        plain.send(&job.events.name, (number % 3) as i32, Some(&framed(number)));
    }
    plain.flush();
    watched.until("they are rejected", |watched| {
        let rejected = number(&watched.cluster("/rejected_total")?);
        (rejected == 300).then_some(())
    });
    // Nothing is lost: they wait among the dead letters, with the reason.
    until(&job, 0..3, watched, "they are dead letters", |watched| {
        // And so that the audit has something to compare.
        let results = watched.cluster("/results")?.as_i64()?;
        (watched.cluster("/dead_letters")? == 300 && results > 0).then_some(())
    });
    watched.until_ready(&mut process);
    stop(std::slice::from_mut(&mut process), "TERM");
    assert_eq!(job.audit_agrees().number("/input/rejected"), 300);
}

#[test]
fn no_permission() {
    if brokers().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let settings = [
        "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found=true",
    ];
    let broker = Broker::start(&dir.path().join("kafka"), &settings);
    let mut job = Job::new(&broker.address, 3);
    let deny = |topic: &str, operation: &str| {
        acls::deny(&broker.address, "User:ANONYMOUS", &[Acl::new(operation, "topic", topic)]);
    };
    let (mut process, watched) = watched(&job, &[]);
    until(&job, 0..3, watched, "windows are committed", |watched| {
        watched.cluster("/committed_window_end_ms")?.as_i64()
    });

    // Under the running job: it ends, and says what it may not do.
    deny(&job.results.name, "Write");
    let plain = Plain::new(&broker.address);
    let status = support::eventually("the job ends", DEADLINE, || {
        produce(&plain, &job, 0..3);
        process.exited()
    });
    assert_eq!(status.code(), Some(DENIED), "{}", process.stderr());
    let says = |process: &Process| process.stderr().contains("ACL");
    assert!(says(&process), "{}", process.stderr());

    // Before a start: the check says so, and so does the job.
    deny(&job.events.name, "Read");
    let mut check = vec!["check".to_owned()];
    check.extend(job.check_flags());
    let mut check = Process::start("check", job.dir(), check);
    check.wait_for_code(BAD, DEADLINE);
    let said = format!("{}{}", check.stdout(), check.stderr());
    assert!(said.contains("ACL") && said.contains(&job.events.name), "{said}");
    job.move_to("again-");
    let (mut process, _) = self::watched(&job, &[]);
    process.wait_for_code(DENIED, DEADLINE);
    assert!(says(&process), "{}", process.stderr());
}
