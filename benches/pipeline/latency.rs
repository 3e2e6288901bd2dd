//! A steady load that waits for nobody, and how soon its results can be read.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clicktide::avro::{Decoder, decode_page_analytics, encode_event};
use clicktide::event::ClickEvent;
use clicktide::generator::clock::{Clock, SystemClock};
use clicktide::generator::latency::Latencies;
use clicktide::generator::settings::EventKey;
use clicktide::generator::{self, Settings, Summary};
use clicktide::kafka::producer::{EventProducer, ProducerConfig};
use clicktide::kafka::scan::{End, Scan, ScanRecord, scan};
use clicktide::millis::Millis;
use clicktide_dataflows::time::Windows;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::{Offset, TopicPartitionList};

use crate::harness::{Report, Table};
use crate::job::{Broker, Job, Shape, Taken, unique};
use crate::{Arguments, Steady};

/// How long a start, or an end, may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was seen of one rate.
struct Seen {
    rate: u32,
    /// From when an event was due to when a result that counts it could be read.
    from_creation: Latencies,
    /// From when the last of the events was due that closed a window, to when its results could be read.
    from_close: Latencies,
    /// The same from when that event was in Kafka, by the broker's clock.
    from_append: Latencies,
    sent: Summary,
    taken: Taken,
}

/// Measures all rates, one after the other, for `report`.
pub fn measure(args: &Arguments, broker: &Broker, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let Steady { size, slide, bound, warm_up, seconds, .. } = args.steady;
    report.setting("steady load", format!("windows of {size} ms every {slide} ms, bound {bound} ms"));
    report.setting("steady load, measured", format!("from {warm_up} s to {seconds} s"));
    let seen: Vec<Seen> =
        args.steady.rates.iter().map(|rate| one_rate(args, broker, *rate)).collect::<Result<_, _>>()?;
    let mut latencies = Table::new(
        "Latency under a steady load (open loop)",
        &["events/s", "from … until results can be read"],
        &[("number", 0), ("p50, ms", 1), ("p90, ms", 1), ("p99, ms", 1), ("p99.9, ms", 1), ("greatest, ms", 1)],
    );
    let mut loads = Table::new(
        "The load, and what the job took for it",
        &["events/s"],
        &[
            ("sent", 0),
            ("greatest lag behind the schedule, ms", 1),
            ("acknowledged p50, ms", 1),
            ("acknowledged p99, ms", 1),
            ("job, CPU-s", 2),
            ("job, peak MB", 0),
        ],
    );
    for Seen { rate, from_creation, from_close, from_append, sent, taken } in &seen {
        for (what, of) in [
            ("creation of an event", from_creation),
            ("creation of the last event that closed the window", from_close),
            ("that event is in Kafka", from_append),
        ] {
            let quantile = |share| of.quantile_ms(share);
            latencies.row(
                [rate.to_string().as_str(), what],
                [of.count() as f64, quantile(0.5), quantile(0.9), quantile(0.99), quantile(0.999), of.max_ms()],
            );
        }
        loads.row(
            [rate],
            [
                sent.sent as f64,
                sent.lag_ms_max,
                sent.ack_p50_ms,
                sent.ack_p99_ms,
                taken.cpu.as_secs_f64(),
                taken.peak_mb,
            ],
        );
    }
    report.table(latencies);
    report.table(loads);
    Ok(())
}

fn one_rate(args: &Arguments, broker: &Broker, rate: u32) -> Result<Seen, Box<dyn Error>> {
    eprintln!("{rate} events/s for {} s", args.steady.seconds);
    let Steady { size, slide, bound, .. } = args.steady;
    let windows = Windows::new(size, slide, 0)?;
    let events = unique("bench-events");
    let mut flags = args.job_flags();
    flags.extend([
        format!("--set=windows.size={size}ms"),
        format!("--set=windows.slide={slide}ms"),
        format!("--set=windows.disorder_bound={bound}ms"),
    ]);
    let job = Job::create(broker, &events, args.partitions, &flags)?;
    let running = job.start(Shape::new(1, 2), &[], None)?;
    std::thread::sleep(Duration::from_secs(2));

    let clock = SystemClock::new();
    let done = AtomicBool::new(false);
    let (sent, readable, began_ms) = std::thread::scope(|scope| -> Result<_, Box<dyn Error>> {
        let reading = scope.spawn(|| read_results(broker, &job.results, &clock, &done).map_err(|e| e.to_string()));
        let began_ms = now_ms(&clock);
        let sent = generate(args, broker, &events, rate, &clock);
        // The last windows stay open; those before have been read by then.
        std::thread::sleep(Duration::from_secs(2));
        done.store(true, Ordering::Relaxed);
        let readable = reading.join().map_err(|_| "the reading thread panicked")??;
        Ok((sent?, readable, began_ms))
    })?;
    let taken = running.stop(PATIENCE)?;

    let from_ms = began_ms as i64 + i64::from(args.steady.warm_up) * 1_000;
    let mut seen = Seen {
        rate,
        from_creation: Latencies::default(),
        from_close: Latencies::default(),
        from_append: Latencies::default(),
        sent,
        taken,
    };
    // Of each partition, the times of events and of their records, in order.
    let mut partitions: Vec<Vec<(i64, i64)>> = vec![Vec::new(); args.partitions as usize];
    read_events(broker, &events, |partition, due_ms, appended_ms| {
        partitions[partition as usize].push((due_ms, appended_ms));
    })?;
    for (due_ms, _) in partitions.iter().flatten() {
        let end = windows.tick(*due_ms);
        if let Some(at_ms) = readable.get(&end.0).filter(|_| end.0 >= from_ms) {
            seen.from_creation.record(ms(*at_ms - *due_ms as f64));
        }
    }
    for (end_ms, at_ms) in readable.iter().filter(|(end_ms, _)| **end_ms >= from_ms) {
        let closing = partitions
            .iter()
            .map(|events| events.get(events.partition_point(|(due_ms, _)| *due_ms < *end_ms + bound)).copied());
        // The window was closed by time that passed without events, or by the end of the load.
        let Some(closing) = closing.collect::<Option<Vec<_>>>() else { continue };
        let (due_ms, appended_ms) =
            closing.into_iter().fold((0, 0), |latest, event| (event.0.max(latest.0), event.1.max(latest.1)));
        seen.from_close.record(ms(at_ms - due_ms as f64));
        seen.from_append.record(ms(at_ms - appended_ms as f64));
    }
    match seen.from_close.count() {
        0 => Err(format!("no window was closed after {} s", args.steady.warm_up).into()),
        _ => Ok(seen),
    }
}

fn ms(ms: f64) -> Duration {
    Duration::from_secs_f64(ms.max(0.0) / 1_000.0)
}

/// The wall clock, ms since the epoch.
fn now_ms(clock: &SystemClock) -> f64 {
    clock.origin_ms() as f64 + clock.now().as_secs_f64() * 1_000.0
}

/// The generator, as `clicktide generate` runs it.
fn generate(
    args: &Arguments,
    broker: &Broker,
    topic: &str,
    rate: u32,
    clock: &SystemClock,
) -> Result<Summary, Box<dyn Error>> {
    let settings = Settings {
        events_per_second: f64::from(rate),
        duration: Some(Millis(i64::from(args.steady.seconds) * 1_000)),
        balanced_partitions: Some(args.partitions),
        ..Settings::default()
    };
    let config = ProducerConfig {
        brokers: broker.address.clone(),
        topic: topic.to_owned(),
        key: EventKey::UserId,
        properties: BTreeMap::new(),
        statistics_interval: None,
        connect_timeout: Duration::from_secs(30),
    };
    let mut producer = EventProducer::connect(config, encode_event as fn(&ClickEvent, &mut Vec<u8>))?;
    Ok(generator::run(&settings, clock, &AtomicBool::new(false), &mut producer, |_| ())?)
}

/// When the last result of each window could be read, ms since the epoch, by the window's end.
fn read_results(
    broker: &Broker,
    topic: &str,
    clock: &SystemClock,
    done: &AtomicBool,
) -> Result<BTreeMap<i64, f64>, Box<dyn Error>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &broker.address)
        .set("group.id", "bench-pipeline")
        .set("enable.auto.commit", "false")
        .set("isolation.level", "read_committed")
        .create()?;
    let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(30))?;
    let mut partitions = TopicPartitionList::new();
    for partition in metadata.topics().iter().flat_map(|topic| topic.partitions()) {
        partitions.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
    }
    consumer.assign(&partitions)?;
    let mut readable = BTreeMap::new();
    while !done.load(Ordering::Relaxed) {
        let Some(message) = consumer.poll(Duration::from_millis(50)) else { continue };
        let message = message?;
        let result = decode_page_analytics(message.payload().unwrap_or_default())?;
        readable.insert(result.window_end, now_ms(clock));
    }
    Ok(readable)
}

/// Shows `each` event: its partition, its own time and its record's, ms since the epoch.
fn read_events(broker: &Broker, topic: &str, mut each: impl FnMut(i32, i64, i64)) -> Result<(), Box<dyn Error>> {
    let (decoder, properties) = (Decoder::default(), BTreeMap::new());
    let what = Scan {
        brokers: &broker.address,
        properties: &properties,
        topic,
        end: End::LastStable,
        timeout: Duration::from_secs(30),
    };
    let mut failed = None;
    let mut show = |record: &ScanRecord<'_>| match decoder.decode(record.payload.unwrap_or_default()) {
        Ok(event) => {
            each(record.partition, event.timestamp, record.timestamp_ms.unwrap_or(event.timestamp));
            std::ops::ControlFlow::Continue(())
        }
        Err(error) => {
            failed = Some(error);
            std::ops::ControlFlow::Break(())
        }
    };
    scan(&what, &BTreeMap::new(), &mut show, &mut |_, _| ())?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}
