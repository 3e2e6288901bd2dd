//! The whole program with real processes against a real Apache Kafka that both come to grief: killed, stopped, cut off and
//! started twice. At the end of each test the audit says whether every result is there once and right.
//!
//! What happens is chosen by chance. Each test prints its seed, which `CLICKTIDE_CHAOS_SEED` brings back; the moments at
//! which things happen are only as repeatable as the machine is. Nothing here depends on how fast anything is: waits are for
//! conditions, with generous deadlines.

mod support;

use std::path::Path;
use std::thread;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use support::chance::Chance;
use support::job::{DEADLINE, Job, all_closed_ms, body, event, now_ms, stop};
use support::proxy::Network;
use support::topics::{Plain, Transactions};
use support::{Broker, Process, brokers, eventually, send_signal, test_name};

const FENCED: i32 = 11;
const PEER_LOST: i32 = 13;

fn chance() -> Chance {
    let seed =
        std::env::var("CLICKTIDE_CHAOS_SEED").map_or_else(|_| now_ms() as u64, |seed| seed.parse().expect("a number"));
    eprintln!("{}: CLICKTIDE_CHAOS_SEED={seed}", test_name());
    Chance::new(seed)
}

fn pause(chance: &mut Chance, below_ms: i64) {
    thread::sleep(Duration::from_millis(chance.below(below_ms) as u64));
}

/// How many events a generator has sent, and how many of those were acknowledged.
#[derive(Clone, Copy, Debug, Default)]
struct Generated {
    sent: i64,
    acknowledged: i64,
}

impl Generated {
    /// Ends a generator, which tells.
    fn end(mut generator: Process) -> Generated {
        generator.signal("INT");
        let status = generator.wait(DEADLINE);
        let stdout = generator.stdout();
        let summary = stdout.lines().last().unwrap_or_else(|| panic!("no summary: {status}: {}", generator.stderr()));
        let summary: serde_json::Value = serde_json::from_str(summary).expect("the summary");
        let number = |key: &str| summary[key].as_i64().expect("a number");
        let generated = Generated { sent: number("sent"), acknowledged: number("acknowledged") };
        eprintln!("{}: {generated:?}, {} failed, {} unknown", test_name(), number("failed"), number("unknown"));
        generated
    }

    fn and(self, other: Generated) -> Generated {
        Generated { sent: self.sent + other.sent, acknowledged: self.acknowledged + other.acknowledged }
    }

    /// Everything acknowledged is in the results, and nothing that was not sent. Where no event's fate is unknown, that is
    /// one number.
    fn is_audited(self, job: &Job) {
        let audit = job.audit_agrees();
        let input: i64 = ["counted", "late", "rejected"].iter().map(|of| audit.number(&format!("/input/{of}"))).sum();
        assert!((self.acknowledged..=self.sent).contains(&input), "{self:?}: {:#}", audit.report);
        eprintln!("{}: {input} events, {} results", test_name(), audit.number("/results/expected"));
    }
}

/// Whether a transaction of the job is open just now.
fn in_transaction(job: &Job) -> bool {
    let end = |isolation| {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &job.brokers).set("isolation.level", isolation);
        let consumer: BaseConsumer = config.create().expect("a consumer");
        consumer.fetch_watermarks(&job.progress.name, 0, DEADLINE).expect("the end of the progress topic").1
    };
    let all = end("read_uncommitted");
    end("read_committed") < all
}

/// Says why a supervisor had to start its job again.
fn tell_restarts(launch: &Process) {
    let stderr = launch.stderr();
    let restarts: Vec<_> = stderr.lines().filter(|line| line.contains("starting the job again")).collect();
    let reasons: Vec<_> = stderr.lines().filter(|line| line.starts_with("clicktide: ")).collect();
    eprintln!("{}: {} restarts: {reasons:#?}", test_name(), restarts.len());
}

/// How often a process says that it has come together with the others, in all of its runs.
fn togethers(process: &Process) -> usize {
    process.stderr().matches("the processes are together").count()
}

const ROUNDS: usize = 54;

#[test]
fn killed_fifty_times() {
    let Some(brokers) = brokers() else { return };
    let mut chance = chance();
    let mut job = Job::new(&brokers, 3);
    let generator = job.generate(1_000, None);
    let mut committed = Vec::new();
    for round in 0..ROUNDS {
        let (processes, workers) = [(1, 1), (2, 2), (1, 3), (3, 1), (2, 1), (1, 2)][round % 6];
        job.move_to(&format!("round-{round}-"));
        let mut processes = job.run(processes, workers);
        // Anywhere in the start, or when all are at work.
        let at_work = !chance.one_in(3);
        if at_work {
            for process in &mut processes {
                process.until("it begins", DEADLINE, |process| (togethers(process) > 0).then_some(()));
            }
        }
        pause(&mut chance, 1_500);
        let victim = chance.below(processes.len() as i64) as usize;
        if chance.one_in(4) {
            processes.iter_mut().for_each(Process::kill);
        } else {
            processes[victim].kill();
        }
        for process in &mut processes {
            // One that waits for the others at the start does so for a minute.
            if !at_work && process.exited().is_none() {
                pause(&mut chance, 100);
                process.kill();
            }
            let code = process.wait(DEADLINE).code();
            assert!(code.is_none_or(|code| code == PEER_LOST), "round {round}: {code:?}: {}", process.stderr());
        }
        committed.push(job.committed_so_far().and_then(|progress| progress.committed_through));
    }
    assert!(committed.len() >= 50 && committed.is_sorted(), "{committed:?}");
    let last = *committed.last().expect("rounds");
    committed.dedup();
    eprintln!("{} of {ROUNDS} rounds committed windows", committed.len());
    assert!(committed.len() > ROUNDS / 5, "{committed:?}");

    let generated = Generated::end(generator);
    let mut processes = job.run(2, 2);
    job.until_final(all_closed_ms(), &mut processes);
    stop(&mut processes, "TERM");
    let progress = job.committed().progress.expect("progress");
    assert!(progress.committed_through > last && progress.generation > ROUNDS as i64 / 2, "{progress:?}");
    generated.is_audited(&job);
}

/// Stops the committing process of a run in the middle of a transaction. The run has a backlog, so that its transactions
/// follow each other; one that can't be caught is stopped where it is.
fn stop_in_transaction(job: &Job, process: &mut Process, chance: &mut Chance) {
    for _ in 0..100 {
        process.signal("STOP");
        if in_transaction(job) {
            return;
        }
        process.signal("CONT");
        pause(chance, 20);
    }
    process.signal("STOP");
    eprintln!("{}: stopped, but not in a transaction", test_name());
}

/// Hours of events in every partition, up to now: a backlog that keeps a job busy for a while.
fn backlog(job: &Job, plain: &Plain, from_ms: i64, until_ms: i64) -> i64 {
    let mut sent = 0;
    for time_ms in (from_ms..until_ms).step_by(250) {
        for partition in 0..3 {
            plain.send(&job.events.name, partition, Some(&body(&event(time_ms / 250 + i64::from(partition), time_ms))));
            sent += 1;
        }
    }
    plain.flush();
    sent
}

#[test]
fn a_stopped_process() {
    let Some(brokers) = brokers() else { return };
    let mut chance = chance();
    let mut job = Job::new(&brokers, 3);
    let plain = Plain::new(&brokers);
    let begin_ms = Job::windows().tick_at_or_before(now_ms() - 7_200_000).0;
    let hour = |hour: i64| begin_ms + hour * 3_600_000;
    let mut sent = 0;
    job.move_to("first-");
    let mut zombies = job.run(1, 2);
    for (number, place, (processes, workers)) in [(0, "second-", (2, 1)), (1, "third-", (1, 2))] {
        job.until("it has begun", &mut zombies, |committed| committed.progress.is_some());
        sent += backlog(&job, &plain, hour(number), hour(number + 1) - 600_000);
        job.until_final(hour(number) + 10_000, &mut zombies);
        stop_in_transaction(&job, &mut zombies[0], &mut chance);
        let before = job.committed_so_far().expect("progress");

        // Another run takes over, and commits what the stopped one was about to, and what that one never sees, however quick it
        // was. It will itself be stopped for longer than its patience.
        sent += backlog(&job, &plain, hour(number + 1) - 600_000, hour(number + 1));
        job.flags = vec!["--set=kafka.transaction_timeout=2s".to_owned()];
        job.move_to(place);
        let mut successors = job.run(processes, workers);
        let progress = job.until_final(hour(number + 1) - 10_000, &mut successors);
        assert!(progress.generation > before.generation, "{before:?} {progress:?}");

        // The stopped one must find out by itself. Those that wait for it may have ended before.
        zombies[0].signal("CONT");
        for zombie in &mut zombies {
            let code = zombie.wait(DEADLINE).code();
            assert!(code == Some(FENCED) || code == Some(PEER_LOST), "{code:?}: {}", zombie.stderr());
        }
        let after = job.until("it goes on", &mut successors, |committed| committed.progress.is_some());
        assert_eq!(after.generation, progress.generation);
        zombies = successors;
    }
    job.until_final(all_closed_ms(), &mut zombies);
    stop(&mut zombies, "TERM");
    Generated { sent, acknowledged: sent }.is_audited(&job);
}

#[test]
fn stopped_for_longer_than_a_transaction_may_last() {
    let Some(brokers) = brokers() else { return };
    let mut chance = chance();
    let mut job = Job::new(&brokers, 3);
    job.flags.push("--set=kafka.transaction_timeout=2s".to_owned());
    let plain = Plain::new(&brokers);
    let begin_ms = Job::windows().tick_at_or_before(now_ms() - 3_600_000).0;
    let mut launch = job.launch(1, 2);
    job.until("it has begun", std::slice::from_mut(&mut launch), |committed| committed.progress.is_some());
    let sent = backlog(&job, &plain, begin_ms, begin_ms + 3_000_000);
    let before = job.until_final(begin_ms + 10_000, std::slice::from_mut(&mut launch));

    let process = launch.children()[0];
    let caught = (0..100).any(|_| {
        assert!(send_signal(process, "STOP"));
        // Looked at again, for it may have asked for the end of the transaction before it was stopped.
        let caught = in_transaction(&job) && {
            std::thread::sleep(Duration::from_millis(500));
            in_transaction(&job)
        };
        if !caught {
            assert!(send_signal(process, "CONT"));
            pause(&mut chance, 20);
        }
        caught
    });
    if caught {
        // The broker gives up on the transaction, and with it on the producer. Nobody has taken over.
        eventually("the transaction is aborted", DEADLINE, || (!in_transaction(&job)).then_some(()));
        assert!(send_signal(process, "CONT"));
    }
    job.until_final(begin_ms + 3_000_000, std::slice::from_mut(&mut launch));
    launch.signal("TERM");
    launch.wait_for_code(0, DEADLINE);
    tell_restarts(&launch);
    let after = job.committed().progress.expect("progress");
    assert_eq!(after.generation > before.generation, caught, "{before:?} {after:?}");
    Generated { sent, acknowledged: sent }.is_audited(&job);
}

#[test]
fn fenced_off_by_nobody() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 3);
    let generator = job.generate(300, None);
    let mut launch = job.launch(2, 1);
    for generation in 1..=2 {
        let progress = job.until_more(2, std::slice::from_mut(&mut launch));
        assert_eq!(progress.generation, generation);
        if generation == 1 {
            // As a run that is killed before it has begun, or the broker's patience with a transaction.
            drop(Transactions::of(&brokers, &job.name));
            job.until("it begins again", std::slice::from_mut(&mut launch), |committed| {
                committed.progress.as_ref().is_some_and(|progress| progress.generation > generation)
            });
        }
    }
    let generated = Generated::end(generator);
    job.until_final(all_closed_ms(), std::slice::from_mut(&mut launch));
    launch.signal("TERM");
    launch.wait_for_code(0, DEADLINE);
    tell_restarts(&launch);
    generated.is_audited(&job);
}

/// A broker of the test's own, in a folder below this one.
fn own_broker(dir: &Path) -> Broker {
    Broker::start(&dir.join("kafka"), &[])
}

#[test]
fn the_broker_is_killed() {
    let Some(_) = brokers() else { return };
    let mut chance = chance();
    let dir = tempfile::tempdir().expect("a folder");
    let broker = own_broker(dir.path());
    let mut job = Job::new(&broker.address, 3);
    let generator = job.generate(500, None);
    let mut launch = job.launch(2, 1);
    for round in 0..5 {
        job.until_more(2, std::slice::from_mut(&mut launch));
        pause(&mut chance, 1_000);
        match round {
            0 => broker.stop(),
            1 => broker.kill(),
            _ => {
                // What it is asked meanwhile waits. It gets on with that for some milliseconds: a transaction is begun, its
                // records come in, it is to be committed, the markers are written; anywhere there it is killed.
                broker.signal("STOP");
                thread::sleep(Duration::from_millis(1_300));
                broker.signal("CONT");
                pause(&mut chance, 25);
                broker.signal("KILL");
                broker.kill();
            }
        }
        pause(&mut chance, 2_000);
        broker.start_again();
        if chance.one_in(3) {
            // A supervisor whose pauses have not grown.
            job.until_more(1, std::slice::from_mut(&mut launch));
            launch.signal("TERM");
            launch.wait_for_code(0, DEADLINE);
            tell_restarts(&launch);
            job.move_to(&format!("after-{round}-"));
            launch = job.launch(1, 2);
        }
    }
    job.until_more(2, std::slice::from_mut(&mut launch));
    let generated = Generated::end(generator);
    job.until_final(all_closed_ms(), std::slice::from_mut(&mut launch));
    launch.signal("TERM");
    launch.wait_for_code(0, DEADLINE);
    tell_restarts(&launch);
    generated.is_audited(&job);
}

#[test]
fn the_network_is_cut() {
    let Some(_) = brokers() else { return };
    let mut chance = chance();
    let dir = tempfile::tempdir().expect("a folder");
    // Two ways to the broker: the generator, the audit and this test take the direct one, the job that by the proxy.
    let (broker, network, by_proxy) = Broker::start_behind_proxy(&dir.path().join("kafka"));
    let mut job = Job::new(&broker.address, 3);
    job.job_brokers = by_proxy;
    job.flags.push("--set=kafka.transaction_timeout=4s".to_owned());
    let generator = job.generate(500, None);
    let mut launch = job.launch(2, 1);
    for round in 0..9 {
        job.until_more(1, std::slice::from_mut(&mut launch));
        if round % 3 == 2 {
            // A supervisor whose pauses have not grown.
            launch.signal("TERM");
            launch.wait_for_code(0, DEADLINE);
            tell_restarts(&launch);
            job.move_to(&format!("after-{round}-"));
            launch = job.launch([1, 2][round % 2], 2);
            job.until_more(1, std::slice::from_mut(&mut launch));
        }
        pause(&mut chance, 1_000);
        if round == 3 || chance.one_in(2) {
            // The next transaction waits to be begun; it gets on for some milliseconds.
            network.set(Network::Stalls);
            thread::sleep(Duration::from_millis(1_200));
            network.set(Network::Passes);
            pause(&mut chance, 40);
        }
        let fault = [Network::LosesAnswers, Network::Cut, Network::Stalls][round % 3];
        // Shorter than the patience of everybody, or longer. The first long one loses the answers.
        let long = round == 3 || chance.one_in(4);
        let lasts_ms = if long { 5_000 + chance.below(3_000) } else { chance.below(2_000) };
        let reset = chance.one_in(2);
        eprintln!("{}: {fault:?} for {lasts_ms} ms, connections closed after that: {reset}", test_name());
        network.set(fault);
        thread::sleep(Duration::from_millis(lasts_ms as u64));
        if reset {
            network.reset();
        }
        network.set(Network::Passes);
    }
    job.until_more(2, std::slice::from_mut(&mut launch));
    let generated = Generated::end(generator);
    job.until_final(all_closed_ms(), std::slice::from_mut(&mut launch));
    launch.signal("TERM");
    launch.wait_for_code(0, DEADLINE);
    tell_restarts(&launch);
    assert_eq!(generated.sent, generated.acknowledged);
    generated.is_audited(&job);
}

#[test]
fn two_at_once_again() {
    let Some(brokers) = brokers() else { return };
    let mut chance = chance();
    let mut job = Job::new(&brokers, 3);
    let generator = job.generate(300, None);
    let mut launches: Vec<Process> = Vec::new();
    for round in 0..4 {
        // Somebody starts it once more, in another place, or twice at the same time.
        while launches.len() < 2 {
            job.move_to(&format!("place-{round}-{}-", launches.len()));
            launches.push(job.launch(1 + chance.below(2) as usize, 1));
        }
        // One that has lost a process takes over again, unless it is already fenced off.
        pause(&mut chance, 2_000);
        let victim = chance.below(2) as usize;
        if let Some(process) = launches[victim].children().first() {
            send_signal(*process, "KILL");
        }
        eventually("one gives up", DEADLINE, || {
            launches.iter_mut().any(|launch| launch.exited().is_some()).then_some(())
        });
        launches.retain_mut(|launch| {
            let ended = launch.exited();
            assert!(ended.is_none_or(|status| status.code() == Some(FENCED)), "{ended:?}: {}", launch.stderr());
            ended.is_none()
        });
        assert_eq!(launches.len(), 1, "the other goes on");
        job.until_more(1, &mut launches);
    }
    let generated = Generated::end(generator);
    job.until_final(all_closed_ms(), &mut launches);
    stop(&mut launches, "TERM");
    generated.is_audited(&job);
}

#[test]
fn a_whole_life() {
    let Some(brokers) = brokers() else { return };
    let job = Job::new(&brokers, 3);
    let mut generated = Generated::default();
    let mut generator = Some(job.generate(300, None));
    // With all partitions idle the watermark goes on by the wall clock, through kills and stops.
    for (processes, workers, busy, orderly) in
        [(1, 1, true, true), (2, 2, true, false), (1, 3, false, false), (2, 1, false, true), (3, 1, true, false)]
    {
        match (busy, generator.take()) {
            (true, None) => generator = Some(job.generate(300, None)),
            (false, Some(ended)) => generated = generated.and(Generated::end(ended)),
            (_, same) => generator = same,
        }
        let mut running = job.run(processes, workers);
        if !busy {
            job.until_final(all_closed_ms(), &mut running);
        }
        job.until_more(2, &mut running);
        if orderly {
            stop(&mut running, "TERM");
        } else {
            running.iter_mut().for_each(Process::kill);
        }
    }
    generated = generated.and(Generated::end(generator.expect("it was busy at last")));
    let mut processes = job.run(1, 2);
    job.until_final(all_closed_ms(), &mut processes);
    stop(&mut processes, "INT");
    assert!(!job.committed().idle_advances.is_empty());
    generated.is_audited(&job);
}
