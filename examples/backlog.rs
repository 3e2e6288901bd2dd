//! Fills a topic with a backlog: the generator's events as they would have come in until now, sent as fast as they can be.
//!
//! `cargo run --release --example backlog -- --brokers 127.0.0.1:9092 --topic clickstream-events --events 2000000`. The topic
//! must be there. Each partition is in the order of event time, so nothing in it is late, whoever judges.

use std::error::Error;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use clicktide::avro;
use clicktide::generator::form::Form;
use clicktide::generator::send::{Admission, SendEvent};
use clicktide::generator::settings::{EventKey, Settings};
use clicktide::generator::{Model, Schedule};
use clicktide::kafka::producer::{EventProducer, ProducerConfig};

/// How long to wait at the end for the events on their way.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(60);

/// Fills a topic with events whose times end now, as fast as they can be sent.
#[derive(Parser)]
struct Arguments {
    /// The brokers to begin with.
    #[arg(long, value_name = "HOST:PORT,…")]
    brokers: String,
    /// The topic of the events.
    #[arg(long)]
    topic: String,
    /// Events to send.
    #[arg(long, default_value_t = 2_000_000)]
    events: u64,
    /// Events per second of event time.
    #[arg(long, default_value_t = 1_000.0)]
    rate: f64,
    /// Pages.
    #[arg(long, default_value_t = 100)]
    pages: u32,
    /// Users.
    #[arg(long, default_value_t = 1_000)]
    users: u32,
    /// Seed of all randomness.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { brokers, topic, events, rate, pages, users, seed } = Arguments::parse();
    let producer = ProducerConfig {
        brokers,
        topic,
        key: EventKey::UserId,
        properties: Default::default(),
        statistics_interval: None,
        connect_timeout: Duration::from_secs(10),
    };
    let mut sink = EventProducer::connect(producer, avro::encode_event as fn(&_, &mut Vec<u8>))?;
    let settings = Settings {
        seed,
        users,
        pages,
        events_per_second: rate,
        balanced_partitions: u32::try_from(sink.partitions()).ok(),
        ..Settings::default()
    };
    let mut model = Model::new(&settings)?;
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as i64;
    let start_ms = now_ms - (events as f64 / rate * 1_000.0) as i64;
    let mut event = Model::blank_event();
    for due_us in Schedule::new(&settings, start_ms).take(events as usize) {
        model.write_next(start_ms + (due_us / 1_000) as i64, &mut event);
        while let Admission::QueueFull = sink.send(&event, Form::Event)? {
            sleep(Duration::from_millis(1));
        }
    }
    sink.flush(FLUSH_TIMEOUT)?;
    let deliveries = sink.take_deliveries();
    if deliveries.acknowledged != events {
        let why = deliveries.latest_error.unwrap_or_else(|| "the rest was not acknowledged in time".to_owned());
        return Err(format!("{} of {events} events were acknowledged: {why}", deliveries.acknowledged).into());
    }
    println!("{events} events, by partition {:?}", deliveries.by_partition);
    Ok(())
}
