//! A topic that is full, read as fast as possible.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::hash::BuildHasher;
use std::ops::ControlFlow;
use std::process::Command;
use std::time::Duration;

use clicktide::avro::Decoder;
use clicktide::generator::murmur2;
use clicktide::kafka::client::Connection;
use clicktide::kafka::properties::Properties;
use clicktide::kafka::scan::{End, Scan, ScanRecord, scan};
use clicktide::kafka::source::KafkaPartitions;
use clicktide::pipeline::{OpenPartitions, Waker, monotonic_clock};
use clicktide::progress::JobStart;
use foldhash::fast::FixedState;

use crate::Arguments;
use crate::fill::{Filled, fill};
use crate::harness::{Report, Table, median, median_s};
use crate::job::{Broker, Job, Running, Shape, Taken};

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(600);

/// Runs of one variant.
#[derive(Default)]
struct Runs {
    taken: Vec<Taken>,
    /// CPU time of the broker.
    broker: Vec<Duration>,
}

impl Runs {
    /// Adds a run; `read` is what it does.
    fn add<T>(
        &mut self,
        broker: &Broker,
        read: impl FnOnce() -> Result<(Taken, T), Box<dyn Error>>,
    ) -> Result<T, Box<dyn Error>> {
        let before = broker.cpu();
        let (taken, value) = read()?;
        self.taken.push(taken);
        self.broker.extend(broker.cpu().zip(before).map(|(now, before)| now - before));
        Ok(value)
    }

    fn median_s(&self, of: fn(&Taken) -> Duration) -> f64 {
        median_s(self.taken.iter().map(of))
    }
}

/// Measures all variants, which take turns, for `report`.
pub fn measure(args: &Arguments, broker: &Broker, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let full = fill_by_user(args, broker)?;
    report.setting("backlog", format!("{} events, {} bytes each", full.events, full.bytes / full.events.max(1)));

    let mut bare = Runs::default();
    let mut jobs: Vec<Runs> = args.shapes.iter().map(|_| Runs::default()).collect();
    let mut expected = None;
    for repetition in 0..args.repetitions {
        eprintln!("repetition {} of {}", repetition + 1, args.repetitions);
        bare.add(broker, || Ok((run_bare(broker, &full)?, ())))?;
        for (shape, runs) in args.shapes.iter().zip(&mut jobs) {
            let job = runs.add(broker, || run(args, broker, &full, *shape, None))?;
            let results = results(broker, &job)?;
            match &expected {
                None => {
                    report.setting("results", results.0);
                    let audit = job.audit()?;
                    report.setting("audit", audit.lines().last().unwrap_or_default());
                    expected = Some(results);
                }
                Some(expected) if *expected == results => {}
                Some(_) => return Err(format!("{}: other results than the first run's", shape.name()).into()),
            }
        }
    }

    let mut table = Table::new(
        "Kafka → Kafka: a topic that is full, read as fast as possible",
        &["variant"],
        &[
            ("events/s", 0),
            ("MB/s", 1),
            ("CPU-s per million events", 3),
            ("to the bare consumer, by CPU", 2),
            ("by wall", 2),
            ("peak MB", 0),
            ("broker, CPU-s per million events", 3),
            ("start, s", 2),
            ("start, CPU-s", 2),
        ],
    );
    let million = full.events as f64 / 1e6;
    let (bare_wall, bare_cpu) = (bare.median_s(|taken| taken.wall), bare.median_s(|taken| taken.cpu));
    let names = std::iter::once("bare consumer".to_owned()).chain(args.shapes.iter().map(|shape| shape.name()));
    for (name, runs) in names.zip(std::iter::once(&bare).chain(&jobs)) {
        let (wall, cpu) = (runs.median_s(|taken| taken.wall), runs.median_s(|taken| taken.cpu));
        let known = !runs.broker.is_empty();
        table.row(
            [name],
            [
                Some(full.events as f64 / wall),
                Some(full.bytes as f64 / 1e6 / wall),
                Some(cpu / million),
                Some(bare_cpu / cpu),
                Some(bare_wall / wall),
                Some(median(runs.taken.iter().map(|taken| taken.peak_mb))),
                known.then(|| median_s(runs.broker.iter().copied()) / million),
                Some(runs.median_s(|taken| taken.start)),
                Some(runs.median_s(|taken| taken.start_cpu)),
            ],
        );
    }
    report.table(table);
    Ok(())
}

/// Runs the job once, in the first of the shapes, under another command.
pub fn run_under(args: &Arguments, broker: &Broker, under: &str) -> Result<(), Box<dyn Error>> {
    let full = fill_by_user(args, broker)?;
    let shape = args.shapes.first().copied().unwrap_or(Shape::new(1, 1));
    let (taken, _) = run(args, broker, &full, shape, Some(under))?;
    println!(
        "events: {}\nwall, s: {:.3}\nCPU, s: {:.3}",
        full.events,
        taken.wall.as_secs_f64(),
        taken.cpu.as_secs_f64()
    );
    Ok(())
}

/// A topic with the events of the generator's model, in the partitions of their users.
fn fill_by_user(args: &Arguments, broker: &Broker) -> Result<Filled, Box<dyn Error>> {
    fill(broker, args.partitions, &args.backlog, |_, event| {
        murmur2::partition(event.user_id.as_bytes(), args.partitions)
    })
}

/// Runs the bare consumer, as a process of its own.
fn run_bare(broker: &Broker, filled: &Filled) -> Result<Taken, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--brokers", &broker.address, "--bare", &filled.topic]);
    command.args(filled.ends.iter().map(i64::to_string));
    Running::alone(command)?.wait(PATIENCE)
}

/// The bare consumer: reads the topic to the ends of its partitions on this thread, decodes every event and counts it by page
/// and type.
pub fn read_bare(brokers: &str, topic_and_ends: &[String]) -> Result<(), Box<dyn Error>> {
    let [topic, ends @ ..] = topic_and_ends else { return Err("which topic?".into()) };
    let ends: Vec<i64> = ends.iter().map(|end| end.parse()).collect::<Result<_, _>>()?;
    let connection =
        Connection { brokers: brokers.to_owned(), properties: Properties::default(), statistics_interval: None };
    let partitions = KafkaPartitions::new(connection, topic.clone(), monotonic_clock())?;
    let start = JobStart::fresh(ends.len() as i32);
    let mut readers = partitions.open(0, &start, &start.input, Waker::default())?;
    let decoder = Decoder::default();
    let mut pages: HashMap<Box<str>, [u64; 5], FixedState> = HashMap::with_hasher(FixedState::default());
    let mut undecodable = 0;
    while readers.iter().zip(&ends).any(|(partition, end)| partition.reader.position() < *end) {
        let mut read = 0;
        for partition in &mut readers {
            partition.reader.read(2_048, &mut |record| {
                read += 1;
                match decoder.decode(record.payload) {
                    Ok(event) => {
                        let counts = match pages.get_mut(&*event.page_url) {
                            Some(counts) => counts,
                            None => pages.entry(event.page_url.into()).or_default(),
                        };
                        counts[event.event_type as usize] += 1;
                    }
                    Err(_) => undecodable += 1,
                }
            })?;
        }
        if read == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let (events, expected): (u64, i64) = (pages.values().flatten().sum(), ends.iter().sum());
    match (events as i64, undecodable) == (expected, 0) {
        true => Ok(()),
        false => Err(format!("{events} events and {undecodable} that can't be decoded, not {expected}").into()),
    }
}

/// Runs a job of its own over a whole topic.
fn run(
    args: &Arguments,
    broker: &Broker,
    filled: &Filled,
    shape: Shape,
    under: Option<&str>,
) -> Result<(Taken, Job), Box<dyn Error>> {
    let job = Job::create(broker, &filled.topic, args.partitions, &args.job_flags())?;
    let taken = job.start(shape, &["--until-end"], under)?.wait(PATIENCE)?;
    Ok((taken, job))
}

/// How many results a job has published, and a sum over all of them that does not depend on their order.
fn results(broker: &Broker, job: &Job) -> Result<(u64, u64), Box<dyn Error>> {
    let (hash, properties) = (FixedState::default(), BTreeMap::new());
    let what = Scan {
        brokers: &broker.address,
        properties: &properties,
        topic: &job.results,
        end: End::HighWatermark { wait: Duration::from_secs(30) },
        timeout: Duration::from_secs(30),
    };
    let (mut count, mut sum) = (0, 0u64);
    let mut each = |record: &ScanRecord<'_>| {
        count += 1;
        sum = sum.wrapping_add(hash.hash_one((record.key, record.payload)));
        ControlFlow::Continue(())
    };
    scan(&what, &BTreeMap::new(), &mut each, &mut |_, _| ())?;
    Ok((count, sum))
}
