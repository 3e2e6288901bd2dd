//! The whole program against a real Apache Kafka: generator or records made by hand, the job as a cluster of processes
//! that are stopped, killed and started again, and the audit's word on what came of it.
//!
//! Nothing here depends on how fast anything is: waits are for conditions, with generous deadlines.

mod support;

use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use clicktide::progress::{IdleAdvance, JobState};
use clicktide_dataflows::time::{Judgement, PartitionClock};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use support::chance::Chance;
use support::job::{BOUND_MS, DEADLINE, Job, SIZE_MS, all_closed_ms, body, event, now_ms, stop};
use support::topics::{Plain, Transactions};
use support::{Process, brokers, python};

const FENCED: i32 = 11;
const REFUSED: i32 = 12;
const PEER_LOST: i32 = 13;
const DIFFERENT: i32 = 20;

/// Waits until the generator has ended by itself; returns how many events were acknowledged.
fn generated(generator: &mut Process) -> i64 {
    generator.wait_for_code(0, DEADLINE);
    let summary: serde_json::Value = serde_json::from_str(&generator.stdout()).expect("the summary");
    summary["acknowledged"].as_i64().expect("a number")
}

#[test]
fn generator_to_results() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 3);
    let mut generator = job.generate(300, Some("9s"));
    // Four workers for three partitions: one has none.
    let mut launch = job.launch(2, 2);
    let acknowledged = generated(&mut generator);
    job.until_final(all_closed_ms(), std::slice::from_mut(&mut launch));
    launch.signal("TERM");
    launch.wait_for_code(0, DEADLINE);

    let audit = job.audit_agrees();
    assert_eq!(audit.number("/input/counted") + audit.number("/input/late"), acknowledged, "{:#}", audit.report);
    assert_eq!(audit.number("/input/rejected"), 0);
    let expected = audit.number("/results/expected");
    assert!(expected > 100, "{:#}", audit.report);

    let Some(python) = python() else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut read = Command::new(python);
    read.arg(root.join("tests/read_results.py")).args([&brokers, &job.results.name]);
    read.arg(root.join("config/schemas/page-analytics.avsc")).arg("--expect-at-least").arg(expected.to_string());
    read.arg("--consumer").arg(root.join("tests/schemas/page-analytics-v1.avsc"));
    let output = read.output().expect("Python runs");
    let summary = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{summary}{}", String::from_utf8_lossy(&output.stderr));
    let summary: serde_json::Value = serde_json::from_str(&summary).expect("a summary");
    assert_eq!((summary["results"].as_i64(), summary["violations"].as_i64()), (Some(expected), Some(0)), "{summary:#}");
}

#[test]
fn stopped_in_good_order() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 4);

    // Before there is any event, so before any window could be closed.
    let mut processes = job.run(1, 2);
    job.until("the first start is committed", &mut processes, |committed| committed.progress.is_some());
    processes[0].until("the processes are together", DEADLINE, |process| {
        process.stderr().contains("the processes are together").then_some(())
    });
    stop(&mut processes, "TERM");
    assert_eq!(job.committed().progress.expect("progress").committed_through, None);

    let mut generator = job.generate(300, Some("14s"));
    let mut generation = 1;
    for (processes, workers, signal, one) in [(2, 2, "INT", Some(0)), (1, 3, "TERM", None), (3, 1, "INT", Some(2))] {
        let mut processes = job.run(processes, workers);
        let progress = job.until_more(2, &mut processes);
        generation += 1;
        assert_eq!(progress.generation, generation);
        match one {
            // Any process stops all.
            Some(one) => {
                processes[one].signal(signal);
                processes.iter_mut().for_each(|process| process.wait_for_code(0, DEADLINE));
            }
            None => stop(&mut processes, signal),
        }
    }
    let acknowledged = generated(&mut generator);
    let mut processes = job.run(2, 1);
    job.until_final(all_closed_ms(), &mut processes);
    stop(&mut processes, "TERM");
    let audit = job.audit_agrees();
    assert_eq!(audit.number("/input/counted") + audit.number("/input/late"), acknowledged, "{:#}", audit.report);
}

#[test]
fn killed_at_any_moment() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 3);
    let mut generator = job.generate(300, Some("16s"));
    // The committer first, then one of the others; the rest end by themselves.
    for (run, (kill, windows)) in [(0, 2), (1, 1), (0, 0), (0, 1)].into_iter().enumerate() {
        let mut processes = job.run(2, 2);
        match windows {
            0 => processes[0].until("it has begun", DEADLINE, |process| {
                (process.stderr().matches("the processes are together").count() > run).then_some(())
            }),
            windows => drop(job.until_more(windows, &mut processes)),
        }
        processes[kill].kill();
        processes[1 - kill].wait_for_code(PEER_LOST, DEADLINE);
        assert!(processes[1 - kill].stderr().contains("lost another process of the job"));
    }
    // The supervisor starts the job again by itself.
    let mut launch = job.launch(2, 1);
    job.until_more(1, std::slice::from_mut(&mut launch));
    let killed = launch.children();
    assert_eq!(killed.len(), 2);
    let status = Command::new("kill").args(["-s", "KILL", &killed[0].to_string()]).status().expect("kill");
    assert!(status.success());
    let acknowledged = generated(&mut generator);
    job.until_final(all_closed_ms(), std::slice::from_mut(&mut launch));
    assert!(launch.children().iter().all(|child| !killed.contains(child)));
    launch.signal("INT");
    launch.wait_for_code(0, DEADLINE);
    let audit = job.audit_agrees();
    assert_eq!(audit.number("/input/counted") + audit.number("/input/late"), acknowledged, "{:#}", audit.report);
}

/// Events of one partition at a distance of 250 ms.
fn produce(job: &Job, plain: &Plain, partition: i32, times_ms: std::ops::Range<i64>) {
    for time_ms in times_ms.step_by(250) {
        plain.send(&job.events.name, partition, Some(&body(&event(time_ms / 250 + i64::from(partition), time_ms))));
    }
    plain.flush();
}

/// How many of these events, one after the other, come too late for a partition whose clock stands so.
fn late(mut clock: PartitionClock, times_ms: impl Iterator<Item = i64>) -> i64 {
    let judge = |time_ms| clock.judge(&Job::windows(), BOUND_MS, time_ms, None) == Judgement::Late;
    times_ms.map(judge).filter(|late| *late).count() as i64
}

#[test]
fn an_idle_partition_wakes_up_with_old_events() {
    let Some(brokers) = brokers() else { return };
    let mut job = Job::new(&brokers, 3);
    job.flags.push("--set=dead_letters.late=true".to_owned());
    let plain = Plain::new(&brokers);
    let start_ms = Job::windows().tick_at_or_before(now_ms() - 3_600_000).0;
    let at = |second: i64| start_ms + second * 1_000;

    // Partition 2 never has an event. Worker 3 has no partition.
    produce(&job, &plain, 0, at(0)..at(10));
    produce(&job, &plain, 1, at(0)..at(10));
    let mut processes = job.run(2, 2);
    job.until_final(at(9), &mut processes);
    // Partition 1 goes silent; windows are closed over it.
    produce(&job, &plain, 0, at(10)..at(30));
    job.until_final(at(28), &mut processes);
    processes.iter_mut().for_each(Process::kill);

    let committed = job.committed();
    let floor_of = |partition| {
        let advances = committed.idle_advances.iter().filter(move |advance| advance.partition == partition);
        advances.map(|advance| (advance.next_offset, advance.floor_ms)).max()
    };
    let ((next_offset, floor_ms), (0, floor_of_2_ms)) = (floor_of(1).expect("a floor"), floor_of(2).expect("a floor"))
    else {
        panic!("partition 2 has never had an event: {committed:?}");
    };
    assert_eq!(next_offset, 40, "{committed:?}");
    assert!(floor_ms >= at(28) && floor_of_2_ms >= at(28), "{committed:?}");
    let through_ms = committed.progress.expect("progress").committed_through;

    // They wake up while the job is down, with old events: some too late for any window, some for most of theirs.
    produce(&job, &plain, 1, at(10)..at(32));
    produce(&job, &plain, 2, at(20)..at(33));
    produce(&job, &plain, 0, at(30)..at(40));
    let clock = |clock_ms, floor_ms| PartitionClock { clock_ms, floor_ms: Some(floor_ms) };
    let times = |from, to| (at(from)..at(to)).step_by(250);
    let expected =
        late(clock(Some(at(10) - 250), floor_ms), times(10, 32)) + late(clock(None, floor_of_2_ms), times(20, 33));
    assert!(expected > 40, "{expected}");

    // Once more over before anything new is committed, then for good, each with other workers.
    let mut processes = job.run(1, 2);
    job.until("the next start is committed", &mut processes, |committed| {
        committed.progress.as_ref().is_some_and(|progress| progress.generation == 2)
    });
    processes.iter_mut().for_each(Process::kill);
    let mut processes = job.run(3, 1);
    job.until_final(at(45), &mut processes);
    stop(&mut processes, "TERM");

    let audit = job.audit_agrees();
    assert!(Some(audit.number("/committed_through")) > through_ms);
    assert_eq!(audit.number("/input/late"), expected, "{:#}", audit.report);
    assert_eq!(audit.number("/dead_letters/actual"), expected, "{:#}", audit.report);

    // The floors are what makes it so: without them the input means something else.
    for IdleAdvance { partition, next_offset, .. } in job.committed().idle_advances {
        plain.tombstone(&job.progress.name, &format!("idle/{partition}/{next_offset}"));
    }
    plain.flush();
    assert_eq!(job.committed().idle_advances, []);
    let audit = job.audit();
    assert_eq!(audit.code, Some(DIFFERENT), "{:#}", audit.report);
}

#[test]
fn bounded_runs_finish() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 3);
    // Some hours of events in each partition, which keeps it busy for a while.
    let plain = Plain::new(&brokers);
    let start_ms = now_ms() - 14_400_000;
    (0..3).for_each(|partition| produce(&job, &plain, partition, start_ms..start_ms + 10_800_000));
    let mut generator = job.generate(200, None);
    let sent = |generator: &Process| generator.stderr().lines().filter(|line| line.contains("acknowledged")).count();
    generator.until("some seconds of events", DEADLINE, |generator| (sent(generator) >= 4).then_some(()));

    // Killed once: it ends where it was to end at its first start.
    let bounded = ["--until-end"];
    let mut process = job.process(1, 0, 2, &bounded);
    let begun = job.until("it is on its way", &mut [], |committed| {
        committed.progress.as_ref().is_some_and(|progress| progress.committed_through.is_some())
    });
    process.kill();
    assert_eq!(begun.state, JobState::Running);
    let input = begun.input;
    let mut process = job.process(1, 0, 2, &bounded);
    process.wait_for_code(0, DEADLINE);
    let progress = job.committed().progress.expect("progress");
    assert_eq!(progress.state, JobState::Finished);
    for (cut, first) in progress.input.iter().zip(&input) {
        assert_eq!(cut.until, first.until);
        assert!(cut.until.is_some_and(|until| until > 0 && cut.position >= until), "{cut:?}");
    }
    let audit = job.audit_agrees();
    let until: i64 = progress.input.iter().filter_map(|cut| cut.until).sum();
    assert_eq!(audit.number("/input/counted") + audit.number("/input/late"), until, "{:#}", audit.report);

    for (flags, why) in [(&bounded[..], "it is finished"), (&[], "it was started with --until-end")] {
        let mut process = job.process(1, 0, 2, flags);
        process.wait_for_code(REFUSED, DEADLINE);
        let stderr = process.stderr();
        assert!(stderr.lines().last().is_some_and(|line| line.contains(why)), "{stderr}");
    }
    assert!(generator.exited().is_none());
    assert_eq!(job.committed().progress, Some(progress));
}

#[test]
fn bounded_runs_finish_behind_transaction_markers() {
    let Some(brokers) = brokers() else { return };
    // Partition 0 ends with an aborted transaction, 1 with a committed one, 2 has only an aborted one, 3 has nothing.
    let job = Job::new(&brokers, 4);
    let transactions = Transactions::new(&brokers);
    let start_ms = Job::windows().tick_at_or_before(now_ms() - 60_000).0;
    let write = |partition: i32, from: i64, to: i64| {
        for number in from..to {
            let bytes = body(&event(number, start_ms + number * 100));
            job.events.produce(&transactions, partition, "key", bytes);
        }
    };
    transactions.commit(|| write(0, 0, 100));
    transactions.abort(|| (0..3).for_each(|partition| write(partition, 100, 200)));
    transactions.commit(|| write(1, 0, 150));
    transactions.abort(|| write(0, 200, 220));

    let mut processes: Vec<Process> = (0..2).map(|index| job.process(2, index, 1, &["--until-end"])).collect();
    processes.iter_mut().for_each(|process| process.wait_for_code(0, DEADLINE));
    let progress = job.committed().progress.expect("progress");
    assert_eq!(progress.state, JobState::Finished);
    // Records and markers alike are behind the position.
    let untils: Vec<_> = progress.input.iter().map(|cut| (cut.until, cut.position)).collect();
    assert_eq!(untils, [222 + 1, 250 + 2, 101, 0].map(|end| (Some(end), end)));
    let audit = job.audit_agrees();
    assert_eq!(audit.number("/input/counted"), 250, "{:#}", audit.report);
    // Of a topic without anything in it, nothing is what comes out.
    let nothing = Job::new(&brokers, 2);
    nothing.process(1, 0, 1, &["--until-end"]).wait_for_code(0, DEADLINE);
    let progress = nothing.committed().progress.expect("progress");
    assert_eq!((progress.state, progress.committed_through), (JobState::Finished, None));
    assert_eq!(nothing.audit().code, Some(0));
}

/// A dead letter as a consumer sees it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Letter {
    partition: i32,
    offset: i64,
    reason: String,
    cut_from: Option<usize>,
    payload: Vec<u8>,
}

/// The dead letters, in order of their source.
fn letters(job: &Job, expected: usize) -> Vec<Letter> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &job.brokers)
        .set("group.id", &job.name)
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(&job.dead_letters.name, 0, Offset::Beginning).expect("an offset");
    consumer.assign(&from).expect("it is assigned");
    let mut letters = Vec::new();
    loop {
        let message = match consumer.poll(DEADLINE).expect("a message or the end") {
            Ok(message) => message,
            Err(_) if letters.len() >= expected => break,
            Err(_) => continue,
        };
        let headers = message.headers().expect("headers");
        let header = |name: &str| {
            let found = headers.iter().find(|header| header.key == name).and_then(|header| header.value);
            found.map(|value| String::from_utf8(value.to_owned()).expect("a text"))
        };
        assert_eq!(header("source-topic").as_ref(), Some(&job.events.name));
        assert!(message.key().is_none());
        letters.push(Letter {
            partition: header("source-partition").expect("a header").parse().expect("a number"),
            offset: header("source-offset").expect("a header").parse().expect("a number"),
            reason: header("reason").expect("a header"),
            cut_from: header("cut-from-bytes").map(|bytes| bytes.parse().expect("a number")),
            payload: message.payload().unwrap_or_default().to_owned(),
        });
    }
    letters.sort();
    letters
}

#[test]
fn nothing_that_is_sent_stops_the_job() {
    let Some(brokers) = brokers() else { return };
    // Partition 2 has nothing but bad records.
    let job = Job::new(&brokers, 3);
    let plain = Plain::new(&brokers);
    let start_ms = Job::windows().tick_at_or_before(now_ms() - 600_000).0;
    let mut next_offsets = [0_i64; 3];
    let mut expected: Vec<Letter> = Vec::new();
    let mut noise = 1_u64;
    let mut bad = |number: i64, time_ms: i64| -> (Option<Vec<u8>>, &'static str) {
        let good = body(&event(number, time_ms));
        let with = |change: &dyn Fn(&mut clicktide::event::ClickEvent)| {
            let mut event = event(number, time_ms);
            change(&mut event);
            Some(body(&event))
        };
        match number % 13 {
            0 => {
                let mut random = || {
                    noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    (noise >> 56) as u8
                };
                // The first byte says a string of a negative length, so that chance makes no event of it.
                let bytes = std::iter::once(1).chain(std::iter::repeat_with(&mut random).take(number as usize % 97));
                (Some(bytes.collect()), "undecodable")
            }
            1 => (Some(good[..good.len() / 2].to_vec()), "undecodable"),
            2 => (None, "undecodable"),
            3 => (with(&|event| event.user_id = "u".repeat(900_000)), "too_long_user_id"),
            4 => (Some(br#"{"user_id": 5, "timestamp": "yesterday"}"#.to_vec()), "undecodable"),
            5 => (with(&|event| event.timestamp = now_ms() + 3_600_000), "future_timestamp"),
            6 => (with(&|event| event.timestamp = i64::MAX), "invalid_timestamp"),
            7 => (with(&|event| event.timestamp = -1), "invalid_timestamp"),
            8 => (with(&|event| event.page_url = "nowhere to be found".to_owned()), "invalid_page_url"),
            9 => (with(&|event| event.page_url = format!("/{}", "p".repeat(3_000))), "too_long_page_url"),
            10 => (with(&|event| event.session_id.clear()), "empty_session_id"),
            11 => (with(&|event| event.session_duration = Some(-1)), "invalid_session_duration"),
            _ => (Some([&good[..], b"more"].concat()), "undecodable"),
        }
    };
    let mut send = |from: i64, to: i64| {
        for number in from..to {
            let time_ms = start_ms + number * 100;
            let partition = (number % 2) as usize;
            plain.send(&job.events.name, partition as i32, Some(&body(&event(number, time_ms))));
            next_offsets[partition] += 1;
            if number % 3 == 0 {
                let (payload, reason) = bad(number / 3, time_ms);
                let partition = (number % 9 / 3) as usize;
                plain.send(&job.events.name, partition as i32, payload.as_deref());
                let mut payload = payload.unwrap_or_default();
                let bytes = payload.len();
                payload.truncate(900_000);
                expected.push(Letter {
                    partition: partition as i32,
                    offset: next_offsets[partition],
                    reason: reason.to_owned(),
                    cut_from: (bytes > 900_000).then_some(bytes),
                    payload,
                });
                next_offsets[partition] += 1;
            }
        }
        plain.flush();
        start_ms + to * 100
    };

    let end_ms = send(0, 150);
    let mut processes = job.run(2, 1);
    job.until_final(end_ms - 2_000, &mut processes);
    processes.iter_mut().for_each(Process::kill);
    let end_ms = send(150, 200);
    let mut processes = job.run(1, 2);
    job.until_final(end_ms - 2_000, &mut processes);
    // Partition 2 is idle, and has letters of ticks that are not committed.
    send(200, 203);
    processes[0].kill();
    let end_ms = send(203, 300);
    let mut processes = job.run(2, 2);
    job.until_final(end_ms + SIZE_MS + 1_000, &mut processes);
    let bad_at_last = send(300, 310);
    job.until_final(bad_at_last + SIZE_MS + 2_000, &mut processes);
    stop(&mut processes, "TERM");

    expected.sort();
    let actual = letters(&job, expected.len());
    let brief = |letters: &[Letter]| -> Vec<String> {
        letters.iter().map(|l| format!("{}/{} {} {:?}", l.partition, l.offset, l.reason, l.cut_from)).collect()
    };
    assert_eq!(brief(&actual), brief(&expected));
    assert!(actual == expected, "a payload is not what was sent");
    assert!(actual.iter().any(|letter| letter.cut_from.is_some()));
    let audit = job.audit_agrees();
    assert_eq!(audit.number("/input/rejected"), expected.len() as i64, "{:#}", audit.report);
}

#[test]
fn one_run_at_a_time_and_of_one_meaning() {
    let Some(brokers) = brokers() else { return };
    let mut job = Job::new(&brokers, 2);
    let mut generator = job.generate(200, Some("13s"));
    let mut first = job.run(1, 2);
    job.until_more(1, &mut first);

    // What is refused does not disturb the run that goes on.
    job.flags = vec!["--set=windows.size=7s".to_owned()];
    let mut refused = job.process(1, 0, 1, &[]);
    refused.wait_for_code(REFUSED, DEADLINE);
    let stderr = refused.stderr();
    assert!(stderr.contains("windows.size: 5s committed, 7s configured"), "{stderr}");
    job.flags.clear();
    job.until_more(2, &mut first);

    // A second run takes over from the first.
    let mut second = job.run(2, 1);
    first[0].wait_for_code(FENCED, DEADLINE);
    assert!(first[0].stderr().contains("another run of this job has taken over"));
    job.until_more(2, &mut second);
    generated(&mut generator);
    job.until_final(all_closed_ms(), &mut second);
    stop(&mut second, "INT");

    job.flags = vec!["--set=windows.size=7s".to_owned()];
    let mut refused = job.process(1, 0, 1, &[]);
    refused.wait_for_code(REFUSED, DEADLINE);
    job.flags.clear();
    job.audit_agrees();
}

#[test]
fn strangers_harm_nobody() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 2);
    let plain = Plain::new(&brokers);
    let start_ms = now_ms() - 60_000;
    produce(&job, &plain, 0, start_ms..start_ms + 10_000);
    produce(&job, &plain, 1, start_ms..start_ms + 10_000);

    let mut processes = vec![job.process(2, 0, 1, &[])];
    let connect = || support::eventually("process 0 listens", DEADLINE, || TcpStream::connect(job.address(0)).ok());
    let with = |bytes: &[u8]| {
        let mut stranger = connect();
        stranger.write_all(bytes).expect("it is sent");
        stranger
    };
    let greeting = br#"{"protocol":"clicktide/0.1.0/1","identity":""#;
    let mut strangers = vec![with(b"GET / HTTP/1.1\r\n\r\n"), with(&[0xff; 10_000]), with(greeting), with(b"{}\n")];
    // Many who say nothing at all, and one who never comes to an end.
    strangers.extend((0..20).map(|_| connect()));
    drop(connect());
    let mut chatty = connect();
    let chatter = thread::spawn(move || {
        while chatty.write_all(b"[").is_ok() {
            thread::sleep(Duration::from_millis(200));
        }
    });
    processes.push(job.process(2, 1, 1, &[]));
    job.until_final(start_ms + 8_000, &mut processes);
    stop(&mut processes, "TERM");
    drop(strangers);
    chatter.join().expect("it was let go of");
    job.audit_agrees();
}

/// Writes to three partitions of a job until told to stop: at about eight times the speed of the clock, out of order, some of
/// it late or bad, with partitions that go silent and wake up with what they held back, and with transactions, some of them
/// aborted, some open for a while. Returns the last event time.
fn write_by_chance(job: &Job, seed: u64, stop: &AtomicBool) -> i64 {
    let (plain, transactions) = (Plain::new(&job.brokers), Transactions::new(&job.brokers));
    let mut chance = Chance::new(seed);
    let mut time_ms = now_ms() - 7_200_000;
    let mut number = 0;
    let mut silent_for = [0_i64; 3];
    let mut held_back: [Vec<Vec<u8>>; 3] = Default::default();
    transactions.begin();
    while !stop.load(Ordering::Relaxed) {
        time_ms += 80 + chance.below(160);
        for partition in 0..3 {
            let silent = &mut silent_for[partition];
            *silent = if *silent == 0 && chance.one_in(100) { 60 + chance.below(120) } else { (*silent - 1).max(0) };
            for _ in 0..chance.below(4) {
                number += 1;
                let behind_ms = if chance.one_in(30) { chance.below(12_000) } else { chance.below(700) };
                let mut bytes = body(&event(number, time_ms - behind_ms));
                if chance.one_in(25) {
                    bytes.truncate(chance.below(20) as usize);
                }
                held_back[partition].push(bytes);
            }
            if *silent > 0 {
                continue;
            }
            for bytes in held_back[partition].drain(..) {
                match partition {
                    2 => job.events.produce(&transactions, 2, "key", bytes),
                    _ => plain.send(&job.events.name, partition as i32, Some(&bytes)),
                }
            }
        }
        if chance.one_in(15) {
            transactions.flush();
            if chance.one_in(4) {
                transactions.abort_open()
            } else {
                transactions.end()
            }
            transactions.begin();
        }
        thread::sleep(Duration::from_millis(20));
    }
    transactions.end();
    plain.flush();
    time_ms
}

#[test]
fn whatever_happens() {
    let Some(brokers) = brokers() else { return };
    let number = |name: &str, or| std::env::var(name).map_or(or, |value| value.parse::<u64>().expect("a number"));
    let seed = number("CLICKTIDE_TEST_SEED", now_ms() as u64);
    let rounds = number("CLICKTIDE_TEST_ROUNDS", 8);
    eprintln!("CLICKTIDE_TEST_SEED={seed}");
    let mut job = Job::new(&brokers, 3);
    job.flags.push("--set=dead_letters.late=true".to_owned());
    let done = AtomicBool::new(false);
    let last_ms = thread::scope(|scope| {
        let writer = scope.spawn(|| write_by_chance(&job, seed, &done));
        let mut chance = Chance::new(!seed);
        for _ in 0..rounds {
            let mut processes = job.run(1 + chance.below(3) as usize, 1 + chance.below(2) as usize);
            if chance.one_in(3) {
                thread::sleep(Duration::from_millis(chance.below(1_500) as u64));
            } else {
                job.until_more(1 + chance.below(30), &mut processes);
            }
            let first = chance.below(processes.len() as i64) as usize;
            if chance.one_in(3) {
                processes[first].signal("TERM");
                thread::sleep(Duration::from_millis(chance.below(400) as u64));
            } else {
                processes[first].kill();
                thread::sleep(Duration::from_millis(chance.below(200) as u64));
            }
            for process in &mut processes {
                if process.exited().is_none() {
                    process.kill();
                }
            }
        }
        done.store(true, Ordering::Relaxed);
        writer.join().expect("the writer")
    });
    let mut processes = job.run(2, 2);
    job.until_final(Job::windows().leave(last_ms).0, &mut processes);
    stop(&mut processes, "TERM");
    let audit = job.audit_agrees();
    assert!(audit.number("/input/late") > 0 && audit.number("/dead_letters/expected") > 0, "{:#}", audit.report);
}

#[test]
fn partitions_are_added_and_beginnings_chosen() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 1);
    let plain = Plain::new(&brokers);
    let start_ms = Job::windows().tick_at_or_before(now_ms() - 3_600_000).0;
    let at = |second: i64| start_ms + second * 1_000;
    produce(&job, &plain, 0, at(-60)..at(0));

    // It begins at the end of what is there, and stays with that when it is killed before any commit of a window.
    let latest = ["--from=latest"];
    let mut process = job.process(1, 0, 2, &latest);
    job.until("it is begun", std::slice::from_mut(&mut process), |committed| committed.progress.is_some());
    process.kill();
    produce(&job, &plain, 0, at(0)..at(20));
    let mut processes = vec![job.process(1, 0, 2, &latest)];
    job.until_final(at(18), &mut processes);
    stop(&mut processes, "TERM");
    let before = job.committed().progress.expect("progress");
    let through_ms = before.committed_through.expect("windows");
    assert_eq!(before.input[0].began, 240);

    // Two more partitions, one with old events, one with nothing yet.
    job.events.add_partitions(3);
    let plain = Plain::new(&brokers);
    produce(&job, &plain, 1, at(10)..at(30));
    produce(&job, &plain, 0, at(20)..at(30));
    let mut processes = job.run(2, 2);
    job.until_more(2, &mut processes);
    processes.iter_mut().for_each(Process::kill);
    produce(&job, &plain, 2, at(5)..at(36));
    produce(&job, &plain, 0, at(30)..at(40));
    let mut processes = job.run(1, 2);
    job.until_final(at(45), &mut processes);
    stop(&mut processes, "TERM");

    let audit = job.audit_agrees();
    let clock = PartitionClock { clock_ms: None, floor_ms: Some(through_ms) };
    let at_least = late(clock, (at(10)..at(30)).step_by(250));
    assert!(at_least > 0 && audit.number("/input/late") >= at_least, "{at_least}: {:#}", audit.report);
}
