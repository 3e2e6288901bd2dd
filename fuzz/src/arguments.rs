//! A command line, an argument per line.
//!
//! Clap refuses it or makes a command of it; the text of a refusal has an exit code.

use clap::Parser;
use clicktide::cli::Cli;

/// Checks one command line.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Err(error) = Cli::try_parse_from(std::iter::once("clicktide").chain(text.lines())) {
        assert!([0, 2].contains(&error.exit_code()));
        assert!(!error.to_string().is_empty());
    }
}
