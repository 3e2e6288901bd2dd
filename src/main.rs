//! The program: parses the command line, and turns failures into exit codes.

use std::process::ExitCode;

use clap::Parser;
use clicktide::cli::{Cli, run_command};
use clicktide::exit::end_on_panic;

fn main() -> ExitCode {
    end_on_panic();
    match run_command(Cli::parse()) {
        Ok(()) => {
            clicktide::logging::flush();
            ExitCode::SUCCESS
        }
        Err(failure) => failure.exit.now(failure.why),
    }
}
