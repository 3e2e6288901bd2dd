//! Kafka: the only place that knows the client library.

pub mod audit;
pub mod producer;
pub mod progress;
pub mod scan;
