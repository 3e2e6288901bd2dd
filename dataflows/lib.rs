//! The dataflows of Clicktide, and nothing else: no Kafka, files, sockets, threads or clocks.

pub mod event;
pub mod time;
