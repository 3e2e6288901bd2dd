//! The commands, each a plain function from its arguments and the configuration to success or a [`crate::exit::Failure`].

pub mod audit;
pub mod demo;
pub mod generate;
mod input_watch;
pub mod launch;
pub mod replay;
pub mod run;
pub mod signals;
pub mod topics;
