//! `[schema_registry]`: by which schemas records are written.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Secret;
use super::validate::{Verdict, millis, refuse};
use crate::millis::{Millis, or_off};
use crate::registry::{Publication, Registry, RegistrySettings, RegistryUrls, SubjectNaming};

/// `[schema_registry]`: a registry with Confluent's API. Without one, values are bare Avro bodies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SchemaRegistry {
    /// Where it is, or off.
    #[serde(with = "or_off")]
    pub url: Option<RegistryUrls>,
    /// The user, where there are some.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The user's password. Once a configuration is loaded, this is also what `password_file` holds.
    #[serde(skip_serializing)]
    pub password: Option<Secret>,
    /// A file with that password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// A file with the authorities that are trusted, in place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// A file with this client's certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate_file: Option<PathBuf>,
    /// A file with the key of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// How long an answer may take.
    pub request_timeout: Millis,
    /// How long to wait before asking again, the first time.
    pub retry_first: Millis,
    /// How long at most.
    pub retry_max: Millis,
    /// How long it is believed that there is no schema with an id.
    pub negative_answers_kept: Millis,
    /// How subjects are named.
    pub subject_naming: SubjectNaming,
    /// Whether our schemas are registered; otherwise they have to be there.
    pub register: bool,
}

impl Default for SchemaRegistry {
    fn default() -> Self {
        SchemaRegistry {
            url: None,
            username: None,
            password: None,
            password_file: None,
            ca_file: None,
            certificate_file: None,
            key_file: None,
            request_timeout: Millis(5_000),
            retry_first: Millis(100),
            retry_max: Millis(10_000),
            negative_answers_kept: Millis(60_000),
            subject_naming: SubjectNaming::Topic,
            register: true,
        }
    }
}

const HOUR: Millis = Millis(3_600_000);

impl SchemaRegistry {
    /// The registry, if there is one.
    pub fn registry(&self) -> Option<Registry> {
        let login = self.username.clone().zip(self.password.clone());
        Some(Registry::new(RegistrySettings {
            urls: self.url.clone()?,
            login,
            ca_file: self.ca_file.clone(),
            identity_files: self.certificate_file.clone().zip(self.key_file.clone()),
            request_timeout: self.request_timeout.duration(),
            retry: (self.retry_first.duration(), self.retry_max.duration()),
            negative_answers_kept: self.negative_answers_kept.duration(),
        }))
    }

    /// How our own schemas come to be in it.
    pub fn publication(&self) -> Publication {
        Publication { naming: self.subject_naming, register: self.register }
    }

    pub(super) fn validate(&self) -> Verdict {
        millis("schema_registry.request_timeout", self.request_timeout, Millis(100), HOUR)?;
        millis("schema_registry.retry_first", self.retry_first, Millis(10), HOUR)?;
        millis("schema_registry.retry_max", self.retry_max, self.retry_first, HOUR)?;
        millis(
            "schema_registry.negative_answers_kept",
            self.negative_answers_kept,
            Millis(1_000),
            Millis(24 * HOUR.0),
        )?;
        let password = || if self.password_file.is_some() { "password_file" } else { "password" };
        match (&self.username, &self.password) {
            (Some(username), None) => {
                let expected = "left out where there is no schema_registry.password";
                return refuse("schema_registry.username", format!("{username:?}"), expected);
            }
            (None, Some(_)) => {
                let key = format!("schema_registry.{}", password());
                return refuse(key, "***", "left out where there is no schema_registry.username");
            }
            (Some(username), Some(_)) if username.is_empty() || username.contains(':') => {
                return refuse("schema_registry.username", format!("{username:?}"), "a name without a colon");
            }
            _ => {}
        }
        match (&self.certificate_file, &self.key_file) {
            (Some(file), None) => {
                refuse("schema_registry.certificate_file", format!("{file:?}"), "given with schema_registry.key_file")
            }
            (None, Some(file)) => {
                refuse("schema_registry.key_file", format!("{file:?}"), "given with schema_registry.certificate_file")
            }
            _ => Ok(()),
        }
    }
}
