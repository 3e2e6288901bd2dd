//! dbsp beside Clicktide's dataflow and a hand-written program, on the same events in memory.
//!
//! What it isolates: events that are decoded, hashed and judged already, in memory → counters and unique users of every page
//! and window, in memory. One worker each. All read the same log in the same order, are told at the same places that windows
//! have closed, and must agree in every result before anything is reported.
//!
//! The variants take turns within every repetition; reported are medians, and ratios of them. CPU seconds are those of the
//! whole process: dbsp merges its traces on threads of their own, beside its worker.

#[path = "../../baseline.rs"]
mod baseline;
#[path = "../../drive.rs"]
mod drive;
#[path = "../../harness.rs"]
mod harness;
#[path = "../../load.rs"]
mod load;
#[path = "../../memory.rs"]
mod memory;

mod circuits;

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use clicktide_dataflows::event::{PageAnalytics, PageId};
use clicktide_dataflows::time::Windows;

use circuits::Formulation;
use drive::{Metrics, run_dataflow};
use harness::{Report, ReportFiles, Spent, Table, median_s};
use load::{Load, Log};
use memory::CountingAllocator;

/// Activities per message of the dataflow.
const BATCH: usize = 2_048;

/// dbsp beside Clicktide's dataflow and a hand-written program: events in memory → results in memory, one worker each.
#[derive(Parser)]
struct Args {
    #[command(flatten)]
    load: Load,
    /// Repetitions.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// How the job is put to dbsp; all ways if not given.
    #[arg(long, value_enum, value_delimiter = ',')]
    formulations: Vec<Formulation>,
    #[command(flatten)]
    files: ReportFiles,
}

/// What is measured.
#[derive(Clone, Copy, PartialEq)]
enum Variant {
    Dbsp(Formulation),
    Dataflow,
    DataflowAllMetrics,
    HandWritten,
    HandWrittenAllMetrics,
}

impl Variant {
    fn name(self) -> String {
        match self {
            Variant::Dbsp(formulation) => format!("dbsp, {formulation}"),
            Variant::Dataflow => "dataflow".into(),
            Variant::DataflowAllMetrics => "dataflow, all metrics".into(),
            Variant::HandWritten => "hand-written".into(),
            Variant::HandWrittenAllMetrics => "hand-written, all metrics".into(),
        }
    }

    fn run(
        self,
        logs: &Arc<Vec<Log>>,
        names: &Arc<HashMap<PageId, String>>,
        windows: Windows,
    ) -> Result<Vec<PageAnalytics>, Box<dyn Error>> {
        match self {
            Variant::Dbsp(formulation) => circuits::counters_and_uniques(&logs[0], names, windows, formulation),
            Variant::Dataflow => Ok(run_dataflow(Metrics::CountersAndUniques, logs, names, windows, BATCH, |_| ())),
            Variant::DataflowAllMetrics => Ok(run_dataflow(Metrics::All, logs, names, windows, BATCH, |_| ())),
            Variant::HandWritten => Ok(baseline::counters_and_uniques(&logs[0], names, windows)),
            Variant::HandWrittenAllMetrics => Ok(baseline::all_metrics(&logs[0], names, windows)),
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let windows = args.load.windows()?;
    let (log, names) = args.load.generate(&windows)?;
    let events = log.activities.len();
    let (logs, names) = (Arc::new(vec![log]), Arc::new(names));
    let formulations = match args.formulations.as_slice() {
        [] => Formulation::value_variants(),
        chosen => chosen,
    };
    let mut variants: Vec<Variant> = formulations.iter().copied().map(Variant::Dbsp).collect();
    variants.extend([
        Variant::Dataflow,
        Variant::DataflowAllMetrics,
        Variant::HandWritten,
        Variant::HandWrittenAllMetrics,
    ]);

    // The first run of each is for its results and its memory, not for its time.
    let expected = comparable(Variant::HandWritten.run(&logs, &names, windows)?);
    let mut peaks_mb = Vec::new();
    for variant in &variants {
        let (actual, peak_mb) = CountingAllocator::peak_mb(|| variant.run(&logs, &names, windows));
        peaks_mb.push(peak_mb);
        check(*variant, &comparable(actual?), &expected)?;
    }

    let mut runs: Vec<Vec<Spent>> = vec![Vec::new(); variants.len()];
    for _ in 0..args.repetitions {
        for (variant, runs) in variants.iter().zip(&mut runs) {
            let (results, spent) = Spent::by(|| variant.run(&logs, &names, windows));
            drop(results?);
            runs.push(spent);
        }
    }

    let cpu_s: Vec<f64> = runs.iter().map(|runs| median_s(runs.iter().map(|run| run.cpu))).collect();
    let wall_s: Vec<f64> = runs.iter().map(|runs| median_s(runs.iter().map(|run| run.wall))).collect();
    // That formulation of dbsp's that takes the least CPU time is what all are compared with.
    let best = (0..formulations.len()).min_by(|a, b| cpu_s[*a].total_cmp(&cpu_s[*b])).unwrap_or(0);
    let mut table = Table::new(
        "Beside dbsp",
        &["variant"],
        &[
            ("CPU-s per million events", 3),
            ("events/s", 0),
            ("events per CPU-s, times dbsp's best", 2),
            ("events/s, times dbsp's best", 2),
            ("peak MB", 0),
        ],
    );
    for (i, variant) in variants.iter().enumerate() {
        table.row(
            [variant.name()],
            [
                cpu_s[i] / events as f64 * 1e6,
                events as f64 / wall_s[i],
                cpu_s[best] / cpu_s[i],
                wall_s[best] / wall_s[i],
                peaks_mb[i],
            ],
        );
    }
    let mut report = Report::new("dbsp");
    report.setting("dbsp", dbsp_version());
    report.setting("events", events);
    report.setting("late", args.load.events - events);
    report.setting("results", expected.len());
    report.setting("repetitions", args.repetitions);
    report.table(table);
    report.finish(&args.files)
}

/// Results in the order of windows and pages, without what only programs with all metrics compute.
fn comparable(mut results: Vec<PageAnalytics>) -> Vec<PageAnalytics> {
    for result in &mut results {
        (result.engagement_rate, result.bounce_rate, result.avg_session_duration) = (0.0, 0.0, 0.0);
    }
    results.sort_by(|a, b| (a.window_end, &a.page_url).cmp(&(b.window_end, &b.page_url)));
    results
}

fn check(variant: Variant, actual: &[PageAnalytics], expected: &[PageAnalytics]) -> Result<(), String> {
    if let Some((actual, expected)) = actual.iter().zip(expected).find(|(actual, expected)| actual != expected) {
        return Err(format!("{}: {actual:?}, not {expected:?}", variant.name()));
    }
    match actual.len() == expected.len() {
        true => Ok(()),
        false => Err(format!("{}: {} results, not {}", variant.name(), actual.len(), expected.len())),
    }
}

/// The version of dbsp that this is built with.
fn dbsp_version() -> &'static str {
    let lock = include_str!("../Cargo.lock");
    let package = lock.split("[[package]]").find(|package| package.contains("name = \"dbsp\"\n"));
    package.and_then(|package| package.split("version = \"").nth(1)?.split('"').next()).unwrap_or("unknown")
}
