//! A configuration: the file's TOML, a line `==`, and lines `NAME=VALUE` of the environment; a line that begins with `--set ` is a
//! flag's `KEY=VALUE`.
//!
//! It is loaded, and then everything that is made of it can be made; or it is refused by a line that names the key or the place,
//! and does not hold a secret.

use std::fs;
use std::path::Path;

use clicktide::config::{Config, ConfigError, Environment, Override};

/// Not in any input, but for one that was made to have it.
const SECRET: &str = "the-secret-that-nobody-may-see-5b1f";

/// Checks one configuration.
pub fn run(data: &[u8]) {
    let (toml, rest) = super::parts(data);
    let Ok(rest) = std::str::from_utf8(rest) else { return };
    let mut environment = Environment::new();
    let mut overrides = Vec::new();
    for line in rest.lines() {
        if let Some(set) = line.strip_prefix("--set ").filter(|set| set.contains('=')) {
            // The command line refuses the others.
            overrides.extend(Override::of_text("--set", set));
        } else if let Some((name, value)) = line.split_once('=') {
            environment.insert(name.to_owned(), value.to_owned());
        }
    }
    for name in ["PRIVACY__HASH_KEY", "CLUSTER__SECRET", "HTTP__TOKEN", "KAFKA__PROPERTIES__SASL_PASSWORD"] {
        environment.entry(format!("CLICKTIDE_{name}")).or_insert_with(|| SECRET.to_owned());
    }
    if names_a_file(toml) || names_a_file(rest.as_bytes()) {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("clicktide.toml");
    fs::write(&file, toml).expect("a file");
    match Config::load_from(Some(&file), &environment, &overrides) {
        Ok(config) => check(&config),
        Err(error) => check_error(&error, &file),
    }
}

/// Whether a secret or a property may be read from a file, which may be any on this machine.
fn names_a_file(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text).to_ascii_lowercase();
    // TOML can write any character by its number.
    text.contains("_file") || text.contains("file:") || text.contains("\\u") || text.contains("\\x")
}

fn check(config: &Config) {
    let (windows, limits) = (config.windows(), config.limits());
    assert!(windows.size_ms() > 0 && limits.future_ms >= 0);
    config.ingest();
    config.source_settings();
    config.job_topics();
    config.cluster();
    config.log_settings("run");
    config.view_limits();
    config.access();
    config.open_to_others();
    config.health_limits();
    let meaning = config.meaning();
    assert_eq!(meaning.differences(&meaning.to_json()), Vec::<String>::new());
    let shown = serde_json::to_string(config).expect("a configuration can be written as JSON");
    for text in [format!("{config:?}"), shown, meaning.to_json()] {
        assert!(!text.contains(SECRET), "{text}");
    }
}

fn check_error(error: &ConfigError, file: &Path) {
    let text = error.to_string();
    assert!(!text.contains(SECRET) && !format!("{error:?}").contains(SECRET), "{text}");
    match error {
        ConfigError::File { .. } => {}
        ConfigError::Syntax { file: at, line, message } => {
            assert!(at == file && *line > 0 && !message.is_empty(), "{text}");
        }
        ConfigError::UnknownKey { key, origin, .. } => assert!(!key.is_empty() && !origin.is_empty(), "{text}"),
        ConfigError::Value { key, origin, expected, .. } => {
            assert!(!key.is_empty() && !origin.is_empty() && !expected.is_empty(), "{text}");
        }
    }
}
