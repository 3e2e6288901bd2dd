//! A topic that is full and uneven: how much memory it takes to read it, and how far its partitions are apart meanwhile.
//!
//! Half of the events are in the first partition. The last has none of the first three quarters of event time, so that its
//! first event is far ahead of all others. The rest is even.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use clicktide::generator::clock::{Clock, SystemClock};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Arguments;
use crate::fill::fill;
use crate::harness::{Report, Table};
use crate::job::{Broker, Job, Running};

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(1_800);
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// The default of windows.slide.
const SLIDE_S: f64 = 10.0;
/// Rows of the table of samples.
const SAMPLES_SHOWN: usize = 12;

/// What is seen of the job at one moment.
struct Sample {
    elapsed: Duration,
    resident_mb: f64,
    read: f64,
    /// How far the partitions are apart, in slides; but for the last as long as it has to wait for the others.
    apart: f64,
    /// How much of the last partition has been read.
    last_read: f64,
}

/// Fills a topic, reads it with the first of the shapes, and tells what was seen.
pub fn measure(args: &Arguments, broker: &Broker, report: &mut Report) -> Result<(), Box<dyn Error>> {
    if args.partitions < 3 {
        return Err("--partitions: an uneven topic has at least 3".into());
    }
    let (shape, last) = (args.shapes[0], args.partitions - 1);
    let events = args.backlog.events;
    let mut random = ChaCha8Rng::seed_from_u64(1);
    eprintln!("filling");
    let began = Instant::now();
    let filled = fill(broker, args.partitions, &args.backlog, |number, _| match random.random_range(0..2) {
        0 => 0,
        _ if number < events / 4 * 3 => random.random_range(1..last),
        _ => random.random_range(1..=last),
    })?;
    let last_begins_s =
        (SystemClock::new().origin_ms() - (events / 4 * 1_000 / args.backlog.event_rate) as i64) / 1_000;
    report.setting("uneven backlog, filled in, s", began.elapsed().as_secs());
    report.setting("uneven backlog, events by partition", format!("{:?}", filled.ends));
    report.setting("uneven backlog, read by", shape.name());

    eprintln!("reading");
    let flags =
        [format!("--set=checkpoints.interval={}", args.checkpoints), "--set=topics.events_retention=24h".to_owned()];
    let job = Job::create(broker, &filled.topic, args.partitions, &flags)?;
    let samples = RefCell::new(Vec::new());
    let taken = job.start(shape, &["--until-end"], None)?.wait_watching(PATIENCE, LOOK_EVERY, |running| {
        samples.borrow_mut().extend(look(running, &filled.ends, last_begins_s as f64));
        Ok(())
    })?;
    // The audit of a large backlog takes longer than its reading, by far.
    eprintln!("read in {:.1} s with {:.0} MB at the peak; auditing", taken.wall.as_secs_f64(), taken.peak_mb);
    let audit = job.audit()?;
    report.setting("uneven backlog, audit", audit.lines().last().unwrap_or_default());

    let samples = samples.into_inner();
    let mut over_time = Table::new(
        "An uneven backlog while it is read",
        &["s"],
        &[
            ("events read", 0),
            ("resident MB", 0),
            ("partitions apart, slides", 1),
            ("read of the partition that begins late", 0),
        ],
    );
    for sample in samples.iter().step_by(samples.len().div_ceil(SAMPLES_SHOWN).max(1)) {
        let Sample { elapsed, resident_mb, read, apart, last_read } = sample;
        over_time.row([format!("{:.0}", elapsed.as_secs_f64())], [*read, *resident_mb, *apart, *last_read]);
    }
    report.table(over_time);
    let mut whole = Table::new(
        "An uneven backlog",
        &["job"],
        &[
            ("events", 0),
            ("events/s", 0),
            ("CPU-s per million events", 3),
            ("peak MB", 0),
            ("apart at most, slides", 1),
        ],
    );
    let apart = samples.iter().map(|sample| sample.apart).fold(0.0, f64::max);
    let (events, million) = (events as f64, events as f64 / 1e6);
    let (wall_s, cpu_s) = (taken.wall.as_secs_f64(), taken.cpu.as_secs_f64());
    whole.row([shape], [events, events / wall_s, cpu_s / million, taken.peak_mb, apart]);
    report.table(whole);
    match args.peak_mb_max {
        Some(max) if taken.peak_mb > max => Err(format!("{:.0} MB at the peak, above {max:.0}", taken.peak_mb).into()),
        _ => Ok(()),
    }
}

/// Looks at the job; nothing if it does not say how its partitions stand.
fn look(running: &Running, ends: &[i64], last_begins_s: f64) -> Option<Sample> {
    let (mut watermarks_s, mut lags) = (BTreeMap::new(), BTreeMap::new());
    for line in running.metrics() {
        let by_partition = |name: &str| -> Option<(usize, f64)> {
            let (partition, value) = line.strip_prefix(name)?.strip_prefix("{partition=\"")?.split_once("\"} ")?;
            Some((partition.parse().ok()?, value.parse().ok()?))
        };
        watermarks_s.extend(by_partition("clicktide_watermark_timestamp_seconds"));
        lags.extend(by_partition("clicktide_consumer_lag_records"));
    }
    let last = ends.len() - 1;
    let read_of = |(partition, lag): (&usize, &f64)| (ends[*partition] as f64 - lag).max(0.0);
    let others = watermarks_s.iter().filter(|(partition, _)| **partition != last).map(|(_, watermark_s)| *watermark_s);
    let least_s = others.clone().fold(f64::INFINITY, f64::min);
    let mut greatest_s = others.fold(f64::NEG_INFINITY, f64::max);
    if least_s >= last_begins_s {
        greatest_s = watermarks_s.get(&last).copied().unwrap_or(greatest_s).max(greatest_s);
    }
    (lags.len() == ends.len() && least_s.is_finite()).then(|| Sample {
        elapsed: running.elapsed(),
        resident_mb: running.resident_mb(),
        read: lags.iter().map(read_of).sum(),
        apart: (greatest_s - least_s) / SLIDE_S,
        last_read: lags.get_key_value(&last).map_or(0.0, read_of),
    })
}
