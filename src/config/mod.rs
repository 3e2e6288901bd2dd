//! The configuration: parsed once, validated once, then trusted.
//!
//! A TOML file, over it environment variables, over them flags: [`Config::load`]. `config/development.toml` and
//! `config/production.toml` have every key with its unit and default; `docs/configuration.md` says how they go together.
//!
//! Architecture invariant: nothing below `main` reads a configuration file, a flag or a `CLICKTIDE_` variable; what a part
//! needs is handed to it.

mod load;
mod meaning;
mod registry;
mod secret;
mod sections;
mod topics;
mod validate;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

use clicktide_dataflows::time::Windows;
use serde::{Deserialize, Serialize};

pub use load::{ConfigError, Environment, Override};
pub use meaning::Meaning;
pub use registry::SchemaRegistry;
pub use secret::Secret;
pub use sections::{
    Checkpoints, Cluster, DEVELOPMENT_HASH_KEY, DeadLetters, Deduplication, Flow, Health, Http, Job, Kafka, Logging,
    Privacy, Topics, Validation, WindowSettings,
};

use crate::avro::Decoder;
use crate::checkpoint::store::{Store, StoreError, open_store};
use crate::generator;
use crate::history::HistoryLimits;
use crate::http::{Access, HealthLimits, ViewLimits};
use crate::ingest::{Format, Ingest};
use crate::kafka::committer::JobTopics;
use crate::logging::{self, FileSettings, LogSettings, RepeatSettings};
use crate::privacy::HashKey;
use crate::registry::Schemas;
use crate::source::SourceSettings;
use crate::validation::Limits;

/// Everything Clicktide can be told. The default is good for a broker on this machine.
///
/// Made by [`Config::load`], which checks it. Whoever changes a field afterwards answers for its value: the methods here
/// panic on what `load` would have refused. Neither `Debug` nor `Serialize` shows a secret.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What the job is called.
    pub job: Job,
    /// The brokers and the topics.
    pub kafka: Kafka,
    /// By which schemas records are written.
    pub schema_registry: SchemaRegistry,
    /// What `topics create` makes.
    pub topics: Topics,
    /// The windows and event time.
    pub windows: WindowSettings,
    /// What an event may be at most.
    pub validation: Validation,
    /// What remains of personal data.
    pub privacy: Privacy,
    /// Which copies of an event count.
    pub deduplication: Deduplication,
    /// What becomes a dead letter.
    pub dead_letters: DeadLetters,
    /// Processes and workers.
    pub cluster: Cluster,
    /// Flow control.
    pub flow: Flow,
    /// Where the events of open windows are kept for the next start.
    pub checkpoints: Checkpoints,
    /// Health, metrics, the API and the dashboard.
    pub http: Http,
    /// What still counts as well.
    pub health: Health,
    /// Log lines.
    pub logging: Logging,
    /// The generator.
    pub generator: generator::Settings,
}

impl Config {
    /// The windows that events count in.
    pub fn windows(&self) -> Windows {
        let WindowSettings { size, slide, offset, .. } = self.windows;
        Windows::new(size.0, slide.0, offset.0).expect("windows were validated when the configuration was loaded")
    }

    /// What an event may be at most.
    pub fn limits(&self) -> Limits {
        let Validation { id_bytes_max, page_url_bytes_max, future } = self.validation;
        Limits { id_bytes_max, page_url_bytes_max, future_ms: future.0 }
    }

    /// The secret that turns ids into hashes.
    pub fn hash_key(&self) -> HashKey {
        let secret = self.privacy.hash_key.as_ref().map_or(DEVELOPMENT_HASH_KEY, Secret::expose);
        HashKey::new(secret).expect("the hash key was validated when the configuration was loaded")
    }

    /// How records are written: with a schema registry in its wire format, without one as bare bodies of the published schema. Each
    /// call is a registry anew, of which no schema is known.
    pub fn format(&self) -> Format {
        match self.schema_registry.registry() {
            Some(registry) => Format::Wire(Arc::new(Schemas::new(registry))),
            None => Format::Avro(Decoder::default()),
        }
    }

    /// How records are read and judged.
    pub fn ingest(&self) -> Ingest {
        Ingest {
            format: self.format(),
            limits: self.limits(),
            hash_key: self.hash_key(),
            page_key: self.privacy.page_key,
            windows: self.windows(),
            bound_ms: self.windows.disorder_bound.0,
        }
    }

    /// What is kept of the past of every partition.
    pub fn history(&self) -> HistoryLimits {
        let horizon_ms = self.deduplication.horizon.map(|horizon| horizon.0);
        let pages_max = self.privacy.pages_max.map(|pages| pages as usize);
        HistoryLimits { horizon_ms, pages_max }
    }

    /// How a source reads.
    pub fn source_settings(&self) -> SourceSettings {
        SourceSettings {
            ingest: Arc::new(self.ingest()),
            history: self.history(),
            idle_timeout_ms: self.windows.idle_timeout.map(|timeout| timeout.0),
            ticks_ahead: self.flow.ticks_ahead,
            records_in_flight: self.flow.records_in_flight,
            late_to_dead_letters: self.dead_letters.late,
            dead_letter_payload: self.privacy.dead_letter_payload,
            sanitised_events: self.kafka.sanitised_events_topic.is_some(),
        }
    }

    /// The topics of the job.
    pub fn job_topics(&self) -> JobTopics {
        JobTopics {
            events: self.kafka.events_topic.clone(),
            results: self.kafka.results_topic.clone(),
            dead_letters: self.kafka.dead_letters_topic.clone(),
            sanitised_events: self.kafka.sanitised_events_topic.clone(),
            progress: self.kafka.progress_topic.clone(),
        }
    }

    /// The checkpoint store of a job; none where it is off. A directory is made if it is not there.
    ///
    /// # Errors
    /// As [`open_store`].
    pub fn checkpoint_store(&self, job: &str) -> Result<Option<Arc<dyn Store>>, StoreError> {
        let Checkpoints { store, options, .. } = &self.checkpoints;
        store.as_ref().map(|location| open_store(location, options, job)).transpose()
    }

    /// This process's place in the job.
    pub fn cluster(&self) -> crate::cluster::Cluster {
        let Cluster { processes, process, workers, hosts, connect_timeout, heartbeat_timeout, secret, .. } =
            self.cluster.clone();
        crate::cluster::Cluster {
            processes,
            process,
            workers,
            hosts,
            connect_timeout: connect_timeout.duration(),
            heartbeat_timeout: heartbeat_timeout.duration(),
            secret,
        }
    }

    /// What is logged by the process or command of this name, which has a file of its own.
    pub fn log_settings(&self, name: &str) -> LogSettings {
        let Logging { format, filter, repeats_max, repeats_interval, file, file_megabytes_max, files_kept } =
            &self.logging;
        let repeats = |lines_max| RepeatSettings { lines_max, interval: repeats_interval.duration() };
        let of_process = |path: &PathBuf| FileSettings {
            path: logging::file_of(path, name),
            bytes_max: file_megabytes_max * 1_000_000,
            kept: *files_kept,
        };
        LogSettings {
            format: *format,
            filter: filter.clone(),
            repeats: repeats_max.map(repeats),
            file: file.as_ref().map(of_process),
        }
    }

    /// How many closed windows are kept for HTTP.
    pub fn view_limits(&self) -> ViewLimits {
        ViewLimits { windows_max: self.http.history_windows, page_rows_max: self.http.page_rows_max }
    }

    /// Who may see what is served over HTTP.
    pub fn access(&self) -> Access {
        Access { token: self.http.token.clone(), cors_origins: self.http.cors_origins.clone() }
    }

    /// Why whoever can connect from another machine sees the results, if that is so.
    pub fn open_to_others(&self) -> Option<&'static str> {
        let open = self.http.listen.is_some_and(|address| !address.ip().is_loopback()) && self.http.token.is_none();
        open.then_some("whoever can connect sees the results: set http.token_file, or let http.listen be an address of this machine alone")
    }

    /// What still counts as well. The processes of a cluster hear each other as long as `cluster.heartbeat_timeout` says.
    pub fn health_limits(&self) -> HealthLimits {
        let Health { step_age_max, lag_records_max, commit_age_max } = self.health;
        HealthLimits {
            step_age_max: step_age_max.duration(),
            heartbeat_age_max: self.cluster.heartbeat_timeout.duration(),
            lag_records_max,
            commit_age_max: commit_age_max.duration(),
        }
    }

    /// The part of the configuration that gives results their meaning.
    pub fn meaning(&self) -> Meaning {
        Meaning::of(self)
    }
}
