//! The dataflow beside a hand-written program that computes the same.
//!
//! What it isolates: events that are decoded, hashed and judged already, in memory → results in memory. No Kafka, no Avro,
//! no JSON, no URLs but those of the results. Dataflow and program read the same log in the same order, are told at the
//! same places that windows have closed, and must give the same results in every field before anything is reported.
//!
//! The variants take turns within every repetition, so that a noisy neighbour disturbs all alike; reported are medians,
//! and ratios of them. CPU seconds are those of the whole process, all threads. COST is how many workers it takes to beat the
//! hand-written program by wall time (McSherry, Isard and Murray, "Scalability! But at what COST?", 2015).

#[path = "baseline.rs"]
mod baseline;
#[path = "drive.rs"]
mod drive;
#[path = "harness.rs"]
mod harness;
#[path = "load.rs"]
mod load;
#[path = "memory.rs"]
mod memory;

use std::collections::HashMap;
use std::error::Error;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::Parser;
use clicktide::dataflow_metrics::DataflowMetrics;
use clicktide_dataflows::event::PageAnalytics;
use clicktide_dataflows::time::Tick;
use timely::logging::{StartStop, TimelyEvent, TimelyEventBuilder};
use timely::worker::Worker;

use drive::{Metrics, run_dataflow};
use harness::{Report, ReportFiles, Spent, Table, median_s};
use load::{Load, Log};
use memory::CountingAllocator;

/// The dataflow beside a hand-written, single-threaded program: events in memory → results in memory.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    load: Load,
    /// Numbers of workers to run the dataflow with.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 2, 4])]
    workers: Vec<usize>,
    /// Repetitions.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// Activities per message.
    #[arg(long, default_value_t = 2_048)]
    batch: usize,
    /// Prints where the time goes, operator by operator, at the first number of workers.
    #[arg(long)]
    profile: bool,
    /// Also runs the dataflow with what `/metrics` tells of timely and differential, to see what that costs.
    #[arg(long)]
    observed: bool,
    #[command(flatten)]
    files: ReportFiles,
}

impl Metrics {
    /// What they are called in reports.
    fn name(self) -> &'static str {
        match self {
            Metrics::All => "all metrics",
            Metrics::CountersAndUniques => "counters + uniques",
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, PartialEq)]
struct Variant {
    metrics: Metrics,
    /// Of the dataflow; the hand-written program, if none.
    workers: Option<usize>,
    /// Whether what timely and differential say of themselves is added up.
    observed: bool,
}

impl Variant {
    fn name(self) -> String {
        let metrics = self.metrics.name();
        match self.workers {
            None => format!("hand-written, {metrics}"),
            Some(workers) if self.observed => format!("dataflow, {metrics}, {workers} worker(s), observed"),
            Some(workers) => format!("dataflow, {metrics}, {workers} worker(s)"),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let windows = args.load.windows()?;
    let (log, names) = args.load.generate(&windows)?;
    let names = Arc::new(names);
    let events = log.activities.len();

    let of_metrics = |metrics| {
        let observed = if args.observed { &[false, true][..] } else { &[false] };
        let dataflow =
            args.workers.iter().flat_map(|workers| observed.iter().map(|observed| (Some(*workers), *observed)));
        let variant = move |(workers, observed)| Variant { metrics, workers, observed };
        std::iter::once((None, false)).chain(dataflow).map(variant)
    };
    let variants: Vec<Variant> = of_metrics(Metrics::All).chain(of_metrics(Metrics::CountersAndUniques)).collect();
    let split: HashMap<usize, Arc<Vec<Log>>> =
        args.workers.iter().map(|workers| (*workers, Arc::new(split(&log, *workers)))).collect();
    let observe = |worker: &Worker| _ = DataflowMetrics::of(worker);
    let run = |Variant { metrics, workers, observed }| match (metrics, workers) {
        (Metrics::All, None) => baseline::all_metrics(&log, &names, windows),
        (Metrics::CountersAndUniques, None) => baseline::counters_and_uniques(&log, &names, windows),
        (_, Some(workers)) => {
            let prepare = move |worker: &Worker| {
                if observed {
                    observe(worker)
                }
            };
            run_dataflow(metrics, &split[&workers], &names, windows, args.batch, prepare)
        }
    };

    // The first run of each is for its results and its memory, not for its time.
    let mut expected = run(variants[0]);
    order(&mut expected);
    let mut peaks_mb = Vec::new();
    for variant in &variants {
        let (mut actual, peak_mb) = CountingAllocator::peak_mb(|| run(*variant));
        peaks_mb.push(peak_mb);
        order(&mut actual);
        check(*variant, &actual, &expected)?;
    }

    let mut runs: Vec<Vec<Spent>> = vec![Vec::new(); variants.len()];
    for _ in 0..args.repetitions {
        for (variant, runs) in variants.iter().zip(&mut runs) {
            let (results, spent) = Spent::by(|| run(*variant));
            runs.push(spent);
            drop(results);
        }
    }

    // CPU and wall time, s.
    let medians: Vec<(f64, f64)> = runs
        .iter()
        .map(|runs| (median_s(runs.iter().map(|spent| spent.cpu)), median_s(runs.iter().map(|spent| spent.wall))))
        .collect();
    let mut report = Report::new("dataflow");
    report.setting("load", &args.load);
    report.setting("events that count", events);
    report.setting("results", expected.len());
    report.setting("repetitions", args.repetitions);
    let mut table = Table::new(
        "Events in memory → results in memory; ratios to the hand-written program with the same metrics",
        &["variant"],
        &[("CPU-s per million events", 3), ("events/s", 0), ("by CPU", 2), ("by wall", 2), ("peak MB", 0)],
    );
    for ((variant, (cpu_s, wall_s)), peak_mb) in variants.iter().zip(&medians).zip(&peaks_mb) {
        let by_hand = variants
            .iter()
            .zip(&medians)
            .find(|(other, _)| **other == Variant { workers: None, observed: false, ..*variant });
        let (by_hand_cpu_s, by_hand_wall_s) = by_hand.map_or((f64::NAN, f64::NAN), |(_, medians)| *medians);
        let figures = [
            cpu_s / events as f64 * 1e6,
            events as f64 / wall_s,
            by_hand_cpu_s / cpu_s,
            by_hand_wall_s / wall_s,
            *peak_mb,
        ];
        table.row([variant.name()], figures);
    }
    report.table(table);
    for metrics in [Metrics::All, Metrics::CountersAndUniques] {
        let measured = || variants.iter().zip(&medians).filter(|(variant, _)| variant.metrics == metrics);
        let by_hand_s = measured().find(|(variant, _)| variant.workers.is_none()).map(|(_, (_, wall_s))| *wall_s);
        let faster = measured().filter(|(_, (_, wall_s))| Some(*wall_s) < by_hand_s);
        let least = faster.filter_map(|(variant, _)| variant.workers).min();
        let cost = least.map_or("none of those measured".to_owned(), |workers| format!("{workers} worker(s)"));
        report.setting(&format!("COST, {}", metrics.name()), cost);
    }
    if let Some(workers) = args.workers.first().filter(|_| args.profile) {
        let profile = Arc::new(Mutex::new(Profile::new()));
        let recorded = Arc::clone(&profile);
        let record = move |worker: &Worker| record_profile(worker, Arc::clone(&recorded));
        drop(run_dataflow(Metrics::All, &split[workers], &names, windows, args.batch, record));
        report.table(profile_table(&profile.lock().expect("no worker fails"), events));
    }
    report.finish(&args.files)
}

fn order(results: &mut [PageAnalytics]) {
    results.sort_by(|a, b| (a.window_end, &a.page_url).cmp(&(b.window_end, &b.page_url)));
}

/// Whether results agree, in every field that the variant computes.
fn check(variant: Variant, actual: &[PageAnalytics], expected: &[PageAnalytics]) -> Result<(), String> {
    if actual.len() != expected.len() {
        return Err(format!("{}: {} results, not {}", variant.name(), actual.len(), expected.len()));
    }
    for (actual, expected) in actual.iter().zip(expected) {
        let mut expected = expected.clone();
        let mut actual = actual.clone();
        if variant.metrics == Metrics::CountersAndUniques {
            for result in [&mut actual, &mut expected] {
                (result.engagement_rate, result.bounce_rate, result.avg_session_duration) = (0.0, 0.0, 0.0);
            }
        }
        if actual != expected {
            return Err(format!("{}: {actual:?}, not {expected:?}", variant.name()));
        }
    }
    Ok(())
}

/// The time that every operator was scheduled for, by name.
type Profile = HashMap<String, Duration>;

/// Adds up in `profile` for how long timely schedules every operator of `worker`.
fn record_profile(worker: &Worker, profile: Arc<Mutex<Profile>>) {
    let mut names: HashMap<usize, String> = HashMap::new();
    let mut started = Duration::ZERO;
    if let Some(mut loggers) = worker.log_register() {
        loggers.insert::<TimelyEventBuilder, _>("timely", move |_time, events| {
            for (time, event) in events.iter_mut().flat_map(|events| events.drain(..)) {
                match event {
                    TimelyEvent::Operates(operates) if operates.addr.len() > 1 => {
                        names.insert(operates.id, operates.name);
                    }
                    TimelyEvent::Schedule(schedule) => match (schedule.start_stop, names.get(&schedule.id)) {
                        (StartStop::Start, _) => started = time,
                        (StartStop::Stop, Some(name)) => {
                            let mut profile = profile.lock().expect("no worker fails");
                            *profile.entry(name.clone()).or_default() += time - started;
                        }
                        // The dataflow as a whole.
                        (StartStop::Stop, None) => {}
                    },
                    _ => {}
                }
            }
        });
    }
}

fn profile_table(profile: &Profile, events: usize) -> Table {
    let mut table = Table::new("Where the time goes", &["operator"], &[("share, %", 0), ("ns/event", 1)]);
    let mut operators: Vec<_> = profile.iter().collect();
    operators.sort_by_key(|(_, time)| std::cmp::Reverse(**time));
    let total: Duration = profile.values().sum();
    for (name, time) in operators.into_iter().filter(|(_, time)| **time * 200 > total) {
        let share = 100.0 * time.as_secs_f64() / total.as_secs_f64();
        table.row([format!("`{name}`")], [share, time.as_nanos() as f64 / events as f64]);
    }
    table
}

/// Deals a log out by user, as a topic with so many partitions would, each judged as it was.
fn split(log: &Log, workers: usize) -> Vec<Log> {
    let mut logs: Vec<Log> = (0..workers).map(|_| Log::default()).collect();
    let mut from = 0;
    for (until, open) in log.opens.iter().copied().chain([(log.activities.len(), Tick::NEVER)]) {
        for activity in &log.activities[from..until] {
            logs[activity.user as usize % workers].activities.push(*activity);
        }
        from = until;
        for log in &mut logs {
            log.opens.push((log.activities.len(), open));
        }
    }
    logs
}
