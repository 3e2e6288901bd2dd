//! Under which names schemas are kept, and the ids of ours.

use serde::{Deserialize, Serialize};

use super::{Registry, RegistryError};
use crate::avro::wire::SchemaId;
use crate::avro::{CLICK_EVENT_SCHEMA, PAGE_ANALYTICS_SCHEMA, SANITISED_EVENT_SCHEMA, record_name};

/// How the subject of a topic's values is named, as Confluent's clients do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectNaming {
    /// `TOPIC-value`.
    #[default]
    Topic,
    /// The full name of the record.
    Record,
    /// `TOPIC-` and the full name of the record.
    TopicRecord,
}

/// The subject of a topic's values, and the schema that it has to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The subject's name.
    pub name: String,
    /// The schema, as JSON.
    pub schema: &'static str,
}

impl SubjectNaming {
    /// The subject of values of `topic` that are written with `schema`.
    pub fn subject(self, topic: &str, schema: &'static str) -> Subject {
        let name = match self {
            SubjectNaming::Topic => format!("{topic}-value"),
            SubjectNaming::Record => record_name(schema),
            SubjectNaming::TopicRecord => format!("{topic}-{}", record_name(schema)),
        };
        Subject { name, schema }
    }
}

/// How our own schemas come to be in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publication {
    /// How their subjects are named.
    pub naming: SubjectNaming,
    /// Whether they are registered; otherwise they have to be there.
    pub register: bool,
}

impl Publication {
    /// The subject of the events in `topic`.
    pub fn events(self, topic: &str) -> Subject {
        self.naming.subject(topic, CLICK_EVENT_SCHEMA)
    }

    /// The subject of the results in `topic`.
    pub fn results(self, topic: &str) -> Subject {
        self.naming.subject(topic, PAGE_ANALYTICS_SCHEMA)
    }

    /// The subject of the sanitised events in `topic`.
    pub fn sanitised_events(self, topic: &str) -> Subject {
        self.naming.subject(topic, SANITISED_EVENT_SCHEMA)
    }

    /// The id of a subject's schema, which is registered if need be and allowed.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn id(self, registry: &Registry, subject: &Subject) -> Result<SchemaId, RegistryError> {
        let Subject { name, schema } = subject;
        let refused = |url: String, reason: String| RegistryError::Refused { url, reason };
        if self.register {
            return registry.register(name, schema).map_err(|error| match error {
                RegistryError::Refused { url, reason } | RegistryError::Missing { url, reason } => {
                    refused(url, format!("to register the schema of subject {name:?}: {reason}"))
                }
                error => error,
            });
        }
        registry.look_up(name, schema).map_err(|error| match error {
            RegistryError::Missing { url, reason } => refused(
                url,
                format!(
                    "our schema is not registered under subject {name:?} ({reason}); have it registered, or set \
                     schema_registry.register = true"
                ),
            ),
            error => error,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects() {
        let check = |naming: SubjectNaming, events: &str, results: &str| {
            let publication = Publication { naming, register: true };
            assert_eq!(publication.events("clicks").name, events);
            assert_eq!(publication.results("stats").name, results);
        };
        check(SubjectNaming::Topic, "clicks-value", "stats-value");
        check(SubjectNaming::Record, "analytics.events.ClickstreamEvent", "analytics.results.PageAnalytics");
        check(
            SubjectNaming::TopicRecord,
            "clicks-analytics.events.ClickstreamEvent",
            "stats-analytics.results.PageAnalytics",
        );
    }
}
