//! The program against an Apache Kafka with TLS, SASL and an authorizer: the whole job by password and by certificate, and
//! each mistake, which must be told by every command, for what it is, and soon.
//!
//! The one broker is shared by the tests here, each of which has topics and a job of its own, and what it grants itself is what
//! docs/security.md says. Its administrator is whoever comes by the plain address.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use support::acls::{Acl, allow};
use support::job::{DEADLINE, Job, Way, all_closed_ms, stop};
use support::watched::Watched;
use support::{Broker, Process, brokers, free_port, tls, unique};

const CONFIGURATION: i32 = 2;
const KAFKA: i32 = 10;
const BAD: i32 = 21;
const DENIED: i32 = 22;

/// How long a mistake may take to be told. It is not asserted how fast that is, but it must not be never.
const SOON: Duration = Duration::from_secs(30);

const USER: &str = "User:clicktide";

/// The broker, as `scripts/kafka start --secured` leaves it.
struct Secured {
    broker: Broker,
    dir: PathBuf,
}

/// None where the test is skipped.
fn secured() -> Option<&'static Secured> {
    static SECURED: OnceLock<Secured> = OnceLock::new();
    brokers()?;
    tls().then(|| {
        SECURED.get_or_init(|| {
            // Gone with this process, by the broker's own guard.
            let dir = std::env::temp_dir().join(unique("clicktide-secured"));
            Secured { broker: Broker::start_secured(&dir), dir }
        })
    })
}

fn property(name: &str, value: &str) -> String {
    format!("--set=kafka.properties.{name}={value}")
}

impl Secured {
    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).expect(name).trim().to_owned()
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn tls_file(&self, property_name: &str, name: &str) -> String {
        property(property_name, &self.file(&format!("tls/{name}")))
    }

    /// By a listener for SASL_SSL, with the right password.
    fn by_password(&self, listener: &str) -> Way {
        let flags = vec![
            property("security.protocol", "SASL_SSL"),
            property("sasl.mechanism", "SCRAM-SHA-512"),
            property("sasl.username", &self.read("user")),
            property("sasl.password", &format!("file:{}", self.file("password"))),
            self.tls_file("ssl.ca.location", "ca.pem"),
        ];
        Way { brokers: self.read(listener), flags }
    }

    /// By the listener for SSL, with no certificate yet.
    fn by_tls(&self) -> Way {
        let flags = vec![property("security.protocol", "SSL"), self.tls_file("ssl.ca.location", "ca.pem")];
        Way { brokers: self.read("mutual_tls"), flags }
    }

    /// By that listener, with a certificate and its key.
    fn by_certificate(&self, certificate: &str, key: &str) -> Way {
        let given = [self.tls_file("ssl.certificate.location", certificate), self.tls_file("ssl.key.location", key)];
        self.by_tls().and(given)
    }

    /// A job with topics of its own, which nobody may use yet.
    fn job(&self, way: &Way) -> Job {
        let mut job = Job::new(&self.broker.address, 3);
        job.way = Some(way.clone());
        job
    }

    /// What a job has for something that docs/security.md calls so.
    fn name(job: &Job, documented: &str) -> String {
        match documented {
            "clickstream-events" => job.events.name.clone(),
            "analytics-results" => job.results.name.clone(),
            "clickstream-dead-letters" => job.dead_letters.name.clone(),
            "clicktide-progress" => job.progress.name.clone(),
            name => name.replacen("clicktide", &job.name, 1),
        }
    }

    /// Grants what docs/security.md does under these headings, but for what is left out.
    fn grant(&self, job: &Job, headings: &[&str], but: impl Fn(&Acl) -> bool) {
        let granted = documented(headings).into_iter().filter(|acl| !but(acl));
        let granted: Vec<Acl> = granted.map(|acl| Acl { name: Secured::name(job, &acl.name), ..acl }).collect();
        if !granted.is_empty() {
            allow(&self.broker.address, USER, &granted);
        }
    }
}

fn documented(headings: &[&str]) -> Vec<Acl> {
    headings.iter().flat_map(|heading| Acl::documented(heading)).collect()
}

/// What all commands that were started in this folder have said.
fn all_said(dir: &Path) -> String {
    let files = fs::read_dir(dir).expect("a folder").map(|entry| entry.expect("an entry").path());
    files
        .filter(|file| file.is_file())
        .map(|file| String::from_utf8_lossy(&fs::read(file).expect("a file")).into_owned())
        .collect()
}

/// A command of the program, with the flags that all of the job's commands have.
fn command(job: &Job, name: &str, arguments: &[&str]) -> Process {
    let mut args: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    args.extend(job.check_flags());
    Process::start(name, job.dir(), args)
}

fn succeeds(job: &Job, name: &str, arguments: &[&str]) -> String {
    let mut process = command(job, name, arguments);
    process.wait_for_code(0, DEADLINE);
    process.stdout()
}

/// Generator, job of one process and of two, results, audit and all that there is beside.
fn the_whole_job(secured: &Secured, way: &Way, secrets: &[String]) {
    let job = secured.job(way);
    let all = ["The job", "What the job can do without", "The generator", "The audit", "Dead letters"];
    secured.grant(&job, &all, |_| false);
    let mut generator = job.generate(300, Some("8s"));
    let watched = Watched(free_port());
    let mut processes = vec![job.process(1, 0, 2, &[&watched.flag(), "--set=logging.filter=debug"])];
    job.until_more(2, &mut processes);
    let shown: String = ["/v1/cluster", "/metrics", "/readyz"]
        .into_iter()
        .filter_map(|path| watched.get(path))
        .map(|(_, body)| body)
        .collect();
    assert!(shown.contains("clicktide_"), "{shown}");
    stop(&mut processes, "TERM");
    let mut processes = job.run(2, 2);
    generator.wait_for_code(0, DEADLINE);
    job.until_final(all_closed_ms(), &mut processes);
    stop(&mut processes, "TERM");
    let audit = job.audit_agrees();
    assert_eq!(audit.number("/input/rejected"), 0);
    assert!(succeeds(&job, "dead-letters", &["dead-letters", "list"]).contains("no dead letters"));
    succeeds(&job, "replay", &["dead-letters", "replay", "--reason", "undecodable"]);
    assert!(!succeeds(&job, "checkpoints", &["checkpoint", "list"]).is_empty());

    let said = all_said(job.dir()) + &shown;
    assert!(!said.contains("it needs an ACL"), "{said}");
    for secret in secrets {
        assert!(!said.contains(secret), "a secret was said");
    }
}

#[test]
fn the_whole_job_by_password() {
    let Some(secured) = secured() else { return };
    the_whole_job(secured, &secured.by_password("sasl_ssl"), &[secured.read("password")]);
}

#[test]
fn the_whole_job_by_certificate() {
    let Some(secured) = secured() else { return };
    let password = secured.file("tls/client-encrypted.password");
    let way = secured.by_certificate("client.pem", "client-encrypted.key");
    let way = way.and([property("ssl.key.password", &format!("file:{password}"))]);
    the_whole_job(secured, &way, &[secured.read("tls/client-encrypted.password")]);
}

/// A way that is not good: with which code all commands must end soon (the check with its own), and what all must say.
struct Mistake {
    way: Way,
    code: i32,
    expected: Vec<String>,
}

fn mistake(way: Way, code: i32, expected: &[&str]) -> Mistake {
    Mistake { way, code, expected: expected.iter().map(|text| (*text).to_owned()).collect() }
}

/// Makes all of these mistakes at once.
fn told(secured: &Secured, mistakes: impl IntoIterator<Item = Mistake>) {
    let commands = |Mistake { way, code, expected }| {
        let job = secured.job(&way);
        let audit = [vec!["audit".to_owned()], job.job_flags(&job.brokers)].concat();
        let commands = [
            (job.process(1, 0, 1, &[]), code),
            (job.generate(100, None), code),
            (command(&job, "check", &["check"]), BAD),
            (command(&job, "topics", &["topics", "create"]), code),
            (command(&job, "describe", &["topics", "describe"]), code),
            (command(&job, "dead-letters", &["dead-letters", "list"]), code),
            (Process::start("audit", job.dir(), audit), code),
        ];
        (job, commands, expected)
    };
    let begun: Vec<_> = mistakes.into_iter().map(commands).collect();
    for (_job, mut commands, expected) in begun {
        for (process, code) in &mut commands {
            process.wait_for_code(*code, SOON);
            let said = process.stdout() + &process.stderr();
            for expected in &expected {
                assert!(said.contains(expected), "no {expected:?} in {said}");
            }
        }
    }
}

#[test]
fn credentials_that_are_not_accepted() {
    let Some(secured) = secured() else { return };
    let way = |name: &str, value: &str| secured.by_password("sasl_ssl").and([property(name, value)]);
    let not_accepted = "the brokers do not accept the credentials; see sasl.* in kafka.properties";
    let wrong = way("sasl.password", "not-the-password");
    let supported = "broker's supported mechanisms: SCRAM-SHA-512";
    let address = wrong.brokers.as_str();
    let mistakes = [
        mistake(wrong.clone(), DENIED, &[not_accepted, "invalid credentials", address]),
        mistake(way("sasl.username", "nobody"), DENIED, &[not_accepted, "invalid credentials"]),
        mistake(way("sasl.mechanism", "PLAIN"), DENIED, &[not_accepted, supported]),
    ];
    told(secured, mistakes);

    // Nor is it tried again by the supervisor, and no process waits for one that is not let in.
    let job = secured.job(&wrong);
    let mut launch = job.launch(2, 1);
    let mut second = job.process(2, 1, 1, &[]);
    launch.wait_for_code(DENIED, SOON);
    assert!(launch.stderr().contains("which a restart does not mend"), "{}", launch.stderr());
    second.wait_for_code(DENIED, SOON);
    assert!(!all_said(job.dir()).contains("not-the-password"), "a secret was said");
}

#[test]
fn certificates_of_brokers_that_are_not_good() {
    let Some(secured) = secured() else { return };
    let foreign = secured.by_password("sasl_ssl").and([secured.tls_file("ssl.ca.location", "foreign-ca.pem")]);
    let (misnamed, expired) = (secured.by_password("misnamed"), secured.by_password("expired"));
    let not_good = |way: Way, why: &[&str]| {
        let said = format!("the certificate of {} is not good", way.brokers);
        mistake(way, DENIED, &[&[said.as_str()], why].concat())
    };
    let mistakes = [
        not_good(foreign, &["unable to get local issuer certificate", "signed by"]),
        not_good(misnamed, &["mismatch", "for kafka.example"]),
        not_good(expired, &["certificate has expired", "to Jan  2 00:00:00 2020"]),
    ];
    told(secured, mistakes);
}

#[test]
fn certificates_of_clients_that_are_not_good() {
    let Some(secured) = secured() else { return };
    let none = secured.by_tls();
    let address = none.brokers.clone();
    let not_accepted = "the brokers do not accept the certificate in ssl.certificate.location";
    let expired = secured.by_certificate("client-expired.pem", "client-expired.key");
    let foreign = secured.by_certificate("client-foreign.pem", "client-foreign.key");
    let mistakes = [
        mistake(none, DENIED, &["do the brokers ask for a certificate of the client?", &address]),
        mistake(expired, DENIED, &[not_accepted, "it has expired", "to Jan  2 00:00:00 2020"]),
        mistake(foreign, DENIED, &[not_accepted, "do they trust its issuer?", "foreign-ca"]),
    ];
    told(secured, mistakes);
}

#[test]
fn files_that_cannot_be_used() {
    let Some(secured) = secured() else { return };
    let encrypted = secured.by_certificate("client.pem", "client-encrypted.key");
    let wrong_password = encrypted.clone().and([property("ssl.key.password", "not-it")]);
    let another = secured.by_certificate("client.pem", "client-expired.key");
    let no_authority = secured.by_tls().and([secured.tls_file("ssl.ca.location", "ca.key")]);
    let none = secured.by_certificate("client.pem", "none.key");
    let mistake = |way, expected: &[&str]| mistake(way, CONFIGURATION, expected);
    let mistakes = [
        mistake(none, &["kafka.properties.ssl.key.location", "none.key", "No such file"]),
        mistake(encrypted, &["client-encrypted.key", "the key is encrypted, and there is no ssl.key.password"]),
        mistake(wrong_password, &["is ssl.key.password right"]),
        mistake(another, &["the key must be that of the certificate in ssl.certificate.location"]),
        mistake(no_authority, &["ssl.ca.location failed", "the file must hold a key, or certificates, in PEM"]),
    ];
    told(secured, mistakes);
}

#[test]
fn listeners_for_something_else() {
    let Some(secured) = secured() else { return };
    let another = "is its listener for another protocol than security.protocol";
    let plain = Way { brokers: secured.read("sasl_ssl"), flags: Vec::new() };
    let to_plain = Way { brokers: secured.broker.address.clone(), ..secured.by_password("sasl_ssl") };
    let nobody = Way { brokers: format!("127.0.0.1:{}", free_port()), ..secured.by_password("sasl_ssl") };
    let mistakes = [
        mistake(plain, KAFKA, &[another, "\"plaintext\""]),
        mistake(to_plain, KAFKA, &[another, "\"SASL_SSL\""]),
        // Absence is no refusal.
        mistake(nobody, KAFKA, &["no broker can be reached", "Connection refused"]),
    ];
    told(secured, mistakes);
}

#[test]
fn permissions_that_a_job_lacks() {
    let Some(secured) = secured() else { return };
    let way = secured.by_password("sasl_ssl");
    let begun = documented(&["The job"]).into_iter().map(|lacking| {
        let job = secured.job(&way);
        let headings = ["The job", "What the job can do without", "The check"];
        let granted = |acl: &Acl| (&acl.operation, &acl.name) != (&lacking.operation, &lacking.name);
        secured.grant(&job, &headings, |acl| !granted(acl));
        let needed = match lacking.resource.as_str() {
            "topic" => {
                let (operation, topic) = (lacking.operation.to_uppercase(), Secured::name(&job, &lacking.name));
                format!("{operation} on topic {topic:?}")
            }
            _ => format!("init_transactions as {:?}", job.name),
        };
        let (check, run) = (command(&job, "check", &["check"]), job.process(1, 0, 1, &[]));
        (job, lacking, needed, check, run)
    });
    for (_job, lacking, needed, mut check, mut run) in begun.collect::<Vec<_>>() {
        run.wait_for_code(DENIED, SOON);
        let said = run.stderr();
        assert!(said.contains("it needs an ACL") && said.contains(&needed), "{lacking:?}: {said}");
        // The topics are not made by the program, so that the check has other things to say as well.
        check.wait_for_code(BAD, SOON);
        let said = check.stdout();
        let told = said.lines().any(|line| line.starts_with("BAD   permissions of the job") && line.contains(&needed));
        assert!(told || lacking.resource == "transactional-id", "{lacking:?}: {said}");
    }
}

#[test]
fn permissions_that_only_some_commands_need() {
    let Some(secured) = secured() else { return };
    let way = secured.by_password("sasl_ssl");
    let lacks = |process: &mut Process, code: i32, resource: &str| {
        process.wait_for_code(code, SOON);
        let said = process.stdout() + &process.stderr();
        let told = said.lines().any(|line| line.contains("it needs an ACL") && line.contains(resource));
        assert!(told, "no {resource:?} in {said}");
    };
    // Nothing but to know that it is there, so that the first event is refused.
    let job = secured.job(&way);
    allow(&secured.broker.address, USER, &[Acl::new("Describe", "topic", &job.events.name)]);
    lacks(&mut job.generate(100, None), DENIED, &job.events.name);
    lacks(&mut command(&job, "topics", &["topics", "create"]), DENIED, &job.events.name);
    lacks(&mut command(&job, "letters", &["dead-letters", "list"]), DENIED, &job.dead_letters.name);

    // Without the read positions a job goes on; only the check has something to say.
    let job = secured.job(&way);
    secured.grant(&job, &["The job", "The check", "The generator"], |_| false);
    lacks(&mut command(&job, "check", &["check"]), BAD, &format!("consumer group {:?}", job.name));
    let mut generator = job.generate(200, Some("5s"));
    let mut processes = job.run(1, 1);
    generator.wait_for_code(0, DEADLINE);
    job.until_more(1, &mut processes);
    stop(&mut processes, "TERM");
    // And the audit, which reads the results.
    let audit = [vec!["audit".to_owned()], job.job_flags(&job.brokers)].concat();
    lacks(&mut Process::start("audit", job.dir(), audit), DENIED, &job.results.name);
    // One more topic is one more permission.
    let mut job = secured.job(&way);
    secured.grant(&job, &["The job"], |_| false);
    let sanitised = format!("{}-sanitised", job.events.name);
    job.flags.push(format!("--set=kafka.sanitised_events_topic={sanitised}"));
    lacks(&mut job.process(1, 0, 1, &[]), DENIED, &format!("WRITE on topic {sanitised:?}"));
    // What the topics are like is for those to see who may.
    let job = secured.job(&way);
    secured.grant(&job, &["The job", "What the job can do without"], |_| false);
    lacks(
        &mut command(&job, "check", &["check"]),
        BAD,
        &format!("describe the configuration of topic {:?}", job.events.name),
    );
    lacks(&mut command(&job, "check-id", &["check"]), BAD, &format!("{}-check", job.name));
}

/// The shipped configuration, with what it wants to be set: its topics are made, and the check finds nothing.
#[test]
fn the_configuration_for_production() {
    let Some(secured) = secured() else { return };
    let dir = tempfile::tempdir().expect("a folder");
    // No other test here uses the default names.
    let headings = ["Making the topics", "The job", "What the job can do without", "The check"];
    allow(&secured.broker.address, USER, &documented(&headings));

    fs::write(dir.path().join("hash-key"), "0123456789abcdef0123456789abcdef\n").expect("a file");
    let text = include_str!("../config/production.toml").replace("/etc/clicktide/ca.pem", &secured.file("tls/ca.pem"));
    let config = dir.path().join("production.toml");
    fs::write(&config, text.replace("/etc/clicktide", &dir.path().display().to_string())).expect("a file");
    let run = |arguments: &[&str], with_password: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clicktide"));
        command.args(arguments).arg("--config").arg(&config).current_dir(dir.path());
        command.env("KAFKA_BROKERS", secured.read("sasl_ssl"));
        if with_password {
            command.env("CLICKTIDE_KAFKA_PASSWORD", secured.read("password"));
        }
        for (key, value) in [
            // The one broker there is.
            ("TOPICS__REPLICATION_FACTOR", "1"),
            ("TOPICS__MIN_INSYNC_REPLICAS", "1"),
            ("HTTP__LISTEN", "off"),
            ("GENERATOR__HTTP_LISTEN", "off"),
            ("CHECKPOINTS__STORE", &dir.path().join("checkpoints").display().to_string()),
        ] {
            command.env(format!("CLICKTIDE_{key}"), value);
        }
        Process::spawn(&arguments.join("-"), dir.path(), command)
    };
    let mut without = run(&["topics", "describe"], false);
    without.wait_for_code(CONFIGURATION, SOON);
    assert!(without.stderr().contains("CLICKTIDE_KAFKA_PASSWORD is not"), "{}", without.stderr());
    run(&["topics", "create"], true).wait_for_code(0, DEADLINE);
    let mut check = run(&["check"], true);
    check.wait_for_code(0, DEADLINE);
    assert!(!check.stdout().contains("BAD"), "{}", check.stdout());
    assert!(!all_said(dir.path()).contains(&secured.read("password")), "a secret was said");
}

/// A program without TLS says so, and how to get it.
#[cfg(not(feature = "tls"))]
#[test]
fn a_program_without_tls() {
    let dir = tempfile::tempdir().expect("a folder");
    let asks = [property("security.protocol", "SASL_SSL"), property("sasl.mechanism", "SCRAM-SHA-512")];
    for asked in &asks {
        let args = ["topics", "describe", "--brokers=127.0.0.1:1", asked];
        let mut process = Process::start("topics", dir.path(), args);
        process.wait_for_code(CONFIGURATION, SOON);
        assert!(process.stderr().contains("cargo build --release --features tls"), "{}", process.stderr());
    }
}
