//! Kafka: the only place that knows the client library.

use std::collections::BTreeMap;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::KafkaError;

pub mod audit;
pub mod committer;
pub mod embedded;
pub mod producer;
pub mod progress;
pub mod properties;
mod queue;
pub mod scan;
pub mod source;
pub mod start;

/// How to reach the brokers.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KafkaSettings {
    /// The brokers to begin with: `host:port`, separated by commas.
    pub brokers: String,
    /// Properties of librdkafka, which win over the job's own. May hold secrets, so they are not printed.
    pub properties: BTreeMap<String, String>,
}

fn client_config(settings: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Warning);
    config.set("bootstrap.servers", &settings.brokers);
    for (property, value) in &settings.properties {
        config.set(property, value);
    }
    config
}

/// An error in words that name no secret.
fn describe(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, description, property, _) => {
            format!("librdkafka property {property:?}: {description}")
        }
        other => other.to_string(),
    }
}
