//! From files, the environment and flags to a [`Config`].
//!
//! Each source of values is a layer, and each variable and flag one of its own, so that an error can say where a value
//! came from.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use figment::error::Kind;
use figment::providers::{Format, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};

use super::{Config, Secret, validate};
use crate::generator::Scenario;
use crate::kafka::properties::{Properties, names_a_secret};

/// Why a configuration cannot be used. No message holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {file}: {source}")]
    File {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{file}:{line}: not TOML: {message}")]
    Syntax {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What the parser says.
        message: String,
    },
    /// There is no such key.
    #[error("{key} ({origin}): there is no such key; known here: {known}")]
    UnknownKey {
        /// The dotted key.
        key: String,
        /// Where it was given.
        origin: String,
        /// The keys there are.
        known: String,
    },
    /// A value cannot be used.
    #[error("{key} = {value} ({origin}): must be {expected}")]
    Value {
        /// The dotted key.
        key: String,
        /// The value, unless it is secret.
        value: String,
        /// Where it was given.
        origin: String,
        /// What would be right.
        expected: String,
    },
}

/// A flag of the command line that stands above file and environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Override {
    /// The flag as the user wrote it, for error messages: `--size`.
    pub flag: String,
    /// The dotted key: `windows.size`.
    pub key: String,
    /// The value as the user wrote it.
    pub value: String,
}

impl Override {
    /// `key` is `value`, says `flag`.
    pub fn new(flag: &str, key: &str, value: impl fmt::Display) -> Self {
        Override { flag: flag.to_owned(), key: key.to_owned(), value: value.to_string() }
    }

    /// What `text` says, `KEY=VALUE`, as `flag` has it; none if it has another form, or a name in the key is empty.
    pub fn of_text(flag: &str, text: &str) -> Option<Self> {
        let (key, value) = text.split_once('=')?;
        let named = key.trim().split('.').all(|name| !name.trim().is_empty());
        named.then(|| Override::new(flag, key.trim(), value.trim()))
    }
}

/// Environment variables by name.
pub type Environment = BTreeMap<String, String>;

impl Config {
    /// The configuration of `file`, if any, the environment of this process, and flags.
    ///
    /// # Errors
    /// The first key that is unknown or whose value cannot be used.
    pub fn load(file: Option<&Path>, overrides: &[Override]) -> Result<Config, ConfigError> {
        // A variable that is not UTF-8 is none of ours.
        let texts =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Config::load_from(file, &texts.collect(), overrides)
    }

    /// The same with a given environment.
    ///
    /// # Errors
    /// The first key that is unknown or whose value cannot be used.
    pub fn load_from(
        file: Option<&Path>,
        environment: &Environment,
        overrides: &[Override],
    ) -> Result<Config, ConfigError> {
        let layers = Layers::read(file, environment, overrides)?;
        let figment = layers.0.iter().fold(Figment::new(), |figment, layer| figment.merge(layer));
        let mut config: Config = figment.extract().map_err(|error| layers.explain(error))?;
        let refuse = |refused: validate::Refused| layers.refuse(refused);
        config.kafka.properties = resolve(PROPERTIES, &config.kafka.properties, environment).map_err(refuse)?;
        config.checkpoints.options = resolve(OPTIONS, &config.checkpoints.options, environment).map_err(refuse)?;
        layers.resolve_secrets(&mut config).map_err(refuse)?;
        validate::validate(&config).map_err(refuse)?;
        Ok(config)
    }
}

/// Where values were given.
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    /// What the generator's scenario of this name sets.
    Scenario(&'static str),
    File(PathBuf),
    Variable(String),
    Flag(String),
}

impl Origin {
    /// The greater wins.
    fn rank(&self) -> u8 {
        match self {
            Origin::Scenario(_) => 0,
            Origin::File(_) => 1,
            Origin::Variable(_) => 2,
            Origin::Flag(_) => 3,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Scenario(name) => write!(f, "scenario {name}"),
            Origin::File(file) => write!(f, "file {}", file.display()),
            Origin::Variable(name) => write!(f, "environment variable {name}"),
            Origin::Flag(flag) => write!(f, "flag {flag}"),
        }
    }
}

/// What one source gives.
struct Layer {
    origin: Origin,
    values: Dict,
}

impl Provider for &Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.origin.to_string())
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Map::from([(Profile::Default, self.values.clone())]))
    }
}

/// The key that names a preset of others.
const SCENARIO: &str = "generator.scenario";

/// Above the dotted keys of librdkafka's properties.
const PROPERTIES: &str = "kafka.properties.";

/// Above the keys of object_store's options, which have no dots.
const OPTIONS: &str = "checkpoints.options.";

impl Layer {
    /// `key` is `text`, which is read as a number or a boolean only where the default is one: a name or a password may
    /// look like anything.
    fn of_text(origin: Origin, key: &str, text: &str, defaults: &Value) -> Layer {
        let value = match defaults.find_ref(key) {
            Some(Value::Bool(..) | Value::Num(..)) => match text.trim().parse() {
                Ok(value @ (Value::Bool(..) | Value::Num(..))) => value,
                _ => Value::from(text),
            },
            _ => Value::from(text),
        };
        let (table, name) = match key.strip_prefix(PROPERTIES) {
            Some(property) => ("kafka.properties", property),
            None => key.rsplit_once('.').unwrap_or(("", key)),
        };
        let mut values = Dict::from([(name.to_owned(), value)]);
        for part in table.rsplit('.').filter(|part| !part.is_empty()) {
            values = Dict::from([(part.to_owned(), Value::from(values))]);
        }
        Layer { origin, values }
    }

    fn of_file(file: &Path) -> Result<Layer, ConfigError> {
        let text = fs::read_to_string(file).map_err(|source| ConfigError::File { file: file.to_owned(), source })?;
        let mut values: Dict = Toml::from_str(&text).map_err(|error| {
            // The parser's own text quotes the line, which may hold a secret.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let message = Some(error.message()).filter(|message| !message.is_empty());
            let message = message.unwrap_or("a value is missing, or its quotes are").to_owned();
            ConfigError::Syntax { file: file.to_owned(), line, message }
        })?;
        if let Some(Value::Dict(_, kafka)) = values.get_mut("kafka")
            && let Some(Value::Dict(_, properties)) = kafka.get_mut("properties")
        {
            // `sasl.password = …` is a table in TOML, `"sasl.password" = …` is not; here they are the same.
            *properties = flatten(std::mem::take(properties));
        }
        Ok(Layer { origin: Origin::File(file.to_owned()), values })
    }

    fn get(&self, key: &str) -> Option<&Value> {
        let (table, name) = match key.strip_prefix(PROPERTIES) {
            Some(property) => ("kafka.properties", property),
            None => key.rsplit_once('.').unwrap_or(("", key)),
        };
        let table =
            table.split('.').filter(|part| !part.is_empty()).try_fold(&self.values, |table, part| {
                match table.get(part)? {
                    Value::Dict(_, table) => Some(table),
                    _ => None,
                }
            })?;
        table.get(name)
    }
}

fn flatten(table: Dict) -> Dict {
    let mut flat = Dict::new();
    for (name, value) in table {
        match value {
            Value::Dict(_, inner) => {
                flat.extend(flatten(inner).into_iter().map(|(rest, value)| (format!("{name}.{rest}"), value)));
            }
            value => drop(flat.insert(name, value)),
        }
    }
    flat
}

/// All layers, the lowest first.
struct Layers(Vec<Layer>);

impl Layers {
    fn read(file: Option<&Path>, environment: &Environment, overrides: &[Override]) -> Result<Layers, ConfigError> {
        let defaults = Value::serialize(Config::default()).unwrap_or_else(|_| Value::from(Dict::new()));
        let mut layers = Vec::new();
        layers.extend(file.map(Layer::of_file).transpose()?);
        // An empty variable is as good as none, which is how compose files pass what is not set.
        let set = || environment.iter().filter(|(_, value)| !value.is_empty());
        for (name, value) in set() {
            let origin = || Origin::Variable(name.clone());
            match name.as_str() {
                "KAFKA_BROKERS" => layers.push(Layer::of_text(origin(), "kafka.brokers", value, &defaults)),
                "EVENTS_PER_SECOND" => {
                    layers.push(Layer::of_text(origin(), "generator.events_per_second", value, &defaults));
                }
                "EVENT_DURATION_HOURS" => {
                    let duration = hours(value).ok_or_else(|| ConfigError::Value {
                        key: "generator.duration".to_owned(),
                        value: value.clone(),
                        origin: origin().to_string(),
                        expected: "a number of hours above 0, such as 0.5".to_owned(),
                    })?;
                    layers.push(Layer::of_text(origin(), "generator.duration", &duration, &defaults));
                }
                _ => {}
            }
        }
        for (name, value) in set() {
            if let Some(key) = key_of_variable(name) {
                layers.push(Layer::of_text(Origin::Variable(name.clone()), &key, value, &defaults));
            }
        }
        for Override { flag, key, value } in overrides {
            layers.push(Layer::of_text(Origin::Flag(flag.clone()), key, value, &defaults));
        }
        let mut layers = Layers(layers);
        layers.apply_scenario(&defaults);
        Ok(layers)
    }

    /// Puts what the generator's scenario sets just below the source that names it: a file's, the environment's or the flags' own
    /// keys stand above it.
    fn apply_scenario(&mut self, defaults: &Value) {
        let Some(layer) = self.layer_of(SCENARIO) else { return };
        let name = layer.get(SCENARIO).and_then(Value::as_str);
        // Whatever is no scenario is refused as other values are.
        let Some(scenario) = name.and_then(Scenario::of_name) else { return };
        let rank = layer.origin.rank();
        let place = self.0.iter().position(|layer| layer.origin.rank() == rank).unwrap_or(0);
        let set = scenario.keys().iter().map(|(key, value)| {
            Layer::of_text(Origin::Scenario(scenario.name()), &format!("generator.{key}"), value, defaults)
        });
        self.0.splice(place..place, set);
    }

    /// The layer whose value for `key` counts.
    fn layer_of(&self, key: &str) -> Option<&Layer> {
        self.0.iter().rev().find(|layer| layer.get(key).is_some())
    }

    fn origin_of(&self, key: &str) -> String {
        self.layer_of(key).map_or_else(|| "the default".to_owned(), |layer| layer.origin.to_string())
    }

    fn explain(&self, error: figment::Error) -> ConfigError {
        let key = error.path.join(".");
        if let Kind::UnknownField(_, known) = &error.kind {
            return ConfigError::UnknownKey { origin: self.origin_of(&key), key, known: known.join(", ") };
        }
        let expected = match &error.kind {
            Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected) => plain_type(expected).to_owned(),
            Kind::UnknownVariant(_, variants) => {
                let quoted: Vec<_> = variants.iter().map(|variant| format!("{variant:?}")).collect();
                format!("one of {}", quoted.join(", "))
            }
            // Nothing else can be wrong with a value that has a type; the kind's own text may quote the value.
            _ if is_secret(&key) => "a text".to_owned(),
            other => other.to_string(),
        };
        let value = match self.layer_of(&key).and_then(|layer| layer.get(&key)) {
            Some(_) if is_secret(&key) => "***".to_owned(),
            // A URL may have a user and a password in it, which it must not.
            Some(Value::String(_, text)) if key.ends_with("url") && text.contains('@') => "***".to_owned(),
            Some(value) => show(value),
            None => "?".to_owned(),
        };
        ConfigError::Value { origin: self.origin_of(&key), key, value, expected }
    }

    fn refuse(&self, refused: validate::Refused) -> ConfigError {
        let validate::Refused { key, value, expected } = refused;
        ConfigError::Value { origin: self.origin_of(&key), key, value, expected }
    }

    /// What the file `file_key` names holds, unless a higher source gives the secret `key` itself. The names are said in
    /// full, the secret is not.
    fn secret_in_file(
        &self,
        key: &str,
        file_key: &str,
        file: Option<&Path>,
    ) -> Result<Option<Secret>, validate::Refused> {
        let Some(file) = file else { return Ok(None) };
        let rank = |key| self.layer_of(key).map_or(0, |layer| layer.origin.rank());
        let name = key.rsplit('.').next().unwrap_or(key);
        let refuse = |expected: String| Err(validate::Refused::new(file_key, format!("{file:?}"), expected));
        match rank(key).cmp(&rank(file_key)) {
            Ordering::Greater => return Ok(None),
            Ordering::Equal => return refuse(format!("left out where {name} is set: both say what it is")),
            Ordering::Less => {}
        }
        match fs::read_to_string(file) {
            Ok(text) if text.trim().is_empty() => refuse("a file with the secret in it; this one is empty".to_owned()),
            Ok(text) => Ok(Some(Secret::new(text.trim()))),
            Err(error) => refuse(format!("a file that can be read: {error}")),
        }
    }

    /// Puts secrets that are in files where those are that are given themselves; of the two, one is left.
    fn resolve_secrets(&self, config: &mut Config) -> Result<(), validate::Refused> {
        let privacy = &mut config.privacy;
        match self.secret_in_file("privacy.hash_key", "privacy.hash_key_file", privacy.hash_key_file.as_deref())? {
            Some(secret) => privacy.hash_key = Some(secret),
            None => privacy.hash_key_file = None,
        }
        let registry = &mut config.schema_registry;
        let password_file = registry.password_file.as_deref();
        match self.secret_in_file("schema_registry.password", "schema_registry.password_file", password_file)? {
            Some(secret) => registry.password = Some(secret),
            None => registry.password_file = None,
        }
        let cluster = &mut config.cluster;
        match self.secret_in_file("cluster.secret", "cluster.secret_file", cluster.secret_file.as_deref())? {
            Some(secret) => cluster.secret = Some(secret),
            None => cluster.secret_file = None,
        }
        let http = &mut config.http;
        match self.secret_in_file("http.token", "http.token_file", http.token_file.as_deref())? {
            Some(secret) => http.token = Some(secret),
            None => http.token_file = None,
        }
        Ok(())
    }
}

/// The dotted key that `CLICKTIDE_SECTION__KEY` stands for.
fn key_of_variable(name: &str) -> Option<String> {
    let parts = name.strip_prefix("CLICKTIDE_")?.to_ascii_lowercase();
    if !parts.contains("__") {
        return None;
    }
    match parts.strip_prefix("kafka__properties__") {
        // The properties of librdkafka have dots where a variable's name cannot.
        Some(property) => Some(format!("{PROPERTIES}{}", property.replace("__", ".").replace('_', "."))),
        None => Some(parts.replace("__", ".")),
    }
}

/// Decimal hours as a duration's text.
fn hours(text: &str) -> Option<String> {
    let hours: f64 = text.trim().parse().ok()?;
    let ms = (hours * 3_600_000.0).round();
    (1.0..=1e15).contains(&ms).then(|| format!("{}ms", ms as i64))
}

/// Reads the properties whose values are `env:NAME` or `file:/path`.
fn resolve(above: &str, properties: &Properties, environment: &Environment) -> Result<Properties, validate::Refused> {
    let mut resolved = properties.clone();
    for (name, value) in properties.iter() {
        let refuse = |expected| validate::Refused::new(format!("{above}{name}"), format!("{value:?}"), expected);
        if let Some(variable) = value.strip_prefix("env:") {
            let text = environment.get(variable).filter(|text| !text.is_empty());
            let text = text.ok_or_else(|| refuse(format!("followed by a variable that is set; {variable} is not")))?;
            resolved.set_hidden(name, text);
        } else if let Some(path) = value.strip_prefix("file:") {
            let text = fs::read_to_string(path)
                .map_err(|error| refuse(format!("followed by the path of a file that can be read: {error}")))?;
            resolved.set_hidden(name, text.trim_end());
        }
    }
    Ok(resolved)
}

fn is_secret(key: &str) -> bool {
    let property = key.strip_prefix(PROPERTIES).or_else(|| key.strip_prefix(OPTIONS));
    let secrets = ["privacy.hash_key", "cluster.secret", "http.token", "schema_registry.password"];
    secrets.contains(&key) || property.is_some_and(names_a_secret)
}

/// A value as it is written in TOML.
fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Bool(_, value) => value.to_string(),
        Value::Num(_, number) => {
            let whole = number.to_i128().map(|n| n.to_string()).or_else(|| number.to_u128().map(|n| n.to_string()));
            whole.or_else(|| number.to_f64().map(|n| n.to_string())).unwrap_or_default()
        }
        Value::Char(_, c) => format!("{:?}", c.to_string()),
        Value::Array(..) => "a list".to_owned(),
        Value::Dict(..) => "a table".to_owned(),
        Value::Empty(..) => "nothing".to_owned(),
    }
}

/// What serde calls a type, in words.
fn plain_type(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number, 0 or more, within its range",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number within its range",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "path string" | "a string" => "a text",
        other if other.starts_with("struct ") || other == "a map" => "a table of keys",
        other => other,
    }
}
