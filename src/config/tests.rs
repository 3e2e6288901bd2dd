//! Configurations from texts, and the files that are shipped.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::*;
use crate::checkpoint::store::StoreLocation;
use crate::millis::Millis;
use crate::privacy::PageKey;
use crate::source::DeadLetterPayload;

fn environment(variables: &[(&str, &str)]) -> Environment {
    variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The configuration of a file with this text, an environment, and flags as (key, value).
fn load(toml: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("test.toml");
    std::fs::write(&file, toml).unwrap();
    let flags: Vec<_> = flags.iter().map(|(key, value)| Override::new("--flag", key, value)).collect();
    Config::load_from(Some(&file), &environment(variables), &flags)
        .map_err(|error| error.to_string().replace(&*file.to_string_lossy(), "FILE"))
}

fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

#[test]
fn nothing_at_all_is_enough() {
    let config = Config::load_from(None, &Environment::new(), &[]).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!((config.windows().size_ms(), config.windows().slide_ms()), (300_000, 10_000));
    assert_eq!(config.source_settings().idle_timeout_ms, Some(30_000));
    assert_eq!(config.ingest().bound_ms, 30_000);
    assert_eq!(config.view_limits().windows_max, 60);
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let check = |variables: &[(&str, &str)], flags: &[(&str, &str)], expected: i64| {
        let config = load("[windows]\nslide = \"1s\"", variables, flags).unwrap();
        assert_eq!(config.windows.slide, Millis(expected), "{variables:?} {flags:?}");
    };
    let variable = ("CLICKTIDE_WINDOWS__SLIDE", "2s");
    check(&[], &[], 1_000);
    check(&[variable], &[], 2_000);
    check(&[variable], &[("windows.slide", "3s")], 3_000);
    check(&[("CLICKTIDE_WINDOWS__SLIDE", "")], &[], 1_000);
}

#[test]
fn variables() {
    let config = load(
        "",
        &[
            ("CLICKTIDE_PYTHON", "python3"),
            ("KAFKA_BROKERS", "a:1"),
            ("EVENTS_PER_SECOND", "5000"),
            ("EVENT_DURATION_HOURS", "0.5"),
            ("CLICKTIDE_GENERATOR__BURST__ENABLED", "true"),
            ("CLICKTIDE_GENERATOR__BALANCED_PARTITIONS", "6"),
            ("CLICKTIDE_HTTP__LISTEN", "off"),
            ("CLICKTIDE_WINDOWS__IDLE_TIMEOUT", "off"),
            ("CLICKTIDE_KAFKA__STATISTICS_INTERVAL", "off"),
            ("CLICKTIDE_WINDOWS__OFFSET", "-3s"),
            ("CLICKTIDE_CLUSTER__WORKERS", "3"),
            ("CLICKTIDE_CLUSTER__HOSTS", "7"),
            ("CLICKTIDE_KAFKA__PROPERTIES__SASL_PASSWORD", "007"),
            ("CLICKTIDE_CHECKPOINTS__STORE", "s3://bucket/prefix"),
            ("CLICKTIDE_CHECKPOINTS__OPTIONS__AWS_REGION", "eu-central-1"),
        ],
        &[("job.name", "42"), ("dead_letters.late", "true")],
    )
    .unwrap();
    assert_eq!(config.kafka.brokers, "a:1");
    assert_eq!((config.generator.events_per_second, config.generator.duration), (5_000.0, Some(Millis(1_800_000))));
    assert!(config.generator.burst.enabled && config.dead_letters.late);
    assert_eq!(config.generator.balanced_partitions, Some(6));
    assert_eq!((config.http.listen, config.windows.idle_timeout), (None, None));
    assert_eq!(config.kafka.statistics_interval, None);
    assert_eq!((config.windows.offset, config.cluster.workers), (Millis(-3_000), 3));
    // Texts that look like numbers stay what they are.
    assert_eq!((config.cluster.hosts, config.job.name.as_str()), (Some("7".into()), "42"));
    assert_eq!(config.kafka.properties.get("sasl.password"), Some("007"));
    assert_eq!(config.checkpoints.options.get("aws_region"), Some("eu-central-1"));
    let s3 = StoreLocation::S3 { bucket: "bucket".into(), prefix: "prefix".into() };
    assert_eq!(config.checkpoints.store, Some(s3));
    assert_eq!(load("", &[("CLICKTIDE_CHECKPOINTS__STORE", "off")], &[]).unwrap().checkpoints.store, None);

    let brokers = |variables| load("", variables, &[]).unwrap().kafka.brokers;
    assert_eq!(brokers(&[("KAFKA_BROKERS", "a:1"), ("CLICKTIDE_KAFKA__BROKERS", "b:1")]), "b:1");
}

#[test]
fn errors_name_the_key_the_value_its_origin_and_what_would_be_right() {
    let check = |toml: &str, variables: &[(&str, &str)], flags: &[(&str, &str)], expected: &str| {
        let message = load(toml, variables, flags).map_or_else(|error| error, |_| "good".to_owned());
        assert_eq!(message, expected, "{toml:?} {variables:?} {flags:?}");
    };
    let file = |toml: &str, expected: &str| check(toml, &[], &[], expected);
    file("job.name = \"j\"", "good");
    file("[job]\nname = ", "FILE:2: not TOML: a value is missing, or its quotes are");
    file(
        "[jobs]\n",
        "jobs (file FILE): there is no such key; known here: job, kafka, schema_registry, topics, windows, validation, privacy, deduplication, dead_letters, cluster, flow, checkpoints, http, health, logging, generator",
    );
    file("[job]\nnames = 1", "job.names (file FILE): there is no such key; known here: name");
    file("job = 1", "job = 1 (file FILE): must be a table of keys");
    file("job.name = 1", "job.name = 1 (file FILE): must be a text");
    file(
        "job.name = \"a b\"",
        "job.name = \"a b\" (file FILE): must be 1 to 200 letters, digits, dots, underscores and hyphens",
    );
    file(
        "kafka.brokers = \"a:b\"",
        "kafka.brokers = \"a:b\" (file FILE): must be host:port, several of them separated by commas, such as \"127.0.0.1:9092\"",
    );
    file(
        "kafka.results_topic = \"clickstream-events\"",
        "kafka.results_topic = \"clickstream-events\" (file FILE): must be another topic than kafka.events_topic",
    );
    file(
        "kafka.sanitised_events_topic = \"clicktide-progress\"",
        "kafka.sanitised_events_topic = \"clicktide-progress\" (file FILE): must be another topic than kafka.progress_topic",
    );
    file(
        "kafka.sanitised_events_topic = \"a b\"",
        "kafka.sanitised_events_topic = \"a b\" (file FILE): must be 1 to 249 letters, digits, dots, underscores and hyphens",
    );
    file(
        "kafka.sanitised_events_topic = true",
        "kafka.sanitised_events_topic = true (file FILE): must be a text, or \"off\"",
    );
    file(
        "topics.sanitised_events_partitions = 0",
        "topics.sanitised_events_partitions = 0 (file FILE): must be between 1 and 100000",
    );
    file(
        "topics.sanitised_events_retention = \"10ms\"",
        "topics.sanitised_events_retention = 10ms (file FILE): must be between 1s and 34 years",
    );
    file(
        "kafka.transaction_timeout = \"20m\"",
        "kafka.transaction_timeout = 20m (file FILE): must be between 1s and 15m",
    );
    file(
        "kafka.statistics_interval = \"99ms\"",
        "kafka.statistics_interval = 99ms (file FILE): must be between 100ms and 1day",
    );
    file(
        "kafka.properties.\"statistics.interval.ms\" = 1000",
        "kafka.properties.statistics.interval.ms = \"1000\" (file FILE): must be given as kafka.statistics_interval",
    );
    file("kafka.properties.acks = 1", "kafka.properties.acks = \"1\" (file FILE): must be left to Clicktide");
    file(
        "kafka.properties.\"bootstrap.servers\" = \"a\"",
        "kafka.properties.bootstrap.servers = \"a\" (file FILE): must be given as kafka.brokers",
    );
    file(
        "schema_registry.url = \"registry:8081\"",
        "schema_registry.url = \"registry:8081\" (file FILE): must be http://host:port or https://host:port with the path of Confluent's API, and without a user; several of them separated by commas, or \"off\"",
    );
    file(
        "schema_registry.request_timeout = \"1ms\"",
        "schema_registry.request_timeout = 1ms (file FILE): must be between 100ms and 1h",
    );
    file(
        "schema_registry.retry_max = \"50ms\"",
        "schema_registry.retry_max = 50ms (file FILE): must be between 100ms and 1h",
    );
    file(
        "schema_registry.negative_answers_kept = \"0s\"",
        "schema_registry.negative_answers_kept = 0s (file FILE): must be between 1s and 1day",
    );
    file(
        "schema_registry.username = \"u\"",
        "schema_registry.username = \"u\" (file FILE): must be left out where there is no schema_registry.password",
    );
    file(
        "schema_registry.password = \"p\"",
        "schema_registry.password = *** (file FILE): must be left out where there is no schema_registry.username",
    );
    file(
        "schema_registry.key_file = \"k\"",
        "schema_registry.key_file = \"k\" (file FILE): must be given with schema_registry.certificate_file",
    );
    file(
        "schema_registry.subject_naming = \"value\"",
        "schema_registry.subject_naming = \"value\" (file FILE): must be one of \"topic\", \"record\", \"topic_record\"",
    );
    file(
        "generator.schema_change.share = 1.5",
        "generator.schema_change.share = 1.5 (file FILE): must be between 0 and 1",
    );
    file(
        "generator.schema_change.enabled = true",
        "generator.schema_change.enabled = true (file FILE): must be false where schema_registry.url is \"off\": bare bodies do not say which schema they were written with",
    );
    file("topics.min_insync_replicas = 2", "topics.min_insync_replicas = 2 (file FILE): must be between 1 and 1");
    file("topics.events_partitions = 0", "topics.events_partitions = 0 (file FILE): must be between 1 and 100000");
    file(
        "windows.size = 5",
        "windows.size = 5 (file FILE): must be a duration of whole milliseconds with its unit, such as \"5m\", \"10s\" or \"250ms\"",
    );
    file(
        "windows.size = \"5\"",
        "windows.size = \"5\" (file FILE): must be a duration of whole milliseconds with its unit, such as \"5m\", \"10s\" or \"250ms\"",
    );
    file(
        "windows.size = \"off\"",
        "windows.size = \"off\" (file FILE): must be a duration of whole milliseconds with its unit, such as \"5m\", \"10s\" or \"250ms\"",
    );
    file(
        "windows.size = \"5s\"",
        "windows.size = 5s (file FILE): must be at least windows.slide (10s), or events between two windows would be missed",
    );
    file(
        "windows.slide = \"6m\"",
        "windows.size = 5m (the default): must be at least windows.slide (6m), or events between two windows would be missed",
    );
    file("windows.slide = \"0s\"", "windows.slide = 0s (file FILE): must be between 1ms and 34 years");
    file("windows.size = \"100years\"", "windows.size = 100years (file FILE): must be between 10s and 34 years");
    file(
        "windows.offset = \"-100years\"",
        "windows.offset = -100years (file FILE): must be between -34 years and 34 years",
    );
    file(
        "windows.disorder_bound = \"-1s\"",
        "windows.disorder_bound = -1s (file FILE): must be between 0s and 34 years",
    );
    file(
        "windows.idle_timeout = \"none\"",
        "windows.idle_timeout = \"none\" (file FILE): must be a duration of whole milliseconds with its unit, such as \"5m\", \"10s\" or \"250ms\", or \"off\"",
    );
    file("deduplication.horizon = \"0s\"", "deduplication.horizon = 0s (file FILE): must be between 1ms and 34 years");
    file("privacy.pages_max = 0", "privacy.pages_max = 0 (file FILE): must be between 1 and 1000000000");
    file("privacy.pages_max = \"all\"", "privacy.pages_max = \"all\" (file FILE): must be a whole number, or \"off\"");
    file("validation.id_bytes_max = 0", "validation.id_bytes_max = 0 (file FILE): must be between 1 and 65536");
    file(
        "validation.id_bytes_max = -1",
        "validation.id_bytes_max = -1 (file FILE): must be a whole number, 0 or more, within its range",
    );
    file(
        "validation.future = \"100years\"",
        "validation.future = 100years (file FILE): must be between 0s and 34 years",
    );
    file(
        "privacy.page_key = \"all\"",
        "privacy.page_key = \"all\" (file FILE): must be one of \"full\", \"no_query\", \"path\"",
    );
    file(
        "privacy.hash_key = \" \"",
        "privacy.hash_key = *** (file FILE): must be a secret text: the hash key is empty; give 32 hexadecimal digits, or any secret text",
    );
    file(
        "privacy.hash_key_file = \"/nowhere/key\"",
        "privacy.hash_key_file = \"/nowhere/key\" (file FILE): must be a file that can be read: No such file or directory (os error 2)",
    );
    file(
        "[cluster]\nprocess = 2\nprocesses = 2",
        "cluster.process = 2 (file FILE): must be below cluster.processes (2): they count from 0",
    );
    file("flow.ticks_ahead = 0", "flow.ticks_ahead = 0 (file FILE): must be between 1 and 1000000");
    file(
        "checkpoints.store = \"gs://bucket\"",
        "checkpoints.store = \"gs://bucket\" (file FILE): must be a path, file:///path, or s3://bucket/prefix, or \"off\"",
    );
    file("checkpoints.interval = \"999ms\"", "checkpoints.interval = 999ms (file FILE): must be between 1s and 1h");
    file("checkpoints.keep = 0", "checkpoints.keep = 0 (file FILE): must be between 1 and 1000");
    file(
        "checkpoints.options.aws_region = \"x\"",
        "checkpoints.options.aws_region = … (file FILE): must be left out: only a store at s3://… has options",
    );
    file(
        "[checkpoints]\nstore = \"s3://b\"\noptions.aws_token = \"env:NOT_SET\"",
        "checkpoints.options.aws_token = \"env:NOT_SET\" (file FILE): must be followed by a variable that is set; NOT_SET is not",
    );
    file(
        "http.listen = \"8080\"",
        "http.listen = \"8080\" (file FILE): must be an address and port, such as \"127.0.0.1:8080\", or \"off\"",
    );
    file(
        "http.cors_origins = [\"https://a.example\", \"b.example\"]",
        "http.cors_origins = \"b.example\" (file FILE): must be a list of origins as browsers send them: scheme://host or scheme://host:port, in lower case, such as \"https://intranet.example\"",
    );
    file("http.cors_origins = 7", "http.cors_origins = 7 (file FILE): must be a list of texts");
    file("health.step_age_max = \"0s\"", "health.step_age_max = 0s (file FILE): must be between 1s and 34 years");
    file("health.lag_records_max = -1", "health.lag_records_max = -1 (file FILE): must be between 0 and 1000000000000");
    file("http.history_windows = 0", "http.history_windows = 0 (file FILE): must be between 1 and 1000000");
    file(
        "logging.format = \"xml\"",
        "logging.format = \"xml\" (file FILE): must be one of \"auto\", \"human\", \"json\"",
    );
    file(
        "logging.filter = \"clicktide=loud\"",
        "logging.filter = \"clicktide=loud\" (file FILE): must be a filter: the log filter \"clicktide=loud\" is not valid, expected for example \"info\" or \"info,clicktide::http=debug\"",
    );
    file("logging.repeats_max = 0", "logging.repeats_max = 0 (file FILE): must be between 1 and 1000000");
    file(
        "logging.repeats_interval = \"10ms\"",
        "logging.repeats_interval = 10ms (file FILE): must be between 1s and 1day",
    );
    file(
        "logging.file = \"/\"",
        "logging.file = \"/\" (file FILE): must be the path of a file, such as \"/var/log/clicktide.log\"",
    );
    file("logging.file_megabytes_max = 0", "logging.file_megabytes_max = 0 (file FILE): must be between 1 and 1000000");
    file("logging.files_kept = 10001", "logging.files_kept = 10001 (file FILE): must be between 0 and 10000");
    file("generator.users = 0", "generator.users = 0 (file FILE): must be between 1 and 10000000");
    file(
        "generator.burst.repeat = \"1s\"",
        "generator.burst.repeat = 1s (file FILE): must be between 5m and a century",
    );
    file("dead_letters.late = \"yes\"", "dead_letters.late = \"yes\" (file FILE): must be true or false");

    check(
        "",
        &[("CLICKTIDE_CLUSTER__WORKERS", "two")],
        &[],
        "cluster.workers = \"two\" (environment variable CLICKTIDE_CLUSTER__WORKERS): must be a whole number, 0 or more, within its range",
    );
    check(
        "",
        &[("CLICKTIDE_CLUSTER__THREADS", "2")],
        &[],
        "cluster.threads (environment variable CLICKTIDE_CLUSTER__THREADS): there is no such key; known here: processes, process, workers, hosts, connect_timeout, heartbeat_timeout, secret, secret_file",
    );
    check(
        "",
        &[("EVENT_DURATION_HOURS", "0")],
        &[],
        "generator.duration = 0 (environment variable EVENT_DURATION_HOURS): must be a number of hours above 0, such as 0.5",
    );
    check(
        "",
        &[("EVENTS_PER_SECOND", "-1")],
        &[],
        "generator.events_per_second = -1 (environment variable EVENTS_PER_SECOND): must be between 0.001 and 10000000",
    );
    check("", &[], &[("cluster.workers", "0")], "cluster.workers = 0 (flag --flag): must be between 1 and 1000");
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let error =
        Config::load_from(Some(Path::new("/nowhere/x.toml")), &Environment::new(), &[]).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the configuration file /nowhere/x.toml: No such file"), "{error}");
}

#[test]
fn no_error_and_no_debug_output_shows_a_secret() {
    let hidden = |text: &str| assert!(!text.contains("hunter2"), "{text}");
    let toml = "[kafka.properties]\nsasl.password = \"hunter2\"\n\"ssl.key.pem\" = \"hunter2\"\nsasl.username = \"env:USER_NAME\"\n\
         [privacy]\nhash_key = \"hunter2\"\n[checkpoints]\nstore = \"s3://b\"\n\
         options = { aws_secret_access_key = \"hunter2\", aws_endpoint = \"env:USER_NAME\" }";
    let config = load(toml, &[("USER_NAME", "hunter2")], &[]).unwrap();
    assert_eq!(config.kafka.properties.get("sasl.password"), Some("hunter2"));
    assert_eq!(config.kafka.properties.get("sasl.username"), Some("hunter2"));
    hidden(&format!(
        "{config:?} {config:#?} {} {}",
        serde_json::to_string(&config).unwrap(),
        config.meaning().to_json()
    ));
    for toml in [
        "[kafka.properties]\nsasl.password = [\"hunter2\"]",
        "[kafka.properties]\nsasl.password = \"hunter2",
        "[privacy]\nhash_key = [\"hunter2\"]",
        "[privacy]\nhash_key = hunter2",
        "privacy.hash_key.hunter = \"hunter2\"",
        "checkpoints.options.aws_secret_access_key = [\"hunter2\"]",
        "checkpoints.options.aws_session_token = \"hunter2\"",
    ] {
        hidden(&load(toml, &[], &[]).unwrap_err());
    }
    let number = load("privacy.hash_key = 12345", &[], &[]).unwrap_err();
    assert_eq!(number, "privacy.hash_key = *** (file FILE): must be a text");
}

#[test]
fn properties_from_the_environment_and_files() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    let toml = format!("[kafka.properties]\nssl.key.password = \"file:{}\"\n\"linger.ms\" = 5", file.display());
    let config = load(&toml, &[], &[]).unwrap();
    assert_eq!(config.kafka.properties.get("ssl.key.password"), Some("hunter2"));
    assert_eq!(config.kafka.properties.get("linger.ms"), Some("5"));

    let missing =
        |value: &str| load(&format!("[kafka.properties]\nsasl.password = \"{value}\""), &[], &[]).unwrap_err();
    assert_eq!(
        missing("env:NOT_SET"),
        "kafka.properties.sasl.password = \"env:NOT_SET\" (file FILE): must be followed by a variable that is set; NOT_SET is not"
    );
    assert!(missing("file:/nowhere/x").contains("the path of a file that can be read: No such file"));
}

#[test]
fn the_hash_key_is_that_of_the_highest_source() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    std::fs::write(&file, "from the file\n").unwrap();
    let in_file = format!("[privacy]\nhash_key_file = {file:?}");
    let variable = ("CLICKTIDE_PRIVACY__HASH_KEY", "00000000000000000000000000000007");
    let file_variable = ("CLICKTIDE_PRIVACY__HASH_KEY_FILE", file.to_str().unwrap());
    let check = |toml: &str, variables: &[(&str, &str)], expected: &str| {
        let fingerprint = load(toml, variables, &[]).map(|config| config.hash_key().fingerprint());
        assert_eq!(fingerprint, Ok(HashKey::new(expected).unwrap().fingerprint()), "{toml:?} {variables:?}");
    };
    check("", &[], DEVELOPMENT_HASH_KEY);
    check(&in_file, &[], "from the file");
    check(&in_file, &[variable], variable.1);
    check("privacy.hash_key = \"x\"", &[file_variable], "from the file");
    let error = load(&format!("{in_file}\nhash_key = \"x\""), &[], &[]).unwrap_err();
    assert!(error.contains("left out where hash_key is set"), "{error}");
}

#[test]
fn the_secret_of_the_cluster_is_one_and_long_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "sixteen bytes, hunter2\n").unwrap();
    let in_file = format!("[cluster]\nsecret_file = {file:?}");
    let secret = |toml: &str, variables: &[(&str, &str)]| {
        let config = load(toml, variables, &[])?;
        for text in [format!("{config:?}"), serde_json::to_string(&config).unwrap()] {
            assert!(!text.contains("hunter2"), "{text}");
        }
        Ok::<_, String>(config.cluster().secret.map(|secret| secret.expose().to_owned()))
    };
    let variable = ("CLICKTIDE_CLUSTER__SECRET", "another of hunter2's");
    assert_eq!(secret("", &[]), Ok(None));
    assert_eq!(secret(&in_file, &[]), Ok(Some("sixteen bytes, hunter2".to_owned())));
    assert_eq!(secret(&in_file, &[variable]), Ok(Some(variable.1.to_owned())));
    let refused = |toml: &str, expected: &str| {
        let error = secret(toml, &[]).unwrap_err();
        assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
    };
    refused(&format!("{in_file}\nsecret = \"x\""), "left out where secret is set");
    refused(
        "cluster.secret = \"hunter2\"",
        "cluster.secret = *** (file FILE): must be a secret text of at least 16 bytes",
    );
    std::fs::write(&file, "hunter2").unwrap();
    refused(&in_file, "cluster.secret_file = *** (file FILE): must be a secret text of at least 16 bytes");
}

#[test]
fn the_token_is_one_and_long_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "0123456789-hunter2\n").unwrap();
    let in_file = format!("[http]\ntoken_file = {file:?}");
    let token = |toml: &str, variables: &[(&str, &str)]| {
        let config = load(toml, variables, &[])?;
        for text in [format!("{config:?}"), serde_json::to_string(&config).unwrap(), format!("{:?}", config.access())] {
            assert!(!text.contains("hunter2"), "{text}");
        }
        Ok::<_, String>(config.access().token.map(|token| token.expose().to_owned()))
    };
    let variable = ("CLICKTIDE_HTTP__TOKEN", "another.of/hunter2+s=");
    assert_eq!(token("", &[]), Ok(None));
    assert_eq!(token(&in_file, &[]), Ok(Some("0123456789-hunter2".to_owned())));
    assert_eq!(token(&in_file, &[variable]), Ok(Some(variable.1.to_owned())));
    let refused = |toml: &str, expected: &str| {
        let error = token(toml, &[]).unwrap_err();
        assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
    };
    refused(&format!("{in_file}\ntoken = \"x\""), "left out where token is set");
    for bad in ["hunter2", "hunter2 with spaces in it", "hunter2, with umläuts"] {
        refused(
            &format!("http.token = \"{bad}\""),
            "http.token = *** (file FILE): must be a secret text of 16 to 4096 letters, digits and -._~+/=, such as",
        );
    }
    std::fs::write(&file, "hunter2").unwrap();
    refused(&in_file, "http.token_file = *** (file FILE): must be a secret text of 16 to 4096");
}

#[test]
fn the_password_of_the_registry_is_one_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "hunter2\n").unwrap();
    let registry = "[schema_registry]\nurl = \"http://a:1/, https://b/api\"\nusername = \"u\"\n";
    let in_file = format!("{registry}password_file = {file:?}");
    let password = |toml: &str, variables: &[(&str, &str)]| {
        let config = load(toml, variables, &[])?;
        for text in [format!("{config:?}"), serde_json::to_string(&config).unwrap(), format!("{:?}", config.format())] {
            assert!(!text.contains("hunter"), "{text}");
        }
        assert_eq!(
            config.schema_registry.url.as_ref().map(ToString::to_string),
            Some("http://a:1,https://b/api".into())
        );
        Ok::<_, String>(config.schema_registry.password.map(|password| password.expose().to_owned()))
    };
    let variable = ("CLICKTIDE_SCHEMA_REGISTRY__PASSWORD", "hunter3");
    assert_eq!(password(&in_file, &[]), Ok(Some("hunter2".to_owned())));
    assert_eq!(password(&in_file, &[variable]), Ok(Some("hunter3".to_owned())));
    let both = password(&format!("{in_file}\npassword = \"hunter2\""), &[]).unwrap_err();
    assert!(both.contains("left out where password is set") && !both.contains("hunter2"), "{both}");
    // Where everybody would see it.
    let in_url = load("schema_registry.url = \"http://u:p@a:1\"", &[], &[]).unwrap_err();
    assert!(in_url.starts_with("schema_registry.url = *** (file FILE): must be"), "{in_url}");
}

#[test]
fn origins() {
    let origins = |variable: &str| {
        load("", &[("CLICKTIDE_HTTP__CORS_ORIGINS", variable)], &[]).map(|config| config.http.cors_origins)
    };
    assert_eq!(
        origins("https://a.example, http://b:8080"),
        Ok(vec!["https://a.example".into(), "http://b:8080".into()])
    );
    assert_eq!(origins("http://[::1]:8080"), Ok(vec!["http://[::1]:8080".into()]));
    for bad in [
        "*",
        "null",
        "a.example",
        "https://",
        "https://a.example/",
        "https://A.example",
        "ftp://a",
        "https://a:443",
        "http://a b",
    ] {
        assert!(origins(bad).is_err_and(|error| error.contains("scheme://host")), "{bad}");
    }
}

#[test]
fn what_differs_from_the_committed_meaning() {
    let committed = Config::default().meaning().to_json();
    assert!(
        committed
            .starts_with(r#"{"kafka":{"events_topic":"clickstream-events"},"windows":{"size":"5m","slide":"10s","#)
    );
    let check = |toml: &str, expected: &[&str]| {
        assert_eq!(load(toml, &[], &[]).unwrap().meaning().differences(&committed), expected, "{toml}");
    };
    check("", &[]);
    check("windows.size = \"300s\"\njob.name = \"j\"", &[]);
    check("windows.size = \"10m\"", &["windows.size: 5m committed, 10m configured"]);
    check("windows.idle_timeout = \"off\"", &["windows.idle_timeout: 30s committed, off configured"]);
    check(
        "[privacy]\nhash_key = \"x\"\npage_key = \"path\"",
        &[
            &format!(
                "privacy.hash_key_fingerprint: {} committed, {} configured",
                HashKey::new(DEVELOPMENT_HASH_KEY).unwrap().fingerprint(),
                HashKey::new("x").unwrap().fingerprint()
            ),
            "privacy.page_key: full committed, path configured",
        ],
    );
    check("[validation]\nid_bytes_max = 7", &["validation.id_bytes_max: 256 committed, 7 configured"]);
    check("deduplication.horizon = \"6m\"", &["deduplication.horizon: nothing committed, 6m configured"]);
    check("privacy.pages_max = 7", &["privacy.pages_max: nothing committed, 7 configured"]);
    check("dead_letters.late = true", &["dead_letters.late: false committed, true configured"]);
    check("privacy.dead_letter_payload = \"sanitised\"\nkafka.sanitised_events_topic = \"s\"", &[]);
    check("schema_registry.url = \"http://r:1\"", &["schema_registry: nothing committed, on configured"]);
    check("kafka.events_topic = \"e\"", &["kafka.events_topic: clickstream-events committed, e configured"]);
    let older = Config::default().meaning().differences(r#"{"windows": {"gap": 7}}"#);
    assert!(older.contains(&"windows.gap: 7 committed, nothing configured".to_owned()), "{older:?}");
    assert!(older.contains(&"windows.size: nothing committed, 5m configured".to_owned()), "{older:?}");
    assert_eq!(Config::default().meaning().differences("?"), ["the committed configuration is not JSON: \"?\""]);
}

#[test]
fn development() {
    let config = Config::load_from(Some(&shipped("development.toml")), &Environment::new(), &[]).unwrap();
    assert_eq!((config.topics.events_partitions, config.cluster.workers), (3, 2));
    assert_eq!(config.generator.events_per_second, 100.0);
    assert_eq!(config.meaning(), Config::default().meaning());
}

#[test]
fn production() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("hash-key");
    std::fs::write(&key, "secret").unwrap();
    let password = ("CLICKTIDE_KAFKA_PASSWORD", "hunter2");
    let key = ("CLICKTIDE_PRIVACY__HASH_KEY_FILE", key.to_str().unwrap());
    let load =
        |variables: &[(&str, &str)]| Config::load_from(Some(&shipped("production.toml")), &environment(variables), &[]);
    let config = load(&[password, key]).unwrap();
    let topics = &config.topics;
    assert_eq!((topics.events_partitions, topics.replication_factor, topics.min_insync_replicas), (12, 3, 2));
    assert_eq!((config.cluster.workers, config.generator.events_per_second), (8, 1_000.0));
    assert_eq!(config.privacy.page_key, PageKey::NoQuery);
    assert_eq!(config.privacy.dead_letter_payload, DeadLetterPayload::Sanitised);
    assert_eq!(config.checkpoints.store, Some(StoreLocation::Directory("/var/lib/clicktide/checkpoints".into())));
    assert_eq!(config.kafka.properties.get("security.protocol"), Some("SASL_SSL"));
    assert_eq!(config.kafka.properties.get("sasl.password"), Some("hunter2"));
    // Neither secret has a default.
    assert!(load(&[password]).unwrap_err().to_string().starts_with("privacy.hash_key_file"));
    assert!(load(&[key]).unwrap_err().to_string().starts_with("kafka.properties.sasl.password"));
}

#[test]
fn compose() {
    let config = Config::load_from(Some(&shipped("compose.toml")), &Environment::new(), &[]).unwrap();
    assert_eq!(config.kafka.brokers, "kafka:9092");
    assert_eq!(config.checkpoints.store, Some(StoreLocation::Directory("/var/lib/clicktide/checkpoints".into())));
}

#[test]
fn a_scenario_stands_just_below_the_source_that_names_it() {
    let generator = |toml, variables: &[_], flags: &[_]| load(toml, variables, flags).unwrap().generator;
    let in_file = "[generator]\nscenario = \"night\"\nactive_share = 0.5\n[generator.silence]\nenabled = false";
    let night = generator(in_file, &[], &[]);
    assert_eq!((night.events_per_second, night.active_share), (20.0, 0.5));
    assert!(night.bots.enabled && !night.silence.enabled && night.silence.duration == Millis(180_000));
    // Above the file, and below what is said beside it.
    let scenario = ("generator.scenario", "night");
    let night =
        generator("[generator]\nactive_share = 0.5\nevents_per_second = 7", &[("EVENTS_PER_SECOND", "8")], &[scenario]);
    assert_eq!((night.events_per_second, night.active_share), (20.0, 0.02));
    let night = generator("", &[], &[("generator.events_per_second", "9"), scenario]);
    assert_eq!((night.events_per_second, night.active_share), (9.0, 0.02));
    let variables = [("EVENTS_PER_SECOND", "8"), ("CLICKTIDE_GENERATOR__SCENARIO", "night")];
    let night = generator("[generator]\nactive_share = 0.5", &variables, &[]);
    assert_eq!((night.events_per_second, night.active_share), (8.0, 0.02));
    // One at a time.
    let normal = generator(in_file, &[], &[("generator.scenario", "normal")]);
    assert_eq!((normal.events_per_second, normal.bots.enabled), (1_000.0, false));
    let error = load("", &[], &[("generator.scenario", "calm")]).unwrap_err();
    assert!(error.starts_with("generator.scenario = \"calm\" (flag --flag): must be one of \"normal\""), "{error}");
}

#[test]
fn every_scenario_can_be_used() {
    let off = load("", &[], &[]).unwrap().generator;
    for scenario in crate::generator::Scenario::all() {
        let settings = load("", &[], &[("generator.scenario", scenario.name())]).unwrap().generator;
        assert_eq!(settings.scenario, *scenario);
        let changed = crate::generator::Settings { scenario: off.scenario, ..settings } != off;
        assert_eq!(changed, !scenario.keys().is_empty(), "{scenario:?}");
    }
}

/// The dotted keys of a configuration, with those that are not serialized or may be absent.
fn all_keys() -> Vec<String> {
    let mut config = Config::default();
    config.cluster.hosts = Some("hosts".into());
    config.logging.file = Some("log".into());
    config.privacy.hash_key_file = Some("key".into());
    config.cluster.secret_file = Some("secret".into());
    config.http.token_file = Some("token".into());
    let registry = &mut config.schema_registry;
    registry.username = Some("user".into());
    registry.password_file = Some("password".into());
    registry.ca_file = Some("ca".into());
    registry.certificate_file = Some("certificate".into());
    registry.key_file = Some("key".into());
    let not_shown = ["privacy.hash_key", "cluster.secret", "http.token", "schema_registry.password"];
    let mut keys = not_shown.map(str::to_owned).to_vec();
    let mut tables = vec![(String::new(), serde_json::to_value(config).unwrap())];
    while let Some((prefix, value)) = tables.pop() {
        match value {
            Value::Object(fields) => {
                let dotted = |name: String| if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
                tables.extend(fields.into_iter().map(|(name, value)| (dotted(name), value)));
            }
            _ => keys.push(prefix),
        }
    }
    keys
}

#[test]
fn the_files_have_every_key_with_an_explanation() {
    let keys = all_keys();
    assert!(keys.len() > 60 && keys.contains(&"generator.burst.repeat".to_owned()), "{keys:?}");
    for file in ["development.toml", "production.toml"] {
        let text = std::fs::read_to_string(shipped(file)).unwrap();
        let mut table = String::new();
        let mut found = std::collections::BTreeSet::new();
        let mut explained = false;
        for line in text.lines() {
            let comment = line.starts_with('#');
            if let Some(name) = line.strip_prefix('[') {
                table = name.trim_end_matches(']').to_owned();
                assert!(found.insert(table.clone()), "{file}: [{table}] is there twice");
            } else if let Some((name, _)) = line.trim_start_matches("# ").split_once(" = ")
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            {
                assert!(explained, "{file}: {table}.{name} is not explained");
                assert!(found.insert(format!("{table}.{name}")), "{file}: {table}.{name} is there twice");
            }
            explained = comment;
        }
        assert!(found.contains("kafka.properties"), "{file}");
        for key in &keys {
            assert!(found.contains(key), "{file} does not have {key}");
        }
    }
}

#[test]
fn what_the_explanations_call_defaults_are_the_defaults() {
    let defaults = serde_json::to_value(Config::default()).unwrap();
    for file in ["development.toml", "production.toml"] {
        let text = std::fs::read_to_string(shipped(file)).unwrap();
        let (mut table, mut stated, mut checked) = (String::new(), None, 0);
        for line in text.lines() {
            if let Some((_, default)) = line.split_once("Default: ").filter(|_| line.starts_with('#')) {
                stated = Some(default.trim_end_matches('.').to_owned());
            } else if let Some(name) = line.strip_prefix('[') {
                (table, stated) = (name.trim_end_matches(']').to_owned(), None);
            } else if let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
                let pointer = format!("/{}/{name}", table.replace('.', "/"));
                let Some(default) = defaults.pointer(&pointer) else { continue };
                let stated = stated.take().unwrap_or_else(|| panic!("{file}: {pointer} has no default"));
                assert_eq!(canonical(&stated), canonical(&default.to_string()), "{file}: {pointer}");
                checked += 1;
            }
        }
        assert!(checked > 50, "{file}: {checked}");
    }
}

/// Durations and numbers may be written in several ways.
fn canonical(json: &str) -> String {
    let text = json.trim_matches('"');
    match (text.parse::<Millis>(), text.parse::<f64>()) {
        (Ok(millis), _) => millis.to_string(),
        (_, Ok(number)) => number.to_string(),
        _ => text.to_owned(),
    }
}
