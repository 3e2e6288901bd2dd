//! Log lines on standard error: human on a terminal, JSON otherwise.
//!
//! Where a line comes from is in its spans: enter [`process_span`] once in `main` and [`worker_span`] in each worker's
//! thread. No line may hold personal data: no user or session id, address or user agent, and no page URL.

use std::io::IsTerminal;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Human when standard error is a terminal, JSON when it is not.
    #[default]
    Auto,
    /// One readable line per event, coloured on a terminal (unless `NO_COLOR` is set).
    Human,
    /// One JSON object per line, with the spans and their fields in `spans`.
    Json,
}

/// Why logging could not be set up.
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
}

/// Sends every `tracing` event of this program that passes `filter` to standard error.
///
/// `filter` is tracing's syntax: a level, or a list such as `info,clicktide::http=debug`.
///
/// # Errors
///
/// When the filter cannot be parsed, and when called twice.
pub fn init(format: LogFormat, filter: &str) -> Result<(), LoggingError> {
    let filter = parse_filter(filter)?;
    let terminal = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let installed = match (format, terminal) {
        (LogFormat::Human, _) | (LogFormat::Auto, true) => {
            let colours = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
            lines.with_ansi(colours).try_init()
        }
        (LogFormat::Json, _) | (LogFormat::Auto, false) => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(true).try_init()
        }
    };
    installed.map_err(|_| LoggingError::AlreadySetUp)
}

/// Whether [`init`] would take `filter`.
///
/// # Errors
///
/// When the filter cannot be parsed.
pub fn check_filter(filter: &str) -> Result<(), LoggingError> {
    parse_filter(filter).map(drop)
}

/// The span of everything that one process of a job does.
pub fn process_span(process: usize) -> tracing::Span {
    tracing::error_span!("process", process)
}

/// The span of everything that one worker does; `worker` is its index in the whole cluster.
pub fn worker_span(worker: usize) -> tracing::Span {
    tracing::error_span!("worker", worker)
}

fn parse_filter(filter: &str) -> Result<EnvFilter, LoggingError> {
    EnvFilter::builder().parse(filter).map_err(|source| LoggingError::Filter { filter: filter.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let check = |filter: &str, valid: bool| assert_eq!(parse_filter(filter).is_ok(), valid, "{filter:?}");
        check("info", true);
        check("info,clicktide::http=debug", true);
        check("warn,timely=off", true);
        check("clicktide=loud", false);
        check("a=b=c", false);
    }

    #[test]
    fn second_init_is_refused() {
        assert!(init(LogFormat::Json, "off").is_ok());
        assert!(matches!(init(LogFormat::Human, "off"), Err(LoggingError::AlreadySetUp)));
    }
}
