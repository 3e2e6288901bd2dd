//! Kafka: the only place that knows the client library.

use rdkafka::error::KafkaError;

pub mod admin;
pub mod audit;
pub mod client;
pub mod committer;
pub mod dead_letters;
pub mod embedded;
pub mod history;
pub mod probe;
pub mod producer;
pub mod progress;
pub mod properties;
mod queue;
pub mod scan;
pub mod source;
pub mod start;
mod statistics;
mod topic_id;
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
