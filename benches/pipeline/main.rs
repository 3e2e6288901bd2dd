//! The whole job, Kafka → Kafka, beside a bare consumer; and how soon its results can be read under a steady load.
//!
//! What it isolates, in the first part: everything between a topic that is full and results that are committed, against what
//! nobody can do without. The bare consumer reads the same topic through the same batch queue, decodes every event with the
//! same decoder and counts it under its page, on one thread; it has no windows, keeps no sessions and writes nothing. The job
//! is the program itself (`clicktide run --until-end`) with checkpoints and transactions, into topics of its own each time.
//! Both are processes of their own; all runs must give the same results, byte for byte, and an audit of the first must agree. The topic
//! is filled before, with events of the generator's model at a steady rate of event time, some of them out of order. CPU time
//! is that of the job's processes alone, librdkafka's threads included; the broker's is told apart, where its process is
//! known. What passes until the processes are together and know where to begin (connecting, fencing, reading the progress) is
//! told apart; closing the last windows and ending are not.
//!
//! The second part is a load at a fixed rate that does not wait for anybody (open loop): every event has a due time, which is
//! its timestamp, and a late one still counts from there, so that a stall is in the latencies of all events that fell due
//! during it. Results are read as any consumer would, `read_committed`; a window is readable when the last of its results is.
//!
//! A third part, which is run when it is asked for, measures memory in a backlog that is uneven.
//!
//! It needs a Kafka: the one of `--brokers` or `KAFKA_BROKERS`, or one that `scripts/kafka` starts for the occasion.

mod backlog;
mod fill;
#[path = "../harness.rs"]
mod harness;
mod job;
mod latency;
mod throughput;

use std::error::Error;

use clap::{Args, Parser, ValueEnum};

use fill::Backlog;
use harness::{Report, ReportFiles};
use job::{Broker, Shape};

/// The whole job, Kafka → Kafka, beside a bare consumer; and how soon its results can be read under a steady load.
#[derive(Parser)]
struct Arguments {
    /// The brokers, above those of KAFKA_BROKERS; without either, scripts/kafka starts one.
    #[arg(long, value_name = "HOST:PORT")]
    brokers: Option<String>,
    /// The process id of the broker that was named, to tell its CPU time.
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    /// What is measured.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Part::Throughput, Part::Latency])]
    parts: Vec<Part>,
    /// Partitions of the events topics.
    #[arg(long, default_value_t = 6)]
    partitions: u32,
    /// How often the job takes a checkpoint.
    #[arg(long, default_value = "2s", value_name = "DURATION")]
    checkpoints: String,
    /// A key of the job's configuration, above its default; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Processes x workers of each, which take turns.
    #[arg(long, value_delimiter = ',', default_values_t = [Shape::new(1, 1), Shape::new(1, 2), Shape::new(2, 1)])]
    shapes: Vec<Shape>,
    /// Repetitions of the first part.
    #[arg(long, default_value_t = 5)]
    repetitions: usize,
    /// A command that the job is run under, such as a profiler: measures nothing but that, once, in the first of the shapes.
    #[arg(long, value_name = "COMMAND")]
    under: Option<String>,
    /// Be the bare consumer of this topic, to these ends of its partitions.
    #[arg(long, hide = true, num_args = 2.., value_names = ["TOPIC", "END"])]
    bare: Option<Vec<String>>,
    /// Fail when a process of the job has had more memory than this in the part `uneven`, MB.
    #[arg(long, value_name = "MB")]
    peak_mb_max: Option<f64>,
    #[command(flatten)]
    backlog: Backlog,
    #[command(flatten)]
    steady: Steady,
    #[command(flatten)]
    files: ReportFiles,
}

/// The load of the second part, and its windows.
#[derive(Args)]
struct Steady {
    /// Rates, events per second, one after the other.
    #[arg(long, value_delimiter = ',', default_values_t = [1_000, 5_000, 20_000])]
    rates: Vec<u32>,
    /// How long each rate is kept up, seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// What ends before so many seconds are over is left out: by then the window is full.
    #[arg(long, default_value_t = 32)]
    warm_up: u32,
    /// Window size, ms.
    #[arg(long, default_value_t = 30_000)]
    size: i64,
    /// Window slide, ms.
    #[arg(long, default_value_t = 250)]
    slide: i64,
    /// Bound on disorder, ms: all results wait for it.
    #[arg(long, default_value_t = 0)]
    bound: i64,
}

impl Arguments {
    /// The flags of the job that all parts give it.
    fn job_flags(&self) -> Vec<String> {
        let set = std::iter::once(format!("checkpoints.interval={}", self.checkpoints)).chain(self.set.iter().cloned());
        set.map(|set| format!("--set={set}")).collect()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// A topic that is full, read as fast as possible, beside a bare consumer.
    Throughput,
    /// A steady load, and how soon its results can be read.
    Latency,
    /// A topic that is full and uneven: memory, and how far partitions are apart. See scripts/backlog.
    Uneven,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Arguments::parse();
    if let (Some(bare), Some(brokers)) = (&args.bare, &args.brokers) {
        return throughput::read_bare(brokers, bare);
    }
    let named = args.brokers.clone().or_else(|| std::env::var("KAFKA_BROKERS").ok());
    let broker = Broker::find(named.as_deref(), args.broker_pid)?;
    let mut report = Report::new("pipeline");
    report.setting("partitions", args.partitions);
    report.setting("a checkpoint every", &args.checkpoints);
    if !args.set.is_empty() {
        report.setting("set", args.set.join(" "));
    }
    if let Some(under) = &args.under {
        return throughput::run_under(&args, &broker, under);
    }
    for part in &args.parts {
        match part {
            Part::Throughput => throughput::measure(&args, &broker, &mut report)?,
            Part::Latency => latency::measure(&args, &broker, &mut report)?,
            Part::Uneven => backlog::measure(&args, &broker, &mut report)?,
        }
    }
    report.finish(&args.files)
}
