//! Every metric of the table, seen to move on the pages of a job and a generator that work against a real Kafka and meet with
//! everything that is counted: bad events, late ones, a network that stalls and breaks, a checkpoint store that fails, a schema
//! registry that is gone for a while.
//!
//! Nothing here depends on how fast anything is: waits are for conditions, with generous deadlines.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use clicktide::avro::wire::SchemaId;
use clicktide::avro::{CLICK_EVENT_LATER_SCHEMA, CLICK_EVENT_SCHEMA};
use clicktide::metrics::{self as names, METRICS, Metric, MetricKind};
use support::job::{DEADLINE, Job, event, now_ms, stop};
use support::proxy::Network;
use support::registry::{behind_proxy, client, flags, later, published, schema_registry};
use support::topics::{Plain, Topic};
use support::watched::Watched;
use support::{Broker, Process, brokers, free_ports};

/// Gauges that say the same as long as a process runs: it is enough that they are there.
const CONSTANT: [&str; 4] =
    [names::BUILD_INFO, names::PROCESS_START_TIME, names::PROCESS_MAX_FDS, names::VIRTUAL_MEMORY_MAX];

#[test]
fn every_metric_moves() {
    let (Some(_), Some(url)) = (brokers(), schema_registry()) else { return };
    let dir = tempfile::tempdir().expect("a folder");
    // Two ways to the broker: this test takes the direct one, the job and the generator that by the proxy.
    let (broker, network, by_proxy) = Broker::start_behind_proxy(&dir.path().join("kafka"));
    let mut job = Job::new(&broker.address, 3);
    job.job_brokers = by_proxy;
    job.flags.extend(
        [
            "--set=kafka.statistics_interval=100ms",
            "--set=kafka.properties.socket.timeout.ms=1600",
            // Longer than answers are lost.
            "--set=kafka.transaction_timeout=2m",
            "--set=kafka.lost_after=2m",
            "--set=dead_letters.late=true",
            "--set=deduplication.horizon=10s",
            "--set=privacy.pages_max=3",
            // A store that fails is complained of every second.
            "--set=logging.repeats_max=1",
        ]
        .map(str::to_owned),
    );
    let (registry, by_registry_proxy) = behind_proxy(&url);
    job.flags.extend(flags(&by_registry_proxy));
    let ids = [CLICK_EVENT_SCHEMA, CLICK_EVENT_LATER_SCHEMA].map(|schema| {
        let registered = client(&url).register(&format!("{}-value", job.events.name), schema);
        registered.unwrap_or_else(|error| panic!("{error}"))
    });
    let sanitised = Topic::create(&job.brokers, "sanitised-events", 3, &[]);
    job.flags.push(format!("--set=kafka.sanitised_events_topic={}", sanitised.name));
    produce_backlog(&job, ids[0]);

    let ports = free_ports(3);
    let listen = |key: &str, port: u16| format!("--set={key}=127.0.0.1:{port}");
    let mut processes: Vec<Process> =
        (0..2).map(|process| job.process(2, process, 1, &[&listen("http.listen", ports[process])])).collect();
    let listens = listen("generator.http_listen", ports[2]);
    // It has room for few events, gives up on them soon, and changes its rate.
    let registry_url = format!("--set=schema_registry.url={url}");
    let generator = [
        &listens,
        &registry_url,
        "--set=kafka.statistics_interval=100ms",
        "--set=kafka.properties.queue.buffering.max.messages=100",
        "--set=kafka.properties.message.timeout.ms=1000",
        "--set=generator.burst.enabled=true",
        "--set=generator.burst.start=3s",
        "--set=generator.burst.duration=2s",
        "--set=generator.burst.repeat=5s",
        "--set=generator.burst.events_per_second=500",
        "--set=generator.duplicates.enabled=true",
    ];
    let mut generator = job.generate_by(&job.job_brokers, 300, None, &generator);
    let mut pages = Pages::of(ports.iter().copied());

    pages.until("the job commits", &mut processes, |pages| pages.moves(names::TICKS) && pages.moves(names::CHECKPOINT));
    let panes = job.dir().join("checkpoints").join(&job.name).join("panes");
    fs::rename(&panes, panes.with_extension("away")).expect("the directory is moved away");
    fs::write(&panes, "a file").expect("a file in its place");
    pages.until("a checkpoint fails", &mut processes, |pages| pages.greatest(names::CHECKPOINTS, "failed") > 0.0);

    registry.set(Network::Cut);
    let plain = Plain::new(&job.brokers);
    plain.send(&job.events.name, 2, Some(&later(ids[1], &event(1, now_ms()))));
    plain.flush();
    pages.until("a partition waits for its schema", &mut processes, |pages| {
        pages.greatest(names::AWAITS_SCHEMA, "2") == 1.0 && pages.greatest(names::SCHEMA_REQUESTS, "failed") > 0.0
    });
    registry.set(Network::Passes);
    pages.until("it is known", &mut processes, |pages| pages.greatest(names::SCHEMAS, "") == 2.0);

    network.set(Network::LosesAnswers);
    pages.until("requests time out, and events of the generator are given up", &mut processes, |pages| {
        let timed_out = [names::KAFKA_REQUEST_TIMEOUTS, names::KAFKA_REQUEST_RETRIES, names::GENERATED_FAILED];
        timed_out.into_iter().all(|name| pages.moves(name))
    });
    network.reset();
    network.set(Network::Passes);
    let generator_pages = |pages: &Pages| {
        METRICS.iter().filter(|metric| metric.name.contains("generator")).all(|metric| pages.moves(metric.name))
    };
    pages.until("all of the generator's", &mut processes, generator_pages);
    generator.kill();
    pages.until("partitions are idle", &mut processes, |pages| pages.greatest(names::IDLE, "") > 0.0);

    let missing = |pages: &Pages| -> Vec<&str> {
        METRICS.iter().map(|metric| metric.name).filter(|name| !pages.moves(name)).collect()
    };
    let start = Instant::now();
    while !missing(&pages).is_empty() {
        assert!(start.elapsed() < DEADLINE, "these do not move: {:#?}\n{:#?}", missing(&pages), pages.seen);
        pages.look();
    }
    for outcome in ["taken", "failed"] {
        assert!(pages.greatest(names::CHECKPOINTS, outcome) > 0.0, "{outcome}");
    }
    for client in ["source-0", "source-1", "log-ends", "committer", "generator"] {
        assert!(pages.greatest(names::KAFKA_REQUESTS, client) > 0.0, "{client}");
    }
    for arrangement in ["arrange_pages", "visitors", "sessions"] {
        assert!(pages.greatest(names::ARRANGEMENT_ROWS, arrangement) > 0.0, "{arrangement}");
    }
    assert_eq!(pages.greatest(names::REJECTED_EVENTS, "undecodable"), 1.0);
    assert!(pages.greatest(names::LATE_EVENTS, "") >= 1.0);
    // One of the backlog, and what the generator sends twice.
    assert!(pages.greatest(names::DUPLICATE_EVENTS, "") >= 1.0);
    assert!(pages.greatest(names::OTHER_PAGES_EVENTS, "") >= 1.0);
    assert!(pages.greatest(names::DEAD_LETTERS, "") >= 2.0);
    stop(&mut processes, "TERM");
}

/// Two minutes of events up to one minute ago, many more windows than a source runs ahead, and an event that can't be read, one
/// that is late and one that is there twice among them.
fn produce_backlog(job: &Job, schema: SchemaId) {
    let plain = Plain::new(&job.brokers);
    let start_ms = now_ms() - 180_000;
    let send = |partition, time_ms: i64| {
        let bytes = published(schema, &event(time_ms / 20 + i64::from(partition), time_ms));
        plain.send(&job.events.name, partition, Some(&bytes));
    };
    for time_ms in (start_ms..start_ms + 120_000).step_by(20) {
        (0..3).for_each(|partition| send(partition, time_ms));
    }
    plain.send(&job.events.name, 0, Some(b"not an event"));
    send(1, start_ms);
    send(2, start_ms + 119_980);
    plain.flush();
}

/// What `/metrics` has said, again and again, on several ports.
struct Pages {
    ports: Vec<u16>,
    /// By port and series: the least and the greatest value.
    seen: BTreeMap<(u16, String), (f64, f64)>,
}

impl Pages {
    fn of(ports: impl Iterator<Item = u16>) -> Pages {
        Pages { ports: ports.collect(), seen: BTreeMap::new() }
    }

    /// Looks at all pages that are there, checks that they hold what the table says, and takes them in.
    fn look(&mut self) {
        thread::sleep(Duration::from_millis(30));
        for port in self.ports.clone() {
            // Nobody may listen there yet.
            let Some((code, page)) = Watched(port).get("/metrics") else { continue };
            assert_eq!(code, 200, "{page}");
            for line in page.lines().filter(|line| !line.is_empty()) {
                match line.strip_prefix("# ") {
                    Some(said) => check_type(said),
                    None => self.take(port, line),
                }
            }
        }
    }

    fn take(&mut self, port: u16, line: &str) {
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("no end of labels: {line}"));
        let labels: BTreeMap<&str, &str> = labels
            .split_terminator("\",")
            .map(|label| label.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}")))
            .map(|(label, value)| (label, value.trim_end_matches('"')))
            .collect();
        let metric = metric_of(name).unwrap_or_else(|| panic!("not in the table: {line}"));
        let found: BTreeSet<&str> = labels.keys().copied().filter(|label| *label != "le").collect();
        assert_eq!(found, metric.labels.iter().copied().collect(), "{line}");
        // Nothing that a producer chooses.
        assert!(
            labels.values().all(|value| !["/page/", "user ", "session "].iter().any(|of| value.contains(of))),
            "{line}"
        );
        let (least, greatest) = self.seen.entry((port, series.to_owned())).or_insert((value, value));
        (*least, *greatest) = (least.min(value), greatest.max(value));
    }

    /// The greatest value that a series has had whose name is this and that has a label with this value.
    fn greatest(&self, name: &str, label: &str) -> f64 {
        let label = if label.is_empty() { String::new() } else { format!("=\"{label}\"") };
        let series = self.seen.iter().filter(|((_, series), _)| of(series, name) && series.contains(&label));
        series.map(|(_, (_, greatest))| *greatest).fold(0.0, f64::max)
    }

    /// Whether a counter has counted, a histogram has been given something, and a gauge has had several values.
    fn moves(&self, name: &str) -> bool {
        let metric = metric_of(name).unwrap_or_else(|| panic!("{name} is not in the table"));
        match metric.kind {
            MetricKind::Counter => self.greatest(name, "") > 0.0,
            MetricKind::Histogram => self.greatest(&format!("{name}_count"), "") > 0.0,
            MetricKind::Gauge => {
                let values = || self.seen.iter().filter(|((_, series), _)| of(series, name)).map(|(_, values)| *values);
                let (least, greatest) = values().fold((f64::MAX, f64::MIN), |(least, greatest), values| {
                    (least.min(values.0), greatest.max(values.1))
                });
                if CONSTANT.contains(&name) { values().count() > 0 } else { least < greatest }
            }
        }
    }

    /// Looks until `condition` holds, while all processes run.
    fn until(&mut self, what: &str, processes: &mut [Process], condition: impl Fn(&Pages) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            for process in processes.iter_mut() {
                assert!(process.exited().is_none(), "{what}: a process has ended:\n{}", process.stderr());
            }
            assert!(start.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}: {:#?}", self.seen);
            self.look();
        }
        eprintln!("{what}: after {:.1} s", start.elapsed().as_secs_f64());
    }
}

/// Whether a series is one of the metric.
fn of(series: &str, name: &str) -> bool {
    series.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('{'))
}

/// The row of the table that a series of this name belongs to.
fn metric_of(name: &str) -> Option<&'static Metric> {
    let parts = ["_bucket", "_sum", "_count"].map(|part| name.strip_suffix(part));
    METRICS.iter().find(|metric| {
        metric.name == name || (metric.kind == MetricKind::Histogram && parts.contains(&Some(metric.name)))
    })
}

/// Checks a comment that says of which type a metric is.
fn check_type(said: &str) {
    let Some((name, kind)) = said.strip_prefix("TYPE ").and_then(|said| said.split_once(' ')) else { return };
    let metric = metric_of(name).unwrap_or_else(|| panic!("{name} is not in the table"));
    assert_eq!(kind, format!("{:?}", metric.kind).to_lowercase(), "{name}");
}
