//! The commands, each a plain function from its arguments and the configuration to success or a [`crate::exit::Failure`].

pub mod audit;
pub mod checkpoint;
mod client;
pub mod dead_letters;
pub mod demo;
pub mod generate;
pub mod health;
mod input_watch;
pub mod launch;
mod progress;
mod repeating;
pub mod replay;
pub mod run;
pub mod savepoint;
pub mod signals;
pub mod status_line;
pub mod topics;
