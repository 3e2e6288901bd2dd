//! What the benchmarks measure and report with: shared, and no benchmark by itself.
//!
//! A benchmark fills [`Table`]s, one row per variant, and gives them to a [`Report`], which prints them in Markdown, writes
//! them as JSON with the machine they were measured on (`--json FILE`), and shows what has changed since such a file was
//! written (`--baseline FILE`).

// No benchmark needs all of it.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use clap::Args;
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

/// Flags of every benchmark.
#[derive(Args)]
pub struct ReportFiles {
    /// Writes the report as JSON too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Shows the change since an earlier report, which was written with --json.
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

// --- Measurement ---

/// What something took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    /// Time that passed.
    pub wall: Duration,
    /// CPU time of this process, of all its threads.
    pub cpu: Duration,
}

impl Spent {
    /// Runs `f`, and what it took.
    pub fn by<T>(f: impl FnOnce() -> T) -> (T, Spent) {
        let (began, cpu) = (Instant::now(), cpu_time());
        let value = f();
        (value, Spent { wall: began.elapsed(), cpu: cpu_time() - cpu })
    }
}

/// CPU time of this process so far, of all its threads.
pub fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The middle one of `values`, the greater of the two if there are two; NaN if there is none.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The same of durations, in seconds.
pub fn median_s(durations: impl IntoIterator<Item = Duration>) -> f64 {
    median(durations.into_iter().map(|duration| duration.as_secs_f64()))
}

// --- Reports ---

/// A table of figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Table {
    title: String,
    /// The heads of the columns that say what a row is about.
    about: Vec<String>,
    figures: Vec<Figure>,
    rows: Vec<Row>,
}

/// A column of figures.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Figure {
    /// What it is, with its unit.
    head: String,
    /// Digits after the point.
    decimals: usize,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Row {
    about: Vec<String>,
    /// One per column; none where there is nothing to be said.
    figures: Vec<Option<f64>>,
}

impl Table {
    /// An empty table. `about` are the heads of the columns that say what a row is about: a row is found again in another
    /// report by what stands in them. `figures` are the heads of the others, each with its number of digits after the point.
    pub fn new(title: &str, about: &[&str], figures: &[(&str, usize)]) -> Self {
        let owned = |text: &&str| (*text).to_owned();
        Table {
            title: title.to_owned(),
            about: about.iter().map(owned).collect(),
            figures: figures.iter().map(|(head, decimals)| Figure { head: owned(head), decimals: *decimals }).collect(),
            rows: Vec::new(),
        }
    }

    /// Adds a row, with as many entries as the table has columns.
    pub fn row<F: Into<Option<f64>>>(
        &mut self,
        about: impl IntoIterator<Item = impl fmt::Display>,
        figures: impl IntoIterator<Item = F>,
    ) {
        let about: Vec<String> = about.into_iter().map(|text| text.to_string()).collect();
        let figures: Vec<Option<f64>> = figures.into_iter().map(Into::into).collect();
        assert_eq!((about.len(), figures.len()), (self.about.len(), self.figures.len()), "a row of {:?}", self.title);
        self.rows.push(Row { about, figures });
    }

    /// This table, with the ratio to the same figure of `earlier` in place of every figure; without what is not in both.
    fn relative_to(&self, earlier: &Table) -> Table {
        let columns: Vec<(usize, usize)> = (0..self.figures.len())
            .filter_map(|now| {
                Some((now, earlier.figures.iter().position(|figure| figure.head == self.figures[now].head)?))
            })
            .collect();
        let ratio =
            |row: &Row, before: &Row, (now, then): (usize, usize)| match (row.figures[now], before.figures[then]) {
                (Some(now), Some(then)) if then != 0.0 => Some(now / then),
                _ => None,
            };
        let rows = self.rows.iter().filter_map(|row| {
            let before = earlier.rows.iter().find(|before| before.about == row.about)?;
            let figures = columns.iter().map(|column| ratio(row, before, *column)).collect();
            Some(Row { about: row.about.clone(), figures })
        });
        Table {
            title: format!("{}: now / before", self.title),
            about: self.about.clone(),
            figures: columns.iter().map(|(now, _)| Figure { decimals: 2, ..self.figures[*now].clone() }).collect(),
            rows: rows.collect(),
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heads: Vec<&str> = self
            .about
            .iter()
            .map(String::as_str)
            .chain(self.figures.iter().map(|figure| figure.head.as_str()))
            .collect();
        writeln!(f, "{}\n\n| {} |", self.title, heads.join(" | "))?;
        writeln!(f, "|{}{}", "---|".repeat(self.about.len()), "--:|".repeat(self.figures.len()))?;
        for row in &self.rows {
            let figures = row.figures.iter().zip(&self.figures);
            let figures =
                figures.map(|(value, figure)| value.map_or(String::new(), |value| number(value, figure.decimals)));
            let cells: Vec<String> = row.about.iter().cloned().chain(figures).collect();
            writeln!(f, "| {} |", cells.join(" | "))?;
        }
        Ok(())
    }
}

/// A number with its thousands set apart.
fn number(value: f64, decimals: usize) -> String {
    let text = format!("{value:.decimals$}");
    let digits = text.find('.').unwrap_or(text.len());
    let first = usize::from(text.starts_with('-'));
    let mut grouped = String::with_capacity(text.len() + digits / 3);
    for (at, character) in text.char_indices() {
        if at > first && at < digits && (digits - at).is_multiple_of(3) && value.is_finite() {
            grouped.push(',');
        }
        grouped.push(character);
    }
    grouped
}

/// What a benchmark has to say.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    benchmark: String,
    machine: Machine,
    /// What the load was like, and the like.
    settings: BTreeMap<String, String>,
    tables: Vec<Table>,
}

impl Report {
    /// An empty report of a benchmark that begins now.
    pub fn new(benchmark: &str) -> Self {
        Report {
            benchmark: benchmark.to_owned(),
            machine: Machine::this(),
            settings: BTreeMap::new(),
            tables: Vec::new(),
        }
    }

    /// Notes under which setting everything was measured.
    pub fn setting(&mut self, name: &str, value: impl fmt::Display) {
        self.settings.insert(name.to_owned(), value.to_string());
    }

    /// Adds a table.
    pub fn table(&mut self, table: Table) {
        self.tables.push(table);
    }

    /// Prints everything, and does what the flags say.
    ///
    /// # Errors
    /// When a file can't be read or written, or is no report of the same benchmark.
    pub fn finish(self, files: &ReportFiles) -> Result<(), Box<dyn Error>> {
        let earlier = files.baseline.as_deref().map(|path| self.earlier(path)).transpose()?;
        if let Some(path) = &files.json {
            std::fs::write(path, serde_json::to_string_pretty(&self)?)
                .map_err(|e| format!("{}: {e}", path.display()))?;
        }
        println!("\n{}", self.machine);
        for (name, value) in &self.settings {
            println!("{name}: {value}");
        }
        for table in &self.tables {
            println!("\n{table}");
        }
        let Some(earlier) = earlier else { return Ok(()) };
        println!("\nbefore: {}", earlier.machine);
        for table in &self.tables {
            match earlier.tables.iter().find(|before| before.title == table.title) {
                Some(before) => println!("\n{}", table.relative_to(before)),
                None => println!("\n{}: not in the earlier report", table.title),
            }
        }
        Ok(())
    }

    fn earlier(&self, path: &Path) -> Result<Report, String> {
        let failed = |e: &dyn fmt::Display| format!("{}: {e}", path.display());
        let text = std::fs::read_to_string(path).map_err(|e| failed(&e))?;
        let earlier: Report = serde_json::from_str(&text).map_err(|e| failed(&format!("no report: {e}")))?;
        match earlier.benchmark == self.benchmark {
            true => Ok(earlier),
            false => Err(failed(&format!("a report of {}, not of {}", earlier.benchmark, self.benchmark))),
        }
    }
}

/// What a report was measured on, and with.
#[derive(Debug, Serialize, Deserialize)]
struct Machine {
    cpu: String,
    cores: usize,
    /// Load average over the last minute when the benchmark began; none where the system does not say.
    load_average: Option<f64>,
    rustc: String,
    timely: String,
    differential_dataflow: String,
}

impl Machine {
    fn this() -> Self {
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        let rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).arg("--version").output();
        let rustc = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        Machine {
            cpu: model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.trim().to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            load_average: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()),
            rustc: rustc.unwrap_or_else(|_| "rustc unknown".to_owned()),
            timely: locked_version("timely"),
            differential_dataflow: locked_version("differential-dataflow"),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, load_average, rustc, timely, differential_dataflow } = self;
        write!(f, "{cores} cores of {cpu}")?;
        if let Some(load) = load_average {
            write!(f, ", load average {load:.1} at the beginning")?;
        }
        write!(f, "; {rustc}, timely {timely}, differential-dataflow {differential_dataflow}")
    }
}

/// The version of a package that this workspace is built with.
fn locked_version(package: &str) -> String {
    let mut lines = include_str!("../Cargo.lock").lines();
    let named = format!("name = \"{package}\"");
    lines.find(|line| *line == named);
    let version = lines.next().and_then(|line| line.strip_prefix("version = "));
    version.map_or_else(|| "unknown".to_owned(), |version| version.trim_matches('"').to_owned())
}
