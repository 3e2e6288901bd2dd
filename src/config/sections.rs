//! The sections of the configuration and their defaults. The generator's is [`crate::generator::Settings`].

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::Secret;
use crate::checkpoint::store::StoreLocation;
use crate::http::{HealthLimits, ViewLimits};
use crate::kafka::properties::Properties;
use crate::logging::LogFormat;
use crate::millis::{Millis, or_off};
use crate::privacy::PageKey;
use crate::source::DeadLetterPayload;
use crate::validation::Limits;

/// The key that ids are hashed with where none is configured: for development, since everybody knows it.
pub const DEVELOPMENT_HASH_KEY: &str = "clicktide development key, not a secret";

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;

/// `[job]`: what the job is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Job {
    /// The job's name: its transactional id and consumer group. Two jobs of one name fence each other off.
    pub name: String,
}

/// `[kafka]`: the brokers and the topics.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Kafka {
    /// The brokers to begin with: `host:port`, separated by commas.
    pub brokers: String,
    /// The topic of the click events.
    pub events_topic: String,
    /// The topic of the results.
    pub results_topic: String,
    /// The topic of rejected records.
    pub dead_letters_topic: String,
    /// The topic of the valid events without their personal data; off: there are none.
    #[serde(with = "or_off")]
    pub sanitised_events_topic: Option<String>,
    /// The topic of what has been committed, one per job.
    pub progress_topic: String,
    /// After how long without a sign of life the broker aborts the job's transaction; readers wait as long for a dead job.
    pub transaction_timeout: Millis,
    /// When no broker has answered for as long, the job fails.
    pub lost_after: Millis,
    /// How often it is looked whether the events topic has more partitions than the job reads.
    pub partitions_check_every: Millis,
    /// How often the clients say how they are, for the metrics; off: never.
    #[serde(with = "or_off")]
    pub statistics_interval: Option<Millis>,
    /// Any further properties of librdkafka, for all clients.
    #[serde(skip_serializing)]
    pub properties: Properties,
}

/// `[topics]`: what `topics create` makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Topics {
    /// Partitions of the events topic.
    pub events_partitions: i32,
    /// Partitions of the results topic.
    pub results_partitions: i32,
    /// On how many brokers each partition is.
    pub replication_factor: i32,
    /// How many brokers must have a record before it is acknowledged.
    pub min_insync_replicas: i32,
    /// How long events are kept.
    pub events_retention: Millis,
    /// How long results are kept.
    pub results_retention: Millis,
    /// How long dead letters are kept.
    pub dead_letters_retention: Millis,
    /// Partitions of the topic of sanitised events.
    pub sanitised_events_partitions: i32,
    /// How long sanitised events are kept.
    pub sanitised_events_retention: Millis,
}

/// `[windows]`: the sliding windows and event time. All of it gives results their meaning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WindowSettings {
    /// The length of every window.
    pub size: Millis,
    /// The distance between the starts of two windows.
    pub slide: Millis,
    /// Windows start at the multiples of the slide plus this; may be negative.
    pub offset: Millis,
    /// How far events of a partition may come out of order before they are late.
    pub disorder_bound: Millis,
    /// After how long without a rise of its watermark a partition that has been read to its end is idle; off: never.
    #[serde(with = "or_off")]
    pub idle_timeout: Option<Millis>,
}

/// `[validation]`: what an event may be at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Validation {
    /// The longest user or session id, bytes of UTF-8.
    pub id_bytes_max: usize,
    /// The longest page URL, bytes of UTF-8.
    pub page_url_bytes_max: usize,
    /// How far an event's time may lie after its record's own.
    pub future: Millis,
}

/// `[privacy]`: what remains of personal data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Privacy {
    /// The secret that turns ids into hashes; [`DEVELOPMENT_HASH_KEY`] if there is none. Once a configuration is loaded,
    /// this is also what `hash_key_file` holds.
    #[serde(skip_serializing)]
    pub hash_key: Option<Secret>,
    /// A file with that secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash_key_file: Option<PathBuf>,
    /// How much of a URL is the page.
    pub page_key: PageKey,
    /// How many pages of a partition are told apart in a stretch of event time as long as a window; off: all.
    #[serde(with = "or_off")]
    pub pages_max: Option<u32>,
    /// What is kept of the bytes of a rejected record.
    pub dead_letter_payload: DeadLetterPayload,
}

/// `[deduplication]`: which copies of an event count. It gives results their meaning.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Deduplication {
    /// For how long an event is remembered, so that its copies count in nothing; off: every copy counts.
    #[serde(with = "or_off")]
    pub horizon: Option<Millis>,
}

/// `[dead_letters]`: what becomes a dead letter, beside the records that are rejected.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeadLetters {
    /// Whether late events become dead letters too.
    pub late: bool,
}

/// `[cluster]`: processes and workers, also `-n`, `-p`, `-w` and `-h`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// Processes of the cluster.
    pub processes: usize,
    /// Which of them this one is, from 0.
    pub process: usize,
    /// Workers, which are threads, of each process.
    pub workers: usize,
    /// A file with one `host:port` per process, line by line; without it, ports of this machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hosts: Option<PathBuf>,
    /// How long the processes wait for each other at the start.
    pub connect_timeout: Millis,
    /// When another process has not been heard for as long, it is taken for lost.
    pub heartbeat_timeout: Millis,
    /// The secret by which the processes know each other. Once a configuration is loaded, this is also what `secret_file`
    /// holds.
    #[serde(skip_serializing)]
    pub secret: Option<Secret>,
    /// A file with that secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
}

/// `[flow]`: flow control.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Flow {
    /// How many slides a partition may be ahead of what has been committed.
    pub ticks_ahead: i64,
    /// How many records of a worker may be ahead of what has been committed.
    pub records_in_flight: usize,
}

/// `[checkpoints]`: where the events of open windows are kept for the next start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Checkpoints {
    /// A directory that all processes share, or S3 and its like, or off.
    #[serde(with = "or_off")]
    pub store: Option<StoreLocation>,
    /// How long after one checkpoint the next one is written.
    pub interval: Millis,
    /// How many are kept.
    pub keep: usize,
    /// Options of the crate `object_store` for S3, above the variables AWS_… of the environment.
    #[serde(skip_serializing)]
    pub options: Properties,
}

/// `[http]`: health, metrics, the API and the dashboard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// The address and port to listen on, or off.
    #[serde(with = "or_off")]
    pub listen: Option<SocketAddr>,
    /// How many closed windows are kept in memory.
    pub history_windows: usize,
    /// How many page rows are kept in all of them together.
    pub page_rows_max: usize,
    /// The token that requests have to bring, but for health and the dashboard's own files. Once a configuration is loaded,
    /// this is also what `token_file` holds.
    #[serde(skip_serializing)]
    pub token: Option<Secret>,
    /// A file with that token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// The origins of other sites whose pages may read the API in a browser. As one text, they are separated by commas.
    #[serde(deserialize_with = "texts")]
    pub cors_origins: Vec<String>,
}

/// `[health]`: what still counts as well, for `/healthz` and `/readyz`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Health {
    /// How long a worker may take over one step; `/healthz` fails beyond it.
    pub step_age_max: Millis,
    /// How many records may be unread in all partitions together; `/readyz` fails beyond it.
    pub lag_records_max: i64,
    /// How long a closed window may wait for its commit; `/readyz` fails beyond it.
    pub commit_age_max: Millis,
}

/// `[logging]`: log lines on standard error and in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logging {
    /// How they look.
    pub format: LogFormat,
    /// Which there are: a level, or a list of `target=level`.
    pub filter: String,
    /// How often the same warning or error is told within the interval; off: always.
    #[serde(with = "or_off")]
    pub repeats_max: Option<u32>,
    /// The interval in which repeats are counted.
    pub repeats_interval: Millis,
    /// A file for the lines too, as JSON; each process has one of its own, with its index in the name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// The file is begun anew before it is larger than so many million bytes.
    pub file_megabytes_max: u64,
    /// How many files before that are kept, packed.
    pub files_kept: usize,
}

impl Default for Job {
    fn default() -> Self {
        Job { name: "clicktide".to_owned() }
    }
}

impl Default for Kafka {
    fn default() -> Self {
        Kafka {
            brokers: "127.0.0.1:9092".to_owned(),
            events_topic: "clickstream-events".to_owned(),
            results_topic: "analytics-results".to_owned(),
            dead_letters_topic: "clickstream-dead-letters".to_owned(),
            sanitised_events_topic: None,
            progress_topic: "clicktide-progress".to_owned(),
            transaction_timeout: Millis(15_000),
            lost_after: Millis(20_000),
            partitions_check_every: Millis(30_000),
            statistics_interval: Some(Millis(5_000)),
            properties: Properties::default(),
        }
    }
}

impl Default for Topics {
    fn default() -> Self {
        Topics {
            events_partitions: 6,
            results_partitions: 3,
            replication_factor: 1,
            min_insync_replicas: 1,
            events_retention: Millis(2 * HOUR),
            results_retention: Millis(24 * HOUR),
            dead_letters_retention: Millis(24 * HOUR),
            sanitised_events_partitions: 6,
            sanitised_events_retention: Millis(24 * HOUR),
        }
    }
}

impl Default for WindowSettings {
    fn default() -> Self {
        WindowSettings {
            size: Millis(5 * MINUTE),
            slide: Millis(10_000),
            offset: Millis(0),
            disorder_bound: Millis(30_000),
            idle_timeout: Some(Millis(30_000)),
        }
    }
}

impl Default for Validation {
    fn default() -> Self {
        let Limits { id_bytes_max, page_url_bytes_max, future_ms } = Limits::default();
        Validation { id_bytes_max, page_url_bytes_max, future: Millis(future_ms) }
    }
}

impl Default for Privacy {
    fn default() -> Self {
        Privacy {
            hash_key: None,
            hash_key_file: None,
            page_key: PageKey::Full,
            pages_max: None,
            dead_letter_payload: DeadLetterPayload::Original,
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Cluster {
            processes: 1,
            process: 0,
            workers: 2,
            hosts: None,
            connect_timeout: Millis(60_000),
            heartbeat_timeout: Millis(10_000),
            secret: None,
            secret_file: None,
        }
    }
}

impl Default for Flow {
    fn default() -> Self {
        Flow { ticks_ahead: 16, records_in_flight: 1_000_000 }
    }
}

impl Default for Checkpoints {
    fn default() -> Self {
        Checkpoints {
            store: Some(StoreLocation::Directory("checkpoints".into())),
            interval: Millis(30_000),
            keep: 3,
            options: Properties::default(),
        }
    }
}

impl Default for Http {
    fn default() -> Self {
        let ViewLimits { windows_max, page_rows_max } = ViewLimits::default();
        Http {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080))),
            history_windows: windows_max,
            page_rows_max,
            token: None,
            token_file: None,
            cors_origins: Vec::new(),
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        let HealthLimits { step_age_max, lag_records_max, commit_age_max, .. } = HealthLimits::default();
        let millis = |duration: Duration| Millis(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX));
        Health { step_age_max: millis(step_age_max), lag_records_max, commit_age_max: millis(commit_age_max) }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Logging {
            format: LogFormat::Auto,
            filter: "info".to_owned(),
            repeats_max: Some(5),
            repeats_interval: Millis(10_000),
            file: None,
            file_megabytes_max: 100,
            files_kept: 7,
        }
    }
}

/// Reads a list of texts, or one text in which they are separated by commas, as a variable has to have them.
fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Texts;

    impl<'de> Visitor<'de> for Texts {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of texts")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(text.split(',').map(|text| text.trim().to_owned()).filter(|text| !text.is_empty()).collect())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<String>, A::Error> {
            let mut texts = Vec::new();
            while let Some(text) = list.next_element()? {
                texts.push(text);
            }
            Ok(texts)
        }
    }

    deserializer.deserialize_any(Texts)
}
