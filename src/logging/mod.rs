//! Log lines: on standard error, human on a terminal and JSON otherwise, and in a file if one is configured.
//!
//! ```text
//! tracing's macros ─▶ levels (can be changed) ─▶ repeats (suppressed) ─┬─▶ line ─▶ outlet ─▶ standard error
//!                                                                      └─▶ line ─▶ outlet ─▶ file, rotated
//! ```
//!
//! Every line says where it comes from: the run, the process and the worker are known to this module ([`begin_process`],
//! [`begin_run`], [`begin_worker`]) and not to spans, which threads that are not workers would have to enter. The names of the
//! other fields are in docs/logging.md: `partition`, `tick_ms`, `through_ms`, `topic`, `error` and so on, the same everywhere.
//!
//! No line may hold personal data (no user or session id, address or user agent, and no page URL) nor a secret. A line never
//! makes anybody wait: threads of their own write them, and what they can't write in time is counted and lost.

mod file;
mod levels;
mod line;
mod outlet;
mod repeats;

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry, fmt, reload};

pub use file::FileSettings;
pub use levels::{Levels, change_levels, check_filter, follow_levels, levels, levels_to_tell};
pub use line::{begin_process, begin_run, begin_worker};
pub use repeats::RepeatSettings;

use file::LogFile;
use levels::parse_filter;
use line::Lines;
use outlet::Outlet;
use repeats::Repeats;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human when standard error is a terminal, JSON when it is not.
    #[default]
    Auto,
    /// One readable line per event, coloured on a terminal (unless `NO_COLOR` is set).
    Human,
    /// One JSON object per line.
    Json,
}

/// What is logged, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogSettings {
    /// How lines on standard error look.
    pub format: LogFormat,
    /// Which there are, in tracing's syntax: a level, or a list such as `info,clicktide::http=debug`.
    pub filter: String,
    /// How often the same complaint is repeated; none: as often as it is made.
    pub repeats: Option<RepeatSettings>,
    /// The file that they are written to as well, as JSON.
    pub file: Option<FileSettings>,
}

/// Why logging could not be set up, or its levels changed.
#[derive(Debug, Error)]
pub enum LoggingError {
    /// The filter is not one of tracing's `target=level` lists.
    #[error("the log filter {filter:?} is not valid, expected for example \"info\" or \"info,clicktide::http=debug\"")]
    Filter {
        /// The filter as it was given.
        filter: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The program has set up logging before.
    #[error("logging is already set up")]
    AlreadySetUp,
    /// The program has not set up logging.
    #[error("logging is not set up")]
    NotSetUp,
    /// A thread could not be started.
    #[error("can't start the thread that writes the log: {0}")]
    Thread(#[from] io::Error),
}

/// How often it is looked whether something has been suppressed, or levels are to be as they were.
const UPKEEP_EVERY: Duration = Duration::from_secs(1);

/// The variable that has human lines coloured also where standard error is no terminal, but read by what writes them to one.
pub const FORCE_COLOURS: &str = "CLICOLOR_FORCE";

static OUTLETS: OnceLock<Vec<Outlet>> = OnceLock::new();

/// Sends every `tracing` event of this program that passes the filter to standard error, and to the file if there is one.
///
/// A file that can't be written is told of in the log, now or whenever that happens, and stops nothing.
///
/// # Errors
///
/// When the filter cannot be parsed, when called twice, and when a thread can't be started.
pub fn init(settings: LogSettings) -> Result<(), LoggingError> {
    let LogSettings { format, filter, repeats, file } = settings;
    let (levels, handle) = reload::Layer::new(parse_filter(&filter)?);
    let repeats = repeats.map(|settings| Arc::new(Repeats::new(settings)));

    let terminal = io::stderr().is_terminal();
    let human = format == LogFormat::Human || (format == LogFormat::Auto && terminal);
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let colours = human && (terminal || set(FORCE_COLOURS)) && !set("NO_COLOR");
    let stderr = Outlet::start("log", |line| {
        // Nobody is left to be told if that fails.
        crate::terminal::above(|| io::stderr().write_all(line)).ok();
    })?;
    let mut outlets = vec![stderr.clone()];
    let file = match file {
        Some(settings) => {
            let mut file = LogFile::new(settings);
            let outlet = Outlet::start("log-file", move |line| file.write(line))?;
            outlets.push(outlet.clone());
            Some(written(Lines::Json, false, outlet))
        }
        None => None,
    };
    tracing_subscriber::registry()
        .with(levels)
        .with(repeats.clone().map(repeats::Suppress))
        .with(written(if human { Lines::Human } else { Lines::Json }, colours, stderr))
        .with(file)
        .try_init()
        .map_err(|_| LoggingError::AlreadySetUp)?;
    levels::install(handle, filter);
    OUTLETS.set(outlets).map_err(|_| LoggingError::AlreadySetUp)?;
    let upkeep = move || {
        loop {
            std::thread::sleep(UPKEEP_EVERY);
            levels::restore_if_due();
            if let Some(repeats) = &repeats {
                repeats.sweep();
            }
        }
    };
    std::thread::Builder::new().name("log-upkeep".to_owned()).spawn(upkeep)?;
    Ok(())
}

/// The layer that writes lines.
fn written<S>(lines: Lines, colours: bool, outlet: Outlet) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    // What can't be written is lost: telling so by eprintln! would panic where nobody reads standard error.
    fmt::layer().event_format(lines).with_ansi(colours).log_internal_errors(false).with_writer(move || outlet.clone())
}

/// Waits until all lines so far are written, though not for long: what blocks the end of a program is worse than what is lost.
pub fn flush() {
    OUTLETS.get().into_iter().flatten().for_each(Outlet::flush);
}

/// The file that a process or command of this name writes, of those that share a configured name: `clicktide.log` becomes
/// `clicktide-0.log` in process 0.
pub fn file_of(path: &std::path::Path, name: &str) -> PathBuf {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    match path.extension() {
        Some(extension) => path.with_file_name(format!("{stem}-{name}.{}", extension.to_string_lossy())),
        None => path.with_file_name(format!("{stem}-{name}")),
    }
}

/// The subscriber that the levels' filter lies on.
type Below = Registry;

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn settings(filter: &str) -> LogSettings {
        LogSettings { format: LogFormat::Json, filter: filter.to_owned(), repeats: None, file: None }
    }

    #[test]
    fn second_init_is_refused() {
        assert!(init(settings("off")).is_ok());
        assert!(matches!(init(settings("off")), Err(LoggingError::AlreadySetUp)));
        flush();
    }

    #[test]
    fn each_process_has_a_file_of_its_own() {
        let check = |path: &str, name: &str, expected: &str| {
            assert_eq!(file_of(Path::new(path), name), Path::new(expected), "{path}");
        };
        check("/var/log/clicktide.log", "0", "/var/log/clicktide-0.log");
        check("clicktide.jsonl", "launch", "clicktide-launch.jsonl");
        check("logs/clicktide", "11", "logs/clicktide-11");
    }
}
