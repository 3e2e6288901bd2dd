//! The generator by itself.
//!
//! What it isolates: schedule, model and encoding in memory, with no Kafka, stage by stage on one thread and together; and,
//! where there is a broker (`KAFKA_BROKERS` or `--brokers`), the generator into Kafka against what the same client can do at
//! the most: the same producer settings and topic, the same users as keys, one payload of the mean size for all events,
//! nothing to be generated, encoded or counted. In between stands the same client with a number of real payloads, since a
//! payload that is always the same compresses to almost nothing.
//!
//! Stages and variants take turns within every repetition; reported are medians, and ratios of them. In memory, figures are of
//! CPU time. Into Kafka, time runs until every event has been acknowledged.

#[path = "harness.rs"]
mod harness;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::error::Error;
use std::hint::black_box;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use clap::Parser;
use clicktide::avro;
use clicktide::config::{Config, Environment, Override};
use clicktide::event::ClickEvent;
use clicktide::generator::clock::{SystemClock, VirtualClock};
use clicktide::generator::form::Form;
use clicktide::generator::send::{Admission, Deliveries, SendEvent};
use clicktide::generator::settings::EventKey;
use clicktide::generator::traffic::Outgoing;
use clicktide::generator::{Model, Scenario, Schedule, Settings, Traffic, murmur2, run};
use clicktide::kafka::admin::{TopicSpec, create_topics};
use clicktide::kafka::client::Connection;
use clicktide::kafka::producer::{EventProducer, ProducerConfig};
use clicktide::kafka::properties::Properties;
use clicktide::millis::Millis;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use harness::{Report, ReportFiles, Spent, Table, median};

/// The generator by itself: in memory, and into Kafka against what its client can do.
#[derive(Parser)]
struct Args {
    /// Events per stage and repetition, in memory.
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Events per variant and repetition, into Kafka.
    #[arg(long, default_value_t = 1_000_000)]
    kafka_events: u64,
    /// Events per second of event time, for the stages in memory.
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// Users.
    #[arg(long, default_value_t = 1_000)]
    users: u32,
    /// Pages.
    #[arg(long, default_value_t = 100)]
    pages: u32,
    /// Partitions to hash keys to, and of the topic.
    #[arg(long, default_value_t = 6)]
    partitions: u32,
    /// Repetitions.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Brokers to produce to, in place of those in KAFKA_BROKERS; with neither, Kafka is left out.
    #[arg(long)]
    brokers: Option<String>,
    /// The topic to produce to. It is made if it is not there, and keeps events for ten minutes.
    #[arg(long, default_value = "clicktide-benchmark-generator")]
    topic: String,
    #[command(flatten)]
    files: ReportFiles,
}

/// The greatest rate that settings allow: the generator is always late, so that it never waits.
const FLAT_OUT_PER_S: f64 = 10_000_000.0;
/// Events that are there before the time is taken: enough to be unlike, few enough to stay in the cache.
const SAMPLE: usize = 1_024;
const TIMEOUT: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let settings =
        Settings { events_per_second: args.rate, users: args.users, pages: args.pages, ..Settings::default() };
    settings.validate()?;

    let mut report = Report::new("generator");
    report.setting("users, pages, partitions", format!("{}, {}, {}", args.users, args.pages, args.partitions));
    report.setting("repetitions", args.repetitions);
    report.setting("events per stage", args.events);
    report.table(in_memory(&args, &settings)?);
    match args.brokers.clone().or_else(|| std::env::var("KAFKA_BROKERS").ok()) {
        None => println!("no brokers are given, so Kafka is left out"),
        Some(brokers) => {
            report.setting("events into Kafka per variant", args.kafka_events);
            report.table(into_kafka(&args, &settings, &brokers)?);
        }
    }
    report.finish(&args.files)
}

// --- In memory ---

/// A part of the generator that is measured.
#[derive(Clone, Copy)]
enum Stage {
    Schedule,
    Model,
    Encoding,
    Partitioning,
    OneLoop,
    Messy,
    Generator,
    MessyGenerator,
}

const STAGES: [(Stage, &str); 8] = [
    (Stage::Schedule, "schedule"),
    (Stage::Model, "model"),
    (Stage::Encoding, "Avro encoding"),
    (Stage::Partitioning, "partitioning (murmur2)"),
    (Stage::OneLoop, "all four in one loop"),
    (Stage::Messy, "the same, scenario messy"),
    (Stage::Generator, "the generator, with its clock and reports"),
    (Stage::MessyGenerator, "the generator, scenario messy, on a virtual clock"),
];

fn in_memory(args: &Args, settings: &Settings) -> Result<Table, Box<dyn Error>> {
    let sample = sample(settings)?;
    let mut cpu_s_per_event: Vec<Vec<f64>> = vec![Vec::new(); STAGES.len()];
    let mut bytes_per_event: Vec<Option<f64>> = vec![None; STAGES.len()];
    for _ in 0..args.repetitions {
        for (i, (stage, _)) in STAGES.iter().enumerate() {
            let (made, spent) = measure(*stage, args, settings, &sample)?;
            cpu_s_per_event[i].push(spent.cpu.as_secs_f64() / made.events as f64);
            bytes_per_event[i] = (made.bytes > 0).then_some(made.bytes as f64 / made.events as f64);
        }
    }
    let mut table = Table::new(
        "In memory, one thread",
        &["stage"],
        &[("ns per event", 1), ("events/s", 0), ("bytes per event", 1)],
    );
    for (i, (_, name)) in STAGES.iter().enumerate() {
        let per_event_s = median(cpu_s_per_event[i].iter().copied());
        table.row([name], [Some(per_event_s * 1e9), Some(1.0 / per_event_s), bytes_per_event[i]]);
    }
    Ok(table)
}

/// What a stage has made.
struct Made {
    events: usize,
    /// Bytes of keys and values; none where it makes none.
    bytes: u64,
}

/// Runs one stage for `args.events` events, as near as whole milliseconds and what is put in or left out come to them.
fn measure(
    stage: Stage,
    args: &Args,
    settings: &Settings,
    sample: &[ClickEvent],
) -> Result<(Made, Spent), Box<dyn Error>> {
    // Of no importance but to the daily curve, which is off.
    let start_ms = 1_700_000_000_000;
    let events = args.events as usize;
    let mut model = Model::new(settings)?;
    let mut event = Model::blank_event();
    let schedule = Schedule::new(settings, start_ms);
    let messy = messy(settings, args.events)?;
    let mut traffic = Traffic::new(&messy, start_ms, args.partitions)?;
    let mut sink = MemorySink::new(settings.key, args.partitions);
    let mut made = events;
    let (outcome, spent) = Spent::by(|| -> Result<(), Box<dyn Error>> {
        match stage {
            Stage::Schedule => {
                for due_us in schedule.take(events) {
                    black_box(due_us);
                }
            }
            Stage::Model => {
                let apart_ms = 1_000.0 / settings.events_per_second;
                for i in 0..events {
                    model.write_next(start_ms + (i as f64 * apart_ms) as i64, &mut event);
                    black_box(&event);
                }
            }
            Stage::Encoding => {
                for event in sample.iter().cycle().take(events) {
                    sink.encode(event, Form::Event);
                }
            }
            Stage::Partitioning => {
                for event in sample.iter().cycle().take(events) {
                    sink.choose_partition(event);
                }
            }
            Stage::OneLoop => {
                for due_us in schedule.take(events) {
                    model.write_next(start_ms + (due_us / 1_000) as i64, &mut event);
                    let Ok(_) = sink.send(&event, Form::Event);
                }
            }
            Stage::Messy => {
                made = 0;
                while let Some(Outgoing { event, form, .. }) = traffic.next() {
                    let Ok(_) = sink.send(event, *form);
                    made += 1;
                }
            }
            Stage::MessyGenerator => {
                let clock = VirtualClock::new(start_ms);
                made = run(&messy, &clock, &AtomicBool::new(false), &mut sink, |_| ())?.sent as usize;
            }
            Stage::Generator => {
                let settings = flat_out(settings, args.events);
                let summary = run(&settings, &SystemClock::new(), &AtomicBool::new(false), &mut sink, |_| ())?;
                made = summary.sent as usize;
            }
        }
        Ok(())
    });
    outcome?;
    Ok((Made { events: made, bytes: sink.bytes }, spent))
}

/// Settings of the scenario, of about as many events at their own rate: what is late has to have the time to come.
fn messy(settings: &Settings, events: u64) -> Result<Settings, Box<dyn Error>> {
    let scenario = Override::new("--scenario", "generator.scenario", Scenario::Messy.name());
    let Settings { events_per_second, users, pages, .. } = *settings;
    let duration = Some(Millis((events as f64 * 1_000.0 / events_per_second).ceil() as i64));
    let messy = Config::load_from(None, &Environment::new(), &[scenario])?.generator;
    Ok(Settings { events_per_second, users, pages, duration, ..messy })
}

/// Settings under which a run makes `events` events as fast as it can.
fn flat_out(settings: &Settings, events: u64) -> Settings {
    let duration_ms = (events as f64 * 1_000.0 / FLAT_OUT_PER_S).ceil() as i64;
    Settings { events_per_second: FLAT_OUT_PER_S, duration: Some(Millis(duration_ms)), ..settings.clone() }
}

/// Some events of a run.
fn sample(settings: &Settings) -> Result<Vec<ClickEvent>, Box<dyn Error>> {
    let mut model = Model::new(settings)?;
    let mut event = Model::blank_event();
    let events = (0..SAMPLE).map(|i| {
        model.write_next(1_700_000_000_000 + i as i64, &mut event);
        event.clone()
    });
    Ok(events.collect())
}

/// Encodes events and chooses their partitions, as a client does, and forgets them.
struct MemorySink {
    key: EventKey,
    partitions: u32,
    payload: Vec<u8>,
    bytes: u64,
    deliveries: Deliveries,
}

impl MemorySink {
    fn new(key: EventKey, partitions: u32) -> Self {
        MemorySink { key, partitions, payload: Vec::new(), bytes: 0, deliveries: Deliveries::default() }
    }

    fn encode(&mut self, event: &ClickEvent, form: Form) -> usize {
        self.payload.clear();
        form.write_avro(event, avro::encode_event, &mut self.payload);
        let bytes = self.key.of(event).len() + black_box(&self.payload).len();
        self.bytes += bytes as u64;
        bytes
    }

    fn choose_partition(&self, event: &ClickEvent) {
        black_box(murmur2::partition(self.key.of(event).as_bytes(), self.partitions));
    }
}

impl SendEvent for MemorySink {
    type Error = Infallible;

    fn send(&mut self, event: &ClickEvent, form: Form) -> Result<Admission, Infallible> {
        let bytes = self.encode(event, form);
        self.choose_partition(event);
        Ok(Admission::Accepted { bytes })
    }

    fn partitions(&self) -> usize {
        self.partitions as usize
    }

    fn take_deliveries(&mut self) -> Deliveries {
        std::mem::take(&mut self.deliveries)
    }

    fn flush(&mut self, _timeout: Duration) -> Result<(), Infallible> {
        Ok(())
    }
}

// --- Into Kafka ---

/// What produces.
#[derive(Clone, Copy, PartialEq)]
enum Producing {
    /// The client with one payload.
    Ceiling,
    /// The client with payloads that were made before.
    MadeBefore,
    Generator,
}

const PRODUCING: [(Producing, &str); 3] = [
    (Producing::Ceiling, "client alone, one payload"),
    (Producing::MadeBefore, "client alone, payloads made before"),
    (Producing::Generator, "generator"),
];

/// What one turn has sent, and what it took until all of it was acknowledged.
struct Turn {
    events: u64,
    bytes: u64,
    spent: Spent,
}

fn into_kafka(args: &Args, settings: &Settings, brokers: &str) -> Result<Table, Box<dyn Error>> {
    let connection =
        Connection { brokers: brokers.to_owned(), properties: Properties::default(), statistics_interval: None };
    let topic = TopicSpec {
        name: args.topic.clone(),
        partitions: args.partitions as i32,
        replication_factor: 1,
        config: BTreeMap::from([("retention.ms", "600000".to_owned())]),
    };
    create_topics(&connection, &[topic], TIMEOUT)?;
    let config = ProducerConfig {
        brokers: brokers.to_owned(),
        topic: args.topic.clone(),
        key: settings.key,
        properties: BTreeMap::new(),
        statistics_interval: None,
        connect_timeout: TIMEOUT,
    };

    let records: Vec<(String, Vec<u8>)> = sample(settings)?.iter().map(|event| record(event, settings.key)).collect();
    let mean = records.iter().map(|(_, payload)| payload.len()).sum::<usize>() / records.len();
    let nearest = records.iter().map(|(_, payload)| payload).min_by_key(|payload| payload.len().abs_diff(mean));
    let one = nearest.cloned().unwrap_or_default();
    let alike: Vec<(String, Vec<u8>)> = records.iter().map(|(key, _)| (key.clone(), one.clone())).collect();

    let mut turns: Vec<Vec<Turn>> = PRODUCING.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.repetitions {
        for ((producing, _), turns) in PRODUCING.iter().zip(&mut turns) {
            turns.push(match producing {
                Producing::Ceiling => client_alone(&config, &alike, args.kafka_events)?,
                Producing::MadeBefore => client_alone(&config, &records, args.kafka_events)?,
                Producing::Generator => generator(&config, settings, args.kafka_events)?,
            });
        }
    }
    let mut table = Table::new(
        "Into Kafka, until acknowledged",
        &["what produces"],
        &[("events/s", 0), ("MB/s", 1), ("CPU-s per million events", 3), ("events/s, of the ceiling", 2)],
    );
    let per_s = |turns: &[Turn]| median(turns.iter().map(|turn| turn.events as f64 / turn.spent.wall.as_secs_f64()));
    let ceiling = per_s(&turns[0]);
    for ((_, name), turns) in PRODUCING.iter().zip(&turns) {
        let mb_per_s = median(turns.iter().map(|turn| turn.bytes as f64 / 1e6 / turn.spent.wall.as_secs_f64()));
        let cpu_s = median(turns.iter().map(|turn| turn.spent.cpu.as_secs_f64() / turn.events as f64));
        table.row([name], [per_s(turns), mb_per_s, cpu_s * 1e6, per_s(turns) / ceiling]);
    }
    Ok(table)
}

/// An event as its key and payload.
fn record(event: &ClickEvent, key: EventKey) -> (String, Vec<u8>) {
    let mut payload = Vec::new();
    avro::encode_event(event, &mut payload);
    (key.of(event).to_owned(), payload)
}

/// Sends `events` of `records` in turn, as fast as the client takes them.
fn client_alone(config: &ProducerConfig, records: &[(String, Vec<u8>)], events: u64) -> Result<Turn, Box<dyn Error>> {
    let producer: ThreadedProducer<DefaultProducerContext> =
        config.client_config().create_with_context(DefaultProducerContext)?;
    // The first record waits for the producer id, which is no part of the client's speed.
    if let Some((key, payload)) = records.first() {
        send(&producer, &config.topic, key, payload)?;
    }
    producer.flush(TIMEOUT)?;
    let mut bytes = 0;
    let (outcome, spent) = Spent::by(|| -> Result<(), KafkaError> {
        for (key, payload) in records.iter().cycle().take(events as usize) {
            send(&producer, &config.topic, key, payload)?;
            bytes += (key.len() + payload.len()) as u64;
        }
        producer.flush(TIMEOUT)
    });
    outcome?;
    Ok(Turn { events, bytes, spent })
}

/// Hands a record over, as often as it takes, with the pauses that the generator makes.
fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    key: &str,
    payload: &[u8],
) -> Result<(), KafkaError> {
    let mut record = BaseRecord::to(topic).key(key).payload(payload);
    while let Err((error, refused)) = producer.send(record) {
        if error != KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) {
            return Err(error);
        }
        std::thread::sleep(Duration::from_millis(1));
        record = refused;
    }
    Ok(())
}

/// Runs the generator flat out.
fn generator(config: &ProducerConfig, settings: &Settings, events: u64) -> Result<Turn, Box<dyn Error>> {
    let mut producer = EventProducer::connect(config.clone(), avro::encode_event)?;
    let settings = flat_out(settings, events);
    let stop = AtomicBool::new(false);
    let (summary, spent) = Spent::by(|| run(&settings, &SystemClock::new(), &stop, &mut producer, |_| ()));
    let summary = summary?;
    if summary.acknowledged != summary.sent {
        return Err(format!(
            "{} of {} events were not acknowledged",
            summary.sent - summary.acknowledged,
            summary.sent
        )
        .into());
    }
    Ok(Turn { events: summary.sent, bytes: summary.bytes, spent })
}
