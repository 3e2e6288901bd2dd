//! The part of the configuration that gives results their meaning.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

use super::Config;
use crate::millis::{Millis, or_off};
use crate::privacy::PageKey;

/// What has to stay the same for a job to go on: with any of it changed, its next results would not fit those before.
///
/// Serialized, it is what progress records hold; the order of the keys is that of the fields.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Meaning {
    kafka: KafkaMeaning,
    windows: WindowsMeaning,
    validation: super::Validation,
    privacy: PrivacyMeaning,
    #[serde(skip_serializing_if = "is_off")]
    deduplication: super::Deduplication,
    dead_letters: super::DeadLetters,
    /// Whether events are read in the wire format of a schema registry: what is an event in one format is none in the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_registry: Option<&'static str>,
}

/// What was committed before there was such a section has none, which means the same.
fn is_off(deduplication: &super::Deduplication) -> bool {
    *deduplication == super::Deduplication::default()
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct KafkaMeaning {
    events_topic: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct WindowsMeaning {
    size: Millis,
    slide: Millis,
    offset: Millis,
    disorder_bound: Millis,
    #[serde(with = "or_off")]
    idle_timeout: Option<Millis>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct PrivacyMeaning {
    page_key: PageKey,
    #[serde(skip_serializing_if = "Option::is_none")]
    pages_max: Option<u32>,
    hash_key_fingerprint: String,
}

impl Meaning {
    pub(super) fn of(config: &Config) -> Meaning {
        let windows = &config.windows;
        Meaning {
            kafka: KafkaMeaning { events_topic: config.kafka.events_topic.clone() },
            windows: WindowsMeaning {
                size: windows.size,
                slide: windows.slide,
                offset: windows.offset,
                disorder_bound: windows.disorder_bound,
                idle_timeout: windows.idle_timeout,
            },
            validation: config.validation.clone(),
            privacy: PrivacyMeaning {
                page_key: config.privacy.page_key,
                pages_max: config.privacy.pages_max,
                hash_key_fingerprint: config.hash_key().fingerprint(),
            },
            deduplication: config.deduplication.clone(),
            dead_letters: config.dead_letters.clone(),
            schema_registry: config.schema_registry.url.as_ref().map(|_| "on"),
        }
    }

    /// As JSON: the same text for the same meaning.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("texts and numbers can be written as JSON")
    }

    /// How this differs from the JSON of a committed one, a line for each key; empty when they mean the same.
    pub fn differences(&self, committed: &str) -> Vec<String> {
        let Ok(committed) = serde_json::from_str::<Value>(committed) else {
            return vec![format!("the committed configuration is not JSON: {committed:?}")];
        };
        let committed = leaves(&committed);
        let configured = leaves(&serde_json::to_value(self).unwrap_or_default());
        let keys: std::collections::BTreeSet<_> = committed.keys().chain(configured.keys()).collect();
        let value = |of: &BTreeMap<String, String>, key| of.get(key).map_or("nothing", String::as_str).to_owned();
        keys.into_iter()
            .map(|key| (key, value(&committed, key), value(&configured, key)))
            .filter(|(_, committed, configured)| committed != configured)
            .map(|(key, committed, configured)| format!("{key}: {committed} committed, {configured} configured"))
            .collect()
    }
}

/// The values that are no objects, by their dotted keys.
fn leaves(value: &Value) -> BTreeMap<String, String> {
    fn walk(key: String, value: &Value, leaves: &mut BTreeMap<String, String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    walk(key, value, leaves);
                }
            }
            Value::String(text) => drop(leaves.insert(key, text.clone())),
            other => drop(leaves.insert(key, other.to_string())),
        }
    }
    let mut found = BTreeMap::new();
    walk(String::new(), value, &mut found);
    found
}
