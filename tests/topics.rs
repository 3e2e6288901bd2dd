//! Topics and `check` against a real Kafka.

mod support;

use std::time::Duration;

use clicktide::check::{CheckLine, Outcome, check};
use clicktide::config::{Config, Environment, Override};
use clicktide::kafka::admin::{TopicOutcome, create_topics, describe_topics};
use clicktide::kafka::client::{Cause, ClientError};
use clicktide::kafka::probe;
use support::unique;

const PATIENCE: Duration = Duration::from_secs(30);

/// A configuration with topics and a job of its own.
fn config(brokers: &str) -> Config {
    let port = support::free_port();
    let overrides = [
        ("kafka.brokers", brokers.to_owned()),
        ("job.name", unique("job")),
        ("kafka.events_topic", unique("events")),
        ("kafka.results_topic", unique("results")),
        ("kafka.dead_letters_topic", unique("dead-letters")),
        ("kafka.progress_topic", unique("progress")),
        ("kafka.sanitised_events_topic", unique("sanitised-events")),
        ("http.listen", format!("127.0.0.1:{port}")),
        ("topics.events_partitions", "3".to_owned()),
        ("checkpoints.store", "off".to_owned()),
    ]
    .map(|(key, value)| Override::new("--test", key, value));
    Config::load_from(None, &Environment::new(), &overrides).expect("a configuration")
}

fn bad(lines: &[CheckLine]) -> Vec<String> {
    lines.iter().filter(|line| line.bad()).map(ToString::to_string).collect()
}

#[test]
fn topics_are_made_once_and_compared_afterwards() {
    let Some(brokers) = support::brokers() else { return };
    let mut config = config(&brokers);
    let connection = config.connection();
    let names: Vec<_> = config.topic_specs().into_iter().map(|topic| topic.name).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    assert_eq!(describe_topics(&connection, &names, PATIENCE).unwrap(), [None, None, None, None, None]);

    let create = |config: &Config| create_topics(&connection, &config.topic_specs(), PATIENCE).unwrap();
    assert!(create(&config).iter().all(|(_, outcome)| *outcome == TopicOutcome::Created));
    let same = TopicOutcome::Existing { differences: Vec::new() };
    assert!(create(&config).iter().all(|(_, outcome)| *outcome == same));

    let found = describe_topics(&connection, &names, PATIENCE).unwrap();
    let partitions: Vec<_> = found.iter().flatten().map(|topic| topic.partitions.len()).collect();
    assert_eq!(partitions, [3, 3, 1, 1, 6]);
    let value = |topic: usize, name: &str| found[topic].as_ref().unwrap().config[name].value.clone();
    assert_eq!(value(0, "message.timestamp.type"), "LogAppendTime");
    assert_eq!(value(0, "compression.type"), "snappy");
    assert_eq!(value(0, "retention.ms"), "7200000");
    assert_eq!(value(1, "compression.type"), "gzip");
    assert_eq!(value(1, "retention.ms"), "86400000");
    assert_eq!(value(3, "cleanup.policy"), "compact");
    assert_eq!((value(4, "retention.ms"), value(4, "compression.type")), ("86400000".into(), "gzip".into()));
    let shown = found[0].as_ref().unwrap().to_string();
    assert!(shown.contains("\n  message.timestamp.type = LogAppendTime\n"), "{shown}");
    assert!(shown.contains("\n  partition 2: leader 1, replicas [1], in sync [1], offsets 0 to 0"), "{shown}");
    assert!(!shown.contains("segment.bytes"), "what is the broker's own is not shown: {shown}");

    config.topics.events_partitions = 6;
    config.topics.results_retention = "1h".parse().unwrap();
    let outcomes: Vec<_> = create(&config).into_iter().map(|(_, outcome)| outcome).collect();
    let differences =
        |lines: &[&str]| TopicOutcome::Existing { differences: lines.iter().map(|line| (*line).to_owned()).collect() };
    assert_eq!(outcomes[0], differences(&["partitions: 3, expected 6"]));
    assert_eq!(
        outcomes[1],
        differences(&["retention.ms: 86400000, expected 3600000", "segment.ms: 21600000, expected 900000"])
    );
    assert_eq!(outcomes[2..], [same.clone(), same.clone(), same]);
    // And nothing was changed.
    assert_eq!(describe_topics(&connection, &names, PATIENCE).unwrap(), found);
}

#[test]
fn what_cannot_be_made_is_refused_with_the_reason() {
    let Some(brokers) = support::brokers() else { return };
    let mut config = config(&brokers);
    config.topics.replication_factor = 7;
    let error = create_topics(&config.connection(), &config.topic_specs(), PATIENCE).unwrap_err().to_string();
    assert!(error.contains(&format!("create topic {:?}", config.kafka.events_topic)), "{error}");
    assert!(error.contains("replication factor"), "{error}");
}

#[test]
fn check_finds_what_is_missing_and_what_differs() {
    let Some(brokers) = support::brokers() else { return };
    let mut config = config(&brokers);
    let lines = check(&config);
    assert_eq!(bad(&lines).len(), 5, "every topic is missing: {lines:?}");
    assert!(bad(&lines).iter().all(|line| line.contains("`clicktide topics create` makes it")), "{lines:?}");

    // It has made none of them by asking.
    let outcomes = create_topics(&config.connection(), &config.topic_specs(), PATIENCE).unwrap();
    assert!(outcomes.iter().all(|(_, outcome)| *outcome == TopicOutcome::Created), "{outcomes:?}");
    let lines = check(&config);
    assert_eq!(bad(&lines), [""; 0]);
    let good = lines.iter().filter(|line| line.outcome == Outcome::Good).count();
    // Configuration, retention, port, broker, five topics, reading two of them, transactions, permissions, the group.
    assert_eq!(good, 14, "{lines:?}");

    // A results topic in the place of the events topic.
    std::mem::swap(&mut config.kafka.events_topic, &mut config.kafka.results_topic);
    let lines = bad(&check(&config));
    assert!(lines[0].contains("message.timestamp.type: CreateTime, expected LogAppendTime"), "{lines:?}");
    config.kafka.progress_topic = config.kafka.dead_letters_topic.clone();
    let lines = bad(&check(&config));
    assert!(lines.iter().any(|line| line.contains("cleanup.policy: delete, expected compact")), "{lines:?}");
}

#[test]
fn checking_does_not_fence_a_running_job() {
    let Some(brokers) = support::brokers() else { return };
    let config = config(&brokers);
    use rdkafka::producer::{BaseProducer, Producer};
    let mut client = rdkafka::ClientConfig::new();
    client.set("bootstrap.servers", &brokers).set("transactional.id", &config.job.name);
    let job: BaseProducer = client.create().expect("a producer");
    job.init_transactions(PATIENCE).expect("init_transactions");
    check(&config);
    job.begin_transaction().expect("begin_transaction");
    job.commit_transaction(PATIENCE).expect("the job goes on");
}

#[test]
fn reading_a_topic_that_is_not_there_is_said() {
    let Some(brokers) = support::brokers() else { return };
    let error = probe::read(&config(&brokers).connection(), &unique("nothing"), PATIENCE).unwrap_err();
    assert!(matches!(error, ClientError::Failed { cause: Cause::UnknownTopic, .. }), "{error}");
}

#[test]
fn who_may_not_is_told_so() {
    let Some(_) = support::brokers() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    // A broker with a second listener, where clients log in by SASL (without TLS, which would need OpenSSL), and which
    // allows those who do so nothing.
    let ports = support::free_ports(3);
    let [plain, login, controller] = [0, 1, 2].map(|i| format!("127.0.0.1:{}", ports[i]));
    let broker = support::Broker::start_on(
        &dir.path().join("kafka"),
        ports[0],
        &[
            &format!("listeners=PLAINTEXT://{plain},LOGIN://{login},CONTROLLER://{controller}"),
            &format!("advertised.listeners=PLAINTEXT://{plain},LOGIN://{login}"),
            &format!("controller.quorum.voters=1@{controller}"),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,LOGIN:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "sasl.enabled.mechanisms=PLAIN",
            "listener.name.login.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
             required user_clicktide=\"hunter2\";",
            "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users=User:ANONYMOUS",
        ],
    );
    let anyone = config(&broker.address);
    let with_password = |password: &str| {
        let mut config = anyone.clone();
        config.kafka.brokers = login.clone();
        let properties = &mut config.kafka.properties;
        properties.set("security.protocol", "SASL_PLAINTEXT");
        properties.set("sasl.mechanism", "PLAIN");
        properties.set("sasl.username", "clicktide");
        properties.set("sasl.password", password);
        config
    };
    let cause = |result: Result<(), ClientError>| match result {
        Err(ClientError::Failed { cause, .. }) => Some(cause),
        Err(other) => panic!("{other}"),
        Ok(()) => None,
    };
    create_topics(&anyone.connection(), &anyone.topic_specs(), PATIENCE).expect("the topics are made");

    let wrong = with_password("hunter3").connection();
    assert_eq!(cause(probe::reach(&wrong, Duration::from_secs(3))), Some(Cause::Authentication));
    let begun = probe::begin_transactions(&wrong, "job", Duration::from_secs(15), Duration::from_secs(3));
    assert_eq!(cause(begun), Some(Cause::Authentication));

    let user = with_password("hunter2");
    let lines = check(&user);
    let shown = bad(&lines);
    assert_eq!(lines.iter().find(|line| line.name == "broker").map(CheckLine::bad), Some(false), "{lines:?}");
    assert_eq!(shown.len(), 8, "five topics, transactions, the job's permissions and its group: {shown:?}");
    assert!(shown.iter().all(|line| line.contains("it needs an ACL")), "{shown:?}");
    let created = create_topics(&user.connection(), &user.topic_specs(), PATIENCE);
    assert_eq!(cause(created.map(drop)), Some(Cause::Authorization));
}
