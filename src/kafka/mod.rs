//! Kafka: the only place that knows the client library.

pub mod admin;
pub mod client;
pub mod probe;
pub mod producer;
pub mod properties;
