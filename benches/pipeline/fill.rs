//! Topics that are full before anything is measured.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::Args;
use clicktide::avro::encode_event;
use clicktide::event::ClickEvent;
use clicktide::generator::clock::{Clock, SystemClock};
use clicktide::generator::{Model, Settings};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rdkafka::ClientConfig;
use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};

use crate::job::{Broker, Job, unique};

/// What waits in a topic that is full.
#[derive(Args, Clone)]
pub struct Backlog {
    /// Events.
    #[arg(long, default_value_t = 2_000_000)]
    pub events: u64,
    /// Events per second of event time.
    #[arg(long, default_value_t = 1_000)]
    pub event_rate: u64,
    /// Share of events that are up to 20 s older than the latest.
    #[arg(long, default_value_t = 0.05)]
    pub disorder: f64,
    /// Users of the generator.
    #[arg(long, default_value_t = 1_000)]
    pub users: u32,
    /// Pages of the generator.
    #[arg(long, default_value_t = 100)]
    pub pages: u32,
}

/// A topic that was filled.
pub struct Filled {
    pub topic: String,
    /// Where each partition ends.
    pub ends: Vec<i64>,
    pub events: u64,
    /// Of all values together.
    pub bytes: u64,
}

/// Fills a topic that is made for it with events of the generator's model, at a steady rate of event time that ends now.
/// `partition_of` is asked for the partition of every event, of which the number is told too.
pub fn fill(
    broker: &Broker,
    partitions: u32,
    backlog: &Backlog,
    mut partition_of: impl FnMut(u64, &ClickEvent) -> u32,
) -> Result<Filled, Box<dyn Error>> {
    let topic = unique("bench-events");
    // Makes the topic.
    Job::create(broker, &topic, partitions, &[])?;
    let failed = Failed::default();
    let producer: ThreadedProducer<Failed> = ClientConfig::new()
        .set("bootstrap.servers", &broker.address)
        .set("enable.idempotence", "true")
        .set("compression.codec", "snappy")
        // As many at a time as the broker takes: nobody waits for any of them.
        .set("linger.ms", "20")
        .set("queue.buffering.max.messages", "200000")
        .create_with_context(failed.clone())?;

    let Backlog { events, event_rate, disorder, users, pages } = *backlog;
    let settings = Settings { users, pages, balanced_partitions: Some(partitions), ..Settings::default() };
    let mut model = Model::new(&settings)?;
    let mut random = ChaCha8Rng::seed_from_u64(settings.seed);
    let (mut event, mut body) = (Model::blank_event(), Vec::new());
    let begin_ms = SystemClock::new().origin_ms() - (events * 1_000 / event_rate) as i64;
    let mut filled = Filled { topic, ends: vec![0; partitions as usize], events, bytes: 0 };
    for number in 0..events {
        model.write_next(begin_ms + (number * 1_000 / event_rate) as i64, &mut event);
        if random.random_bool(disorder) {
            event.timestamp -= random.random_range(0..20_000);
        }
        body.clear();
        encode_event(&event, &mut body);
        let partition = partition_of(number, &event);
        filled.bytes += body.len() as u64;
        filled.ends[partition as usize] += 1;
        loop {
            let record = BaseRecord::to(&filled.topic).partition(partition as i32).key(&event.user_id).payload(&body);
            match producer.send(record) {
                Ok(()) => break,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err((error, _)) => return Err(error.into()),
            }
        }
    }
    producer.flush(Duration::from_secs(60))?;
    match failed.0.load(Ordering::Relaxed) {
        0 => Ok(filled),
        failed => Err(format!("{failed} events were not delivered").into()),
    }
}

/// Counts the events that were not delivered.
#[derive(Clone, Default)]
struct Failed(Arc<AtomicU64>);

impl ClientContext for Failed {}

impl ProducerContext for Failed {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, _opaque: ()) {
        if result.is_err() {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
