//! Kafka: the only place that knows the client library.

use rdkafka::error::KafkaError;

pub mod admin;
pub mod audit;
mod cause;
pub mod client;
pub mod committer;
pub mod dead_letters;
mod described;
mod diagnosis;
pub mod embedded;
pub mod history;
pub mod permissions;
pub mod probe;
pub mod producer;
pub mod progress;
pub mod properties;
mod queue;
pub mod scan;
pub mod source;
pub mod start;
mod statistics;
pub mod watch;

/// An error in words that show no property's value, which may be a secret.
fn describe(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, description, property, _) => {
            format!("librdkafka property {property:?}: {description}")
        }
        other => other.to_string(),
    }
}
