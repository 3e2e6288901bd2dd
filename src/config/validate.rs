//! Which values can be used together. What passes here neither overflows nor panics later.

use std::collections::BTreeMap;
use std::fmt;

use clicktide_dataflows::time::Windows;

use super::{Checkpoints, Cluster, Config, Flow, Health, Http, Kafka, Logging, Topics, Validation, WindowSettings};
use crate::checkpoint::store::StoreLocation;
use crate::logging;
use crate::millis::Millis;
use crate::privacy::HashKey;

/// A value that cannot be used.
#[derive(Debug)]
pub(super) struct Refused {
    pub key: String,
    pub value: String,
    pub expected: String,
}

impl Refused {
    pub fn new(key: impl Into<String>, value: impl fmt::Display, expected: impl Into<String>) -> Self {
        Refused { key: key.into(), value: value.to_string(), expected: expected.into() }
    }
}

pub(super) type Verdict = Result<(), Refused>;

/// The first value that cannot be used, if there is one.
pub(super) fn validate(config: &Config) -> Verdict {
    name("job.name", &config.job.name, 200)?;
    config.kafka.validate()?;
    config.schema_registry.validate()?;
    config.topics.validate()?;
    config.windows.validate()?;
    config.validation.validate()?;
    if let Some(hash_key) = &config.privacy.hash_key
        && let Err(error) = HashKey::new(hash_key.expose())
    {
        return refuse("privacy.hash_key", "***", format!("a secret text: {error}"));
    }
    if let Some(pages_max) = config.privacy.pages_max {
        number("privacy.pages_max", pages_max, 1, 1_000_000_000)?;
    }
    if let Some(horizon) = config.deduplication.horizon {
        millis("deduplication.horizon", horizon, Millis(1), LONGEST)?;
    }
    config.cluster.validate()?;
    config.flow.validate()?;
    config.checkpoints.validate()?;
    config.http.validate()?;
    config.health.validate()?;
    config.logging.validate()?;
    let refused = |error: crate::generator::settings::SettingsError| {
        Refused::new(format!("generator.{}", error.key), error.value, error.expected)
    };
    config.generator.validate().map_err(refused)?;
    if config.generator.schema_change.enabled && config.schema_registry.url.is_none() {
        let expected =
            "false where schema_registry.url is \"off\": bare bodies do not say which schema they were written with";
        return refuse("generator.schema_change.enabled", true, expected);
    }
    Ok(())
}

/// Properties that the clients set themselves, because delivery exactly once or the metrics rest on them, and what there
/// is instead.
const OWN_PROPERTIES: [(&str, &str); 15] = [
    ("bootstrap.servers", "given as kafka.brokers"),
    ("metadata.broker.list", "given as kafka.brokers"),
    ("transactional.id", "given as job.name"),
    ("transaction.timeout.ms", "given as kafka.transaction_timeout"),
    ("group.id", "given as job.name"),
    ("enable.idempotence", "left to Clicktide"),
    ("acks", "left to Clicktide"),
    ("request.required.acks", "left to Clicktide"),
    ("isolation.level", "left to Clicktide"),
    ("enable.auto.commit", "left to Clicktide"),
    ("enable.auto.offset.store", "left to Clicktide"),
    ("auto.offset.reset", "left to Clicktide"),
    ("partitioner", "left to Clicktide"),
    ("enable.partition.eof", "left to Clicktide"),
    ("statistics.interval.ms", "given as kafka.statistics_interval"),
];

impl Kafka {
    fn validate(&self) -> Verdict {
        if self.brokers.split(',').any(|broker| !is_address(broker.trim())) {
            let expected = "host:port, several of them separated by commas, such as \"127.0.0.1:9092\"";
            return refuse("kafka.brokers", format!("{:?}", self.brokers), expected);
        }
        let topics = [
            ("kafka.events_topic", &self.events_topic),
            ("kafka.results_topic", &self.results_topic),
            ("kafka.dead_letters_topic", &self.dead_letters_topic),
            ("kafka.progress_topic", &self.progress_topic),
        ];
        let sanitised = self.sanitised_events_topic.as_ref().map(|topic| ("kafka.sanitised_events_topic", topic));
        let mut keys = BTreeMap::new();
        for (key, topic) in topics.into_iter().chain(sanitised) {
            name(key, topic, 249)?;
            if let Some(other) = keys.insert(topic, key) {
                return refuse(key, format!("{topic:?}"), format!("another topic than {other}"));
            }
        }
        // Brokers allow 15 minutes unless told otherwise.
        millis("kafka.transaction_timeout", self.transaction_timeout, Millis(1_000), Millis(15 * 60_000))?;
        millis("kafka.lost_after", self.lost_after, Millis(3_000), Millis(86_400_000))?;
        millis("kafka.partitions_check_every", self.partitions_check_every, Millis(1_000), Millis(86_400_000))?;
        if let Some(interval) = self.statistics_interval {
            // librdkafka allows no longer one.
            millis("kafka.statistics_interval", interval, Millis(100), Millis(86_400_000))?;
        }
        for (property, instead) in OWN_PROPERTIES {
            if let Some(value) = self.properties.get(property) {
                return refuse(format!("kafka.properties.{property}"), format!("{value:?}"), instead);
            }
        }
        Ok(())
    }
}

impl Topics {
    fn validate(&self) -> Verdict {
        number("topics.events_partitions", self.events_partitions, 1, 100_000)?;
        number("topics.results_partitions", self.results_partitions, 1, 100_000)?;
        number("topics.replication_factor", self.replication_factor, 1, 1_000)?;
        number("topics.min_insync_replicas", self.min_insync_replicas, 1, self.replication_factor)?;
        let retention = |key, value| millis(key, value, Millis(1_000), LONGEST);
        retention("topics.events_retention", self.events_retention)?;
        retention("topics.results_retention", self.results_retention)?;
        retention("topics.dead_letters_retention", self.dead_letters_retention)?;
        number("topics.sanitised_events_partitions", self.sanitised_events_partitions, 1, 100_000)?;
        retention("topics.sanitised_events_retention", self.sanitised_events_retention)
    }
}

/// About 34 years. No sum of an event's time and some of these overflows.
const LONGEST: Millis = Millis(Windows::LIMIT_MS);

impl WindowSettings {
    fn validate(&self) -> Verdict {
        millis("windows.slide", self.slide, Millis(1), LONGEST)?;
        if self.size < self.slide {
            let expected =
                format!("at least windows.slide ({}), or events between two windows would be missed", self.slide);
            return refuse("windows.size", self.size, expected);
        }
        millis("windows.size", self.size, self.slide, LONGEST)?;
        millis("windows.offset", self.offset, Millis(-LONGEST.0), LONGEST)?;
        millis("windows.disorder_bound", self.disorder_bound, Millis(0), LONGEST)?;
        match self.idle_timeout {
            Some(idle_timeout) => millis("windows.idle_timeout", idle_timeout, Millis(1), LONGEST),
            None => Ok(()),
        }
    }
}

impl Validation {
    fn validate(&self) -> Verdict {
        // A page is the key of its results, which have to fit a record.
        number("validation.id_bytes_max", self.id_bytes_max, 1, 65_536)?;
        number("validation.page_url_bytes_max", self.page_url_bytes_max, 1, 65_536)?;
        millis("validation.future", self.future, Millis(0), LONGEST)
    }
}

/// What was overheard of a shorter secret's proof could be tried out against all there are.
const SECRET_BYTES_MIN: usize = 16;

impl Cluster {
    fn validate(&self) -> Verdict {
        number("cluster.processes", self.processes, 1, 1_000)?;
        if self.process >= self.processes {
            let expected = format!("below cluster.processes ({}): they count from 0", self.processes);
            return refuse("cluster.process", self.process, expected);
        }
        number("cluster.workers", self.workers, 1, 1_000)?;
        millis("cluster.connect_timeout", self.connect_timeout, Millis(1), Millis(86_400_000))?;
        millis("cluster.heartbeat_timeout", self.heartbeat_timeout, Millis(500), Millis(3_600_000))?;
        match &self.secret {
            Some(secret) if secret.expose().len() < SECRET_BYTES_MIN => {
                let expected = format!(
                    "a secret text of at least {SECRET_BYTES_MIN} bytes, such as `openssl rand -hex 32` writes"
                );
                refuse(
                    if self.secret_file.is_some() { "cluster.secret_file" } else { "cluster.secret" },
                    "***",
                    expected,
                )
            }
            _ => Ok(()),
        }
    }
}

impl Flow {
    fn validate(&self) -> Verdict {
        number("flow.ticks_ahead", self.ticks_ahead, 1, 1_000_000)?;
        number("flow.records_in_flight", self.records_in_flight, 1, 1_000_000_000)
    }
}

impl Checkpoints {
    fn validate(&self) -> Verdict {
        millis("checkpoints.interval", self.interval, Millis(1_000), Millis(60 * 60_000))?;
        number("checkpoints.keep", self.keep, 1, 1_000)?;
        match self.options.iter().next() {
            Some((option, _)) if !matches!(self.store, Some(StoreLocation::S3 { .. })) => {
                refuse(format!("checkpoints.options.{option}"), "…", "left out: only a store at s3://… has options")
            }
            _ => Ok(()),
        }
    }
}

impl Http {
    fn validate(&self) -> Verdict {
        number("http.history_windows", self.history_windows, 1, 1_000_000)?;
        number("http.page_rows_max", self.page_rows_max, 1, 1_000_000_000)?;
        if let Some(token) = &self.token
            && !is_token(token.expose())
        {
            let key = if self.token_file.is_some() { "http.token_file" } else { "http.token" };
            let expected = format!(
                "a secret text of {SECRET_BYTES_MIN} to {TOKEN_BYTES_MAX} letters, digits and -._~+/=, such as \
                 `openssl rand -hex 32` writes"
            );
            return refuse(key, "***", expected);
        }
        match self.cors_origins.iter().find(|origin| !is_origin(origin)) {
            Some(origin) => {
                let expected = "a list of origins as browsers send them: scheme://host or scheme://host:port, in lower case, \
                                such as \"https://intranet.example\"";
                refuse("http.cors_origins", format!("{origin:?}"), expected)
            }
            None => Ok(()),
        }
    }
}

/// The head of a request has to hold it.
const TOKEN_BYTES_MAX: usize = 4_096;

/// What can be sent as a bearer token (RFC 6750).
fn is_token(token: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    (SECRET_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) && token.bytes().all(plain)
}

/// What browsers send as an origin: neither a path nor a port that goes without saying.
fn is_origin(origin: &str) -> bool {
    let Some((scheme, authority)) = origin.split_once("://") else { return false };
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._:[]".contains(&byte);
    let default_port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return false,
    };
    authority.bytes().all(plain) && is_address(authority) && !authority.ends_with(default_port)
}

impl Health {
    fn validate(&self) -> Verdict {
        millis("health.step_age_max", self.step_age_max, Millis(1_000), LONGEST)?;
        number("health.lag_records_max", self.lag_records_max, 0, 1_000_000_000_000)?;
        millis("health.commit_age_max", self.commit_age_max, Millis(1_000), LONGEST)
    }
}

impl Logging {
    fn validate(&self) -> Verdict {
        if let Err(error) = logging::check_filter(&self.filter) {
            return refuse("logging.filter", format!("{:?}", self.filter), format!("a filter: {error}"));
        }
        if let Some(repeats_max) = self.repeats_max {
            number("logging.repeats_max", repeats_max, 1, 1_000_000)?;
        }
        millis("logging.repeats_interval", self.repeats_interval, Millis(1_000), Millis(86_400_000))?;
        if let Some(file) = self.file.as_ref().filter(|file| file.file_name().is_none()) {
            return refuse(
                "logging.file",
                format!("{file:?}"),
                "the path of a file, such as \"/var/log/clicktide.log\"",
            );
        }
        number("logging.file_megabytes_max", self.file_megabytes_max, 1, 1_000_000)?;
        number("logging.files_kept", self.files_kept, 0, 10_000)
    }
}

pub(super) fn refuse(key: impl Into<String>, value: impl fmt::Display, expected: impl Into<String>) -> Verdict {
    Err(Refused::new(key, value, expected))
}

fn number<T: PartialOrd + fmt::Display>(key: &str, value: T, min: T, max: T) -> Verdict {
    if min <= value && value <= max { Ok(()) } else { refuse(key, value, format!("between {min} and {max}")) }
}

pub(super) fn millis(key: &str, value: Millis, min: Millis, max: Millis) -> Verdict {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let shown = |limit: Millis| match limit {
        LONGEST => "34 years".to_owned(),
        limit if limit.0 == -LONGEST.0 => "-34 years".to_owned(),
        limit => limit.to_string(),
    };
    refuse(key, value, format!("between {} and {}", shown(min), shown(max)))
}

/// What Kafka takes as a topic's name, and what is safe as an id.
fn name(key: &str, value: &str, length_max: usize) -> Verdict {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    if (1..=length_max).contains(&value.len()) && value.bytes().all(plain) && value != "." && value != ".." {
        return Ok(());
    }
    refuse(key, format!("{value:?}"), format!("1 to {length_max} letters, digits, dots, underscores and hyphens"))
}

/// `host`, `host:port` or `[address]:port`, with or without a protocol in front.
fn is_address(broker: &str) -> bool {
    let address = broker.split_once("://").map_or(broker, |(_, address)| address);
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (address, None),
    };
    let host_fits = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == '/');
    host_fits && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}
