//! A client of a registry with Confluent's API.
//!
//! The crate `schema_registry_converter` does not serve here: it says only in a text which status an answer had, so that a wrong
//! password, a schema that there is not and one that does not fit look alike; the answer of one URL hides that of another; and it
//! reads answers of any size. What is left, three requests, is made with its own HTTP client, `reqwest`.

use std::error::Error;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use reqwest::blocking::{Client, Response};
use reqwest::{Certificate, Identity, Method, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::avro::Decoder;
use crate::avro::wire::SchemaId;
use crate::config::Secret;

/// The URLs of a registry, one or more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryUrls(Vec<String>);

impl FromStr for RegistryUrls {
    type Err = ();

    /// URLs separated by commas. A user is none of them: names and passwords are shown nowhere.
    fn from_str(text: &str) -> Result<Self, ()> {
        let url = |text: &str| {
            let url = Url::parse(text.trim()).map_err(drop)?;
            let plain = url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none();
            let fits = ["http", "https"].contains(&url.scheme()) && url.has_host() && plain;
            if fits { Ok(url.as_str().trim_end_matches('/').to_owned()) } else { Err(()) }
        };
        text.split(',').map(url).collect::<Result<_, _>>().map(RegistryUrls)
    }
}

impl fmt::Display for RegistryUrls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// How a registry is reached, and how patiently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrySettings {
    /// Where it is. They are asked one after the other until one can answer.
    pub urls: RegistryUrls,
    /// The name and the password for basic authentication.
    pub login: Option<(String, Secret)>,
    /// A file (PEM) with the only authorities that are trusted to sign the registry's certificate; none: those of the system.
    pub ca_file: Option<PathBuf>,
    /// Files (PEM) with this client's certificate and its key.
    pub identity_files: Option<(PathBuf, PathBuf)>,
    /// How long an answer may take.
    pub request_timeout: Duration,
    /// How long to wait before asking again, the first time and at most; twice as long each time.
    pub retry: (Duration, Duration),
    /// How long the answer is believed that there is no schema with an id.
    pub negative_answers_kept: Duration,
}

/// Why there is no answer, or not the one hoped for. No message holds a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// A file that TLS needs can't be used.
    #[error("the schema registry can't be asked: {0}")]
    Files(String),
    /// It does not answer, or says nothing that makes sense. That may be over soon.
    #[error("the schema registry does not answer: {0}")]
    Unavailable(String),
    /// It says that there is no such thing.
    #[error("the schema registry at {url} has none: {reason}")]
    Missing {
        /// Where it was asked.
        url: String,
        /// What it says.
        reason: String,
    },
    /// It says no.
    #[error("the schema registry at {url} refuses: {reason}")]
    Refused {
        /// Where it was asked.
        url: String,
        /// What it says, and what would help.
        reason: String,
    },
}

/// A schema registry.
pub struct Registry {
    settings: RegistrySettings,
    /// Made at the first request.
    client: OnceLock<Result<Client, String>>,
    /// Which of the URLs has answered last.
    answering: AtomicUsize,
}

/// A longer answer is none that makes sense.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// How much is shown of what a registry says.
const SHOWN_CHARS_MAX: usize = 500;
const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";

#[derive(Deserialize)]
struct SchemaAnswer {
    schema: String,
    #[serde(default, rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    references: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct IdAnswer {
    id: u32,
}

#[derive(Deserialize)]
struct CompatibilityAnswer {
    is_compatible: bool,
    #[serde(default)]
    messages: Vec<String>,
}

/// What a registry answers when it does not do what it is asked to.
#[derive(Deserialize)]
struct ErrorAnswer {
    error_code: i64,
    #[serde(default)]
    message: Option<String>,
}

/// A schema as the registry has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegisteredSchema {
    /// Its text.
    pub text: String,
    /// Why its text alone can't be used, if so.
    pub unusable: Option<String>,
}

impl RegisteredSchema {
    /// What reads the bodies that are written with it as events.
    ///
    /// # Errors
    /// Why nothing can: the field and the reason, where it does not resolve into our schema.
    pub fn decoder(&self) -> Result<Decoder, String> {
        match &self.unusable {
            Some(reason) => Err(reason.clone()),
            None => Decoder::new(&self.text).map_err(|error| error.to_string()),
        }
    }
}

impl Registry {
    /// A registry, which is not asked anything yet.
    pub fn new(settings: RegistrySettings) -> Registry {
        Registry { settings, client: OnceLock::new(), answering: AtomicUsize::new(0) }
    }

    /// How it is reached.
    pub fn settings(&self) -> &RegistrySettings {
        &self.settings
    }

    /// The schema with an id.
    ///
    /// # Errors
    /// See [`RegistryError`]; `Missing` when every URL that answers says so.
    pub fn schema(&self, id: SchemaId) -> Result<RegisteredSchema, RegistryError> {
        // Schemas that were deleted (softly) are still needed for the records that were written with them.
        let answer: SchemaAnswer = self.ask(&Method::GET, &format!("schemas/ids/{id}?deleted=true"), None)?;
        let unusable = match answer.schema_type.as_deref() {
            Some(kind) if !kind.eq_ignore_ascii_case("AVRO") => Some(format!("it is {kind}, and not Avro")),
            _ if !answer.references.is_empty() => {
                Some("it refers to schemas of other subjects, and those are not read".to_owned())
            }
            _ => None,
        };
        Ok(RegisteredSchema { text: answer.schema, unusable })
    }

    /// Registers a schema under a subject, unless it is there; returns its id.
    ///
    /// # Errors
    /// See [`RegistryError`]; `Refused` when it is not compatible with those that are there.
    pub fn register(&self, subject: &str, schema: &str) -> Result<SchemaId, RegistryError> {
        let answer: IdAnswer =
            self.ask(&Method::POST, &format!("subjects/{}/versions", path(subject)), Some(schema))?;
        Ok(SchemaId(answer.id))
    }

    /// The id of a schema that is registered under a subject.
    ///
    /// # Errors
    /// See [`RegistryError`]; `Missing` when it is not.
    pub fn look_up(&self, subject: &str, schema: &str) -> Result<SchemaId, RegistryError> {
        let answer: IdAnswer = self.ask(&Method::POST, &format!("subjects/{}", path(subject)), Some(schema))?;
        Ok(SchemaId(answer.id))
    }

    /// Whether a schema could be registered under a subject beside those that are there: why not, if so.
    ///
    /// # Errors
    /// See [`RegistryError`].
    pub fn incompatibility(&self, subject: &str, schema: &str) -> Result<Option<String>, RegistryError> {
        let asked = format!("compatibility/subjects/{}/versions/latest?verbose=true", path(subject));
        match self.ask::<CompatibilityAnswer>(&Method::POST, &asked, Some(schema)) {
            Ok(CompatibilityAnswer { is_compatible: true, .. }) | Err(RegistryError::Missing { .. }) => Ok(None),
            Ok(CompatibilityAnswer { messages, .. }) if messages.is_empty() => Ok(Some("it does not say why".into())),
            Ok(CompatibilityAnswer { messages, .. }) => Ok(Some(shown(&messages.join("; ")))),
            Err(error) => Err(error),
        }
    }

    /// Asks one URL after the other, beginning with the one that has answered last.
    fn ask<T: DeserializeOwned>(&self, method: &Method, asked: &str, schema: Option<&str>) -> Result<T, RegistryError> {
        let client = self.client.get_or_init(|| self.settings.client());
        let client = client.as_ref().map_err(|reason| RegistryError::Files(reason.clone()))?;
        let urls = &self.settings.urls.0;
        let first = self.answering.load(Ordering::Relaxed);
        let mut failure: Option<RegistryError> = None;
        let mut silent = Vec::new();
        for place in (0..urls.len()).map(|n| (first + n) % urls.len()) {
            let answer = self.ask_one(client, &urls[place], method, asked, schema);
            let outcome = match &answer {
                Ok(_) => "answered",
                Err(RegistryError::Missing { .. }) => "missing",
                Err(_) => "failed",
            };
            metrics::counter!(crate::metrics::SCHEMA_REQUESTS, "outcome" => outcome).increment(1);
            match answer {
                Ok(answer) => {
                    self.answering.store(place, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(RegistryError::Unavailable(reason)) => silent.push(reason),
                // A replica may not know yet what another one does, but a refusal is not overruled.
                Err(error @ RegistryError::Refused { .. }) => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| RegistryError::Unavailable(silent.join("; "))))
    }

    fn ask_one<T: DeserializeOwned>(
        &self,
        client: &Client,
        url: &str,
        method: &Method,
        asked: &str,
        schema: Option<&str>,
    ) -> Result<T, RegistryError> {
        let unavailable = |reason: String| RegistryError::Unavailable(format!("{url}: {reason}"));
        let mut request = client.request(method.clone(), format!("{url}/{asked}")).header("Accept", CONTENT_TYPE);
        if let Some((username, password)) = &self.settings.login {
            request = request.basic_auth(username, Some(password.expose()));
        }
        if let Some(schema) = schema {
            let body = json!({ "schema": schema }).to_string();
            request = request.header("Content-Type", CONTENT_TYPE).body(body);
        }
        let response = request.send().map_err(|error| unavailable(causes(&error.without_url())))?;
        let status = response.status();
        let body = read(response).map_err(unavailable)?;
        if status.is_success() {
            let answer = serde_json::from_slice(&body);
            return answer.map_err(|_| unavailable(format!("what it says is no answer to {method} {asked}")));
        }
        let said = serde_json::from_slice::<ErrorAnswer>(&body).ok();
        Err(failed(url, status, said, method, asked))
    }
}

/// What an answer with such a status means.
fn failed(url: &str, status: StatusCode, said: Option<ErrorAnswer>, method: &Method, asked: &str) -> RegistryError {
    let words = said.as_ref().map(|said| {
        let message = said.message.as_deref().unwrap_or("no message");
        format!("{} (error code {})", shown(message), said.error_code)
    });
    let reason = match &words {
        Some(words) => format!("{status}: {words}"),
        None => format!("{status} to {method} {asked}"),
    };
    let url = url.to_owned();
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => RegistryError::Refused {
            url,
            reason: format!("{reason}; are schema_registry.username and password right, and what may that user do?"),
        },
        StatusCode::NOT_FOUND if said.is_some() => RegistryError::Missing { url, reason },
        // Somebody who knows nothing of schemas has answered.
        StatusCode::NOT_FOUND => RegistryError::Unavailable(format!(
            "{url}: {reason}, in words that are not a schema registry's: is its path missing in schema_registry.url?"
        )),
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
            RegistryError::Unavailable(format!("{url}: {reason}"))
        }
        status if status.is_client_error() && said.is_some() => RegistryError::Refused { url, reason },
        _ => RegistryError::Unavailable(format!("{url}: {reason}")),
    }
}

impl RegistrySettings {
    fn client(&self) -> Result<Client, String> {
        // Not an error: another part of the program may have chosen one before.
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut builder = Client::builder().timeout(self.request_timeout).connect_timeout(self.request_timeout);
        if let Some(file) = &self.ca_file {
            let unusable = |reason: String| format!("schema_registry.ca_file = {file:?}: {reason}");
            let certificates = Certificate::from_pem_bundle(&content(file).map_err(unusable)?);
            let certificates = certificates.map_err(|error| unusable(causes(&error)))?;
            if certificates.is_empty() {
                return Err(unusable("there is no certificate (PEM) in it".to_owned()));
            }
            builder = builder.tls_certs_only(certificates);
        }
        if let Some((certificate, key)) = &self.identity_files {
            let unusable =
                |file: &Path, key: &str, reason: String| format!("schema_registry.{key} = {file:?}: {reason}");
            let mut pem = content(certificate).map_err(|e| unusable(certificate, "certificate_file", e))?;
            pem.push(b'\n');
            pem.extend(content(key).map_err(|e| unusable(key, "key_file", e))?);
            let identity = Identity::from_pem(&pem).map_err(|error| {
                unusable(certificate, "certificate_file", format!("with its key {key:?}: {}", causes(&error)))
            })?;
            builder = builder.identity(identity);
        }
        builder.build().map_err(|error| causes(&error))
    }
}

fn content(file: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(file).map_err(|error| error.to_string())
}

/// Reads an answer that is not too long.
fn read(response: Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    let read = response.take(ANSWER_BYTES_MAX + 1).read_to_end(&mut body);
    read.map_err(|error| format!("its answer broke off: {}", causes(&error)))?;
    if body.len() as u64 > ANSWER_BYTES_MAX {
        return Err(format!("its answer is longer than {ANSWER_BYTES_MAX} bytes"));
    }
    Ok(body)
}

/// A name as a part of a URL's path.
fn path(name: &str) -> impl fmt::Display {
    percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC)
}

/// What a registry says in one line of bounded length.
fn shown(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_CHARS_MAX).collect();
    line.trim().to_owned()
}

/// An error with what has caused it, since the last cause says most.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
