//! What is wrong, before anything starts: `clicktide check`.
//!
//! Looks and tries, and changes nothing: a job of the same configuration may be running meanwhile.

use std::fmt;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use crate::checkpoint::choose::{ProbeError, find_probe, put_probe};
use crate::checkpoint::names;
use crate::config::{Config, DEVELOPMENT_HASH_KEY};
use crate::kafka::admin::{self, TopicSpec};
use crate::kafka::client::{ClientError, Connection};
use crate::kafka::permissions::{may_run, may_show_positions};
use crate::kafka::probe;
use crate::millis::Millis;
use crate::privacy::HashKey;
use crate::registry::{Publication, Registry, RegistryError, Subject};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckLine {
    /// What it is.
    pub name: String,
    /// How it is.
    pub outcome: Outcome,
}

/// How something is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should be.
    Good,
    /// It will not work, or not as it should: what is the matter, and what would be right.
    Bad(String),
    /// It was not looked at, or need not be right: why.
    Skipped(String),
}

impl CheckLine {
    /// Whether something is wrong.
    pub fn bad(&self) -> bool {
        matches!(self.outcome, Outcome::Bad(_))
    }
}

impl fmt::Display for CheckLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Good => write!(f, "good  {}", self.name),
            Outcome::Bad(reason) => write!(f, "BAD   {}: {reason}", self.name),
            Outcome::Skipped(reason) => write!(f, "-     {}: {reason}", self.name),
        }
    }
}

/// How long a broker may take to answer.
const REACH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long it may take to find the coordinator of transactions, which a new cluster makes at the first request.
const TRANSACTIONS_TIMEOUT: Duration = Duration::from_secs(15);

/// Looks at everything that a job with this configuration needs. Takes up to half a minute when Kafka does not answer.
pub fn check(config: &Config) -> Vec<CheckLine> {
    let mut lines = vec![
        // Loading it has checked every value.
        line("configuration", Outcome::Good),
        line("retention of events", retention(config)),
        line("hash key", hash_key(config)),
        line("hosts file", hosts(config)),
        line("secret of the cluster", cluster_secret(config)),
        line("HTTP port", http_port(config)),
        line("HTTP token", http_token(config)),
        line("checkpoint store", checkpoint_store(config)),
        line("files of Kafka's properties", property_files(&config.connection())),
        line("schema registry", schema_registry(config)),
    ];
    lines.extend(kafka(config));
    lines
}

fn line(name: impl Into<String>, outcome: Outcome) -> CheckLine {
    CheckLine { name: name.into(), outcome }
}

fn retention(config: &Config) -> Outcome {
    let (kept, windows) = (config.topics.events_retention, &config.windows);
    let open_windows = windows.size.0.saturating_add(windows.disorder_bound.0);
    // Before the first event of the open windows, the watermark was behind it by the bound once more.
    let (remembered, remembers) = match (config.deduplication.horizon, config.privacy.pages_max) {
        (None, None) => (0, ""),
        (horizon, pages_max) => {
            let horizon_ms = horizon.map_or(0, |horizon| horizon.0.saturating_add(windows.slide.0));
            let epochs_ms = pages_max.map_or(0, |_| windows.size.0.saturating_mul(2));
            let remembered = horizon_ms.max(epochs_ms).saturating_add(windows.disorder_bound.0);
            (remembered, ", and as far back again as deduplication.horizon and privacy.pages_max remember")
        }
    };
    let needed = Millis(open_windows.saturating_add(remembered));
    if kept > needed {
        return Outcome::Good;
    }
    Outcome::Bad(format!(
        "topics.events_retention = {kept}, but open windows are rebuilt from the events of up to {needed} (windows.size and \
         windows.disorder_bound{remembers}), and of as long as the job stands still"
    ))
}

fn hash_key(config: &Config) -> Outcome {
    let development = HashKey::new(DEVELOPMENT_HASH_KEY).map(|key| key.fingerprint());
    if development.is_ok_and(|fingerprint| config.hash_key().fingerprint() == fingerprint) {
        return Outcome::Skipped(
            "the one for development, which is no secret; in production set privacy.hash_key_file".into(),
        );
    }
    Outcome::Good
}

fn hosts(config: &Config) -> Outcome {
    let processes = config.cluster.processes;
    let Some(file) = &config.cluster.hosts else {
        return Outcome::Skipped(match processes {
            1 => "not needed by one process".into(),
            _ => "none: every process is looked for on this machine".into(),
        });
    };
    match addresses(file) {
        Ok(addresses) if addresses < processes => Outcome::Bad(format!(
            "cluster.hosts = {file:?} has {addresses} addresses, but cluster.processes = {processes}; one line with \
             host:port for each process is needed"
        )),
        Ok(_) => Outcome::Good,
        Err(reason) => Outcome::Bad(format!("cluster.hosts = {file:?}: {reason}")),
    }
}

fn cluster_secret(config: &Config) -> Outcome {
    let cluster = config.cluster();
    match (cluster.processes, &cluster.secret, cluster.addresses()) {
        (1, _, _) => Outcome::Skipped("not needed by one process".into()),
        (_, Some(_), _) => Outcome::Good,
        (_, None, Err(_)) => Outcome::Skipped("needs a hosts file that is good".into()),
        (_, None, Ok(addresses)) => match cluster.check_secret(&addresses) {
            Ok(()) => Outcome::Skipped("none, and none is needed: every process is on this machine".into()),
            Err(error) => Outcome::Bad(error.to_string()),
        },
    }
}

/// How many addresses a file of them has.
fn addresses(file: &Path) -> Result<usize, String> {
    let text = fs::read_to_string(file).map_err(|error| error.to_string())?;
    let mut addresses = 0;
    for (number, line) in text.lines().enumerate() {
        let port = line.rsplit_once(':').filter(|(host, _)| !host.is_empty()).map(|(_, port)| port.parse::<u16>());
        if !matches!(port, Some(Ok(1..))) || line.contains(char::is_whitespace) {
            return Err(format!("line {} is {line:?}, but host:port is expected", number + 1));
        }
        addresses += 1;
    }
    Ok(addresses)
}

fn http_port(config: &Config) -> Outcome {
    let Some(listen) = config.http.listen else { return Outcome::Skipped("http.listen is off".into()) };
    match TcpListener::bind(listen) {
        Ok(_) => Outcome::Good,
        Err(error) => Outcome::Bad(format!(
            "http.listen = {listen} cannot be used: {error}; is another process running, or this job already?"
        )),
    }
}

/// Nothing is refused: in a container, an address that others can reach may be one that only a proxy does.
fn http_token(config: &Config) -> Outcome {
    match (config.http.listen, &config.http.token, config.open_to_others()) {
        (None, _, _) => Outcome::Skipped("http.listen is off".into()),
        (_, _, Some(why)) => Outcome::Skipped(format!("none, so {why}")),
        (_, Some(_), None) => Outcome::Good,
        (_, None, None) => Outcome::Skipped("none, and only this machine can connect".into()),
    }
}

/// Puts a probe, looks for it, lists and deletes it. A directory is made if it is not there.
fn checkpoint_store(config: &Config) -> Outcome {
    let tried = || -> Result<bool, ProbeError> {
        let Some(store) = config.checkpoint_store(&config.job.name)? else { return Ok(false) };
        // No run has generation 0: a running job's own probes are others.
        let probe = put_probe(&*store, 0)?;
        let seen = find_probe(&*store, &probe);
        let listed = store.list(names::PROBES)?.into_iter().any(|(name, _)| name == probe.name);
        store.delete(&probe.name)?;
        seen?;
        if listed { Ok(true) } else { Err(ProbeError::NotShared(probe.name)) }
    };
    match tried() {
        Ok(true) => Outcome::Good,
        Ok(false) => Outcome::Skipped("checkpoints.store is off: every start reads all open windows from Kafka".into()),
        Err(error) => Outcome::Bad(error.to_string()),
    }
}

fn property_files(connection: &Connection) -> Outcome {
    if connection.files().next().is_none() {
        return Outcome::Skipped("none are named".into());
    }
    outcome(connection.check_files())
}

/// Looks up the schemas of what is published, and whether they could be registered where they are not there.
fn schema_registry(config: &Config) -> Outcome {
    let Some(registry) = config.schema_registry.registry() else {
        return Outcome::Skipped("schema_registry.url is off: values are bare Avro bodies".into());
    };
    let publication = config.schema_registry.publication();
    let results = publication.results(&config.kafka.results_topic);
    let sanitised_events = config.kafka.sanitised_events_topic.as_deref();
    let subjects = [Some(results), sanitised_events.map(|topic| publication.sanitised_events(topic))];
    let mut outcomes = subjects.into_iter().flatten().map(|subject| published(&registry, publication, subject));
    outcomes.find(|outcome| *outcome != Outcome::Good).unwrap_or(Outcome::Good)
}

fn published(registry: &Registry, publication: Publication, subject: Subject) -> Outcome {
    let Subject { name, schema } = subject;
    match registry.look_up(&name, schema) {
        Ok(_) => return Outcome::Good,
        Err(RegistryError::Missing { .. }) if publication.register => {}
        Err(RegistryError::Missing { url, .. }) => {
            return Outcome::Bad(format!(
                "our schema is not registered under subject {name:?} at {url}, and schema_registry.register is false"
            ));
        }
        Err(error) => return Outcome::Bad(error.to_string()),
    }
    match registry.incompatibility(&name, schema) {
        Ok(None) => Outcome::Good,
        Ok(Some(reason)) => Outcome::Bad(format!(
            "our schema is not compatible with what is registered under subject {name:?}: {reason}"
        )),
        Err(error) => Outcome::Bad(error.to_string()),
    }
}

fn kafka(config: &Config) -> Vec<CheckLine> {
    let connection = config.connection();
    let topics = config.topic_specs();
    let transactions = || "transactions".to_owned();
    let permissions = || "permissions of the job".to_owned();
    let group = || format!("consumer group {}", config.job.name);
    let reached = probe::reach(&connection, REACH_TIMEOUT);
    let unreachable = reached.is_err();
    let mut lines = vec![line("broker", outcome(reached))];
    if unreachable {
        let skipped = |name| line(name, Outcome::Skipped("needs a broker".into()));
        let names = topics.iter().map(|topic| topic_name(&topic.name));
        lines.extend(names.chain([transactions(), permissions(), group()]).map(skipped));
        return lines;
    }
    for topic in &topics {
        let outcome = described(&connection, topic);
        let good = outcome == Outcome::Good;
        lines.push(line(topic_name(&topic.name), outcome));
        // What is not as it should be is not worth reading, and results are only written.
        let read = [&config.kafka.events_topic, &config.kafka.progress_topic].contains(&&topic.name);
        if good && read {
            lines.push(line(
                format!("reading topic {}", topic.name),
                self::outcome(probe::read(&connection, &topic.name, REACH_TIMEOUT)),
            ));
        }
    }
    let id = format!("{}-check", config.job.name);
    let begun =
        probe::begin_transactions(&connection, &id, config.kafka.transaction_timeout.duration(), TRANSACTIONS_TIMEOUT);
    let advice = |error: &ClientError| match error {
        ClientError::Failed { cause, .. } if cause.denied() => "",
        _ => {
            "; a cluster of one broker needs transaction.state.log.replication.factor=1 and transaction.state.log.min.isr=1"
        }
    };
    let begun = begun.map_or_else(|error| Outcome::Bad(format!("{error}{}", advice(&error))), |()| Outcome::Good);
    lines.push(line(transactions(), begun));
    lines.push(line(permissions(), outcome(may_run(&connection, &config.job_topics(), REACH_TIMEOUT))));
    let (job, topic) = (&config.job.name, &config.kafka.events_topic);
    let shown = may_show_positions(&connection, job, topic, TRANSACTIONS_TIMEOUT);
    lines.push(line(group(), outcome(shown)));
    lines
}

fn topic_name(topic: &str) -> String {
    format!("topic {topic}")
}

fn outcome(result: Result<(), ClientError>) -> Outcome {
    result.map_or_else(|error| Outcome::Bad(error.to_string()), |()| Outcome::Good)
}

fn described(connection: &Connection, topic: &TopicSpec) -> Outcome {
    match admin::describe_topics(connection, &[&topic.name], REACH_TIMEOUT) {
        Err(error) => Outcome::Bad(error.to_string()),
        Ok(found) => match found.into_iter().flatten().next() {
            None => Outcome::Bad("is not there; `clicktide topics create` makes it".into()),
            Some(found) => match found.differences(topic) {
                differences if differences.is_empty() => Outcome::Good,
                differences => Outcome::Bad(differences.join("; ")),
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn check_line(expected: &str, outcome: Outcome) {
        let shown = line("x", outcome).to_string();
        assert!(shown.contains(expected), "{shown}");
    }

    #[test]
    fn hash_keys() {
        let mut config = Config::default();
        check_line("which is no secret", hash_key(&config));
        config.privacy.hash_key = Some(Secret::new(format!("{DEVELOPMENT_HASH_KEY}\n")));
        check_line("which is no secret", hash_key(&config));
        config.privacy.hash_key = Some(Secret::new("hunter2"));
        check_line("good", hash_key(&config));
    }

    #[test]
    fn events_are_kept_for_longer_than_windows() {
        let mut config = Config::default();
        check_line("good", retention(&config));
        config.topics.events_retention = Millis(330_000);
        check_line("topics.events_retention = 5m 30s, but open windows", retention(&config));
        config.topics.events_retention = Millis(331_000);
        check_line("good", retention(&config));
        config.deduplication.horizon = Some(Millis(300_000));
        check_line(
            "the events of up to 11m 10s (windows.size and windows.disorder_bound, and as far",
            retention(&config),
        );
        config.privacy.pages_max = Some(10);
        check_line("the events of up to 16m (", retention(&config));
        config.topics.events_retention = Millis(960_001);
        check_line("good", retention(&config));
    }

    #[test]
    fn hosts_files() {
        let dir = tempfile::tempdir().unwrap();
        let check = |text: &str, processes, expected: &str| {
            let file = dir.path().join("hosts");
            fs::write(&file, text).unwrap();
            let mut config = Config::default();
            (config.cluster.hosts, config.cluster.processes) = (Some(file), processes);
            check_line(expected, hosts(&config));
        };
        check("a:1\n[::1]:2", 2, "good");
        check("a:1\nb:2\nc:3\n", 2, "good");
        check("a:1\n", 2, "has 1 addresses, but cluster.processes = 2");
        check("a:1\n\nb:2\n", 2, "line 2 is \"\"");
        check("a\n", 1, "line 1 is \"a\"");
        check("a:0\n", 1, "line 1 is \"a:0\"");
        check(" a:1\n", 1, "line 1 is \" a:1\"");
        let mut config = Config::default();
        check_line("not needed", hosts(&config));
        config.cluster.hosts = Some("/nowhere/hosts".into());
        check_line("No such file", hosts(&config));
    }

    #[test]
    fn secrets_of_clusters() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("hosts");
        let mut config = Config::default();
        check_line("not needed by one process", cluster_secret(&config));
        (config.cluster.processes, config.cluster.hosts) = (2, Some(file.clone()));
        check_line("needs a hosts file", cluster_secret(&config));
        fs::write(&file, "127.0.0.1:1\n127.0.0.1:2\n").unwrap();
        check_line("every process is on this machine", cluster_secret(&config));
        fs::write(&file, "127.0.0.1:1\n192.0.2.1:2\n").unwrap();
        check_line("BAD   x: process 1 is at 192.0.2.1:2", cluster_secret(&config));
        config.cluster.secret = Some(Secret::new("known to both of them"));
        check_line("good", cluster_secret(&config));
    }

    #[test]
    fn http_ports() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut config = Config::default();
        config.http.listen = Some(taken.local_addr().unwrap());
        check_line("cannot be used", http_port(&config));
        drop(taken);
        check_line("good", http_port(&config));
        config.http.listen = None;
        check_line("is off", http_port(&config));
    }

    #[test]
    fn checkpoint_stores() {
        let dir = tempfile::tempdir().unwrap();
        let check = |store: Option<&str>, expected: &str| {
            let mut config = Config::default();
            config.checkpoints.store = store.map(|store| store.parse().unwrap());
            check_line(expected, checkpoint_store(&config));
        };
        let path = |below: &str| format!("{}/{below}", dir.path().display());
        check(Some(&path("new/checkpoints")), "good");
        let probes = std::fs::read_dir(dir.path().join("new/checkpoints/clicktide/probes")).unwrap();
        assert_eq!(probes.count(), 0);
        check(None, "every start reads all open windows from Kafka");
        std::fs::write(dir.path().join("file"), "").unwrap();
        check(Some(&path("file")), "it must be a directory");
        if cfg!(not(feature = "s3")) {
            check(Some("s3://bucket/prefix"), "build it with --features s3");
        }
    }

    #[test]
    fn files_that_properties_name() {
        let mut config = Config::default();
        check_line("none are named", property_files(&config.connection()));
        config.kafka.properties.set("ssl.ca.location", "/nowhere/ca.pem");
        check_line(
            "kafka.properties.ssl.ca.location = \"/nowhere/ca.pem\": No such file",
            property_files(&config.connection()),
        );
    }

    #[test]
    fn without_a_broker_it_says_so_and_skips_the_rest() {
        let mut config = Config::default();
        // Nobody listens on port 1.
        config.kafka.brokers = "127.0.0.1:1".to_owned();
        let lines = kafka(&config);
        let shown = lines[0].to_string();
        assert!(shown.contains("cannot reach Kafka at 127.0.0.1:1: no broker can be reached"), "{shown}");
        assert!(shown.contains("Connection refused"), "{shown}");
        assert_eq!(lines.len(), 8);
        assert!(lines[1..].iter().all(|line| matches!(line.outcome, Outcome::Skipped(_))), "{lines:?}");
    }

    #[test]
    fn tls_that_is_not_built_in_is_said() {
        let mut config = Config::default();
        config.kafka.brokers = "127.0.0.1:1".to_owned();
        config.kafka.properties.set("security.protocol", "SSL");
        let shown = kafka(&config)[0].to_string();
        let expected = if cfg!(feature = "tls") { "cannot reach Kafka" } else { "--features tls" };
        assert!(shown.contains(expected), "{shown}");
    }
}
