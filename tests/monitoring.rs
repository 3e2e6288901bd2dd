//! The shipped configuration of Prometheus, alert rules and dashboards, tried on all that they watch: a job of two processes, the
//! generator, and Apache Kafka with the exporter of its own metrics.

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use support::job::{DEADLINE, Job, body, event, now_ms};
use support::monitoring::{dashboard_queries, read, root, tools};
use support::topics::Plain;
use support::watched::Watched;
use support::{Broker, Process, brokers, eventually, free_port};

/// Prometheus with the configuration of docker-compose.yml, but for the addresses and for how often it looks.
struct Prometheus {
    _process: Process,
    http: Watched,
}

impl Prometheus {
    fn start(tools: &Path, dir: &Path, targets: &[(&str, String)]) -> Prometheus {
        let mut config = read("config/prometheus/prometheus.yml");
        let rules = root().join("config/prometheus/alerts.yml").display().to_string();
        let intervals =
            [("scrape_interval: 5s", "scrape_interval: 1s"), ("evaluation_interval: 15s", "evaluation_interval: 1s")];
        let targets = targets.iter().map(|(from, to)| (*from, to.as_str()));
        for (from, to) in targets.chain(intervals).chain([("alerts.yml", rules.as_str())]) {
            assert_eq!(config.matches(from).count(), 1, "{from} in config/prometheus/prometheus.yml");
            config = config.replace(from, to);
        }
        let file = dir.join("prometheus.yml");
        fs::write(&file, config).expect("written");
        let http = Watched(free_port());
        let mut command = Command::new(tools.join("prometheus"));
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", dir.join("prometheus").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{}", http.0)).arg("--log.level=warn");
        Prometheus { _process: Process::spawn("prometheus", dir, command), http }
    }

    /// What its API answers, once it does.
    fn api(&self, path: &str) -> Value {
        let (code, body) = eventually("Prometheus answers", DEADLINE, || self.http.get(&format!("/api/v1/{path}")));
        let answer: Value = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
        assert!(code == 200 && answer["status"] == "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// Whether a query has a series with a number now.
    fn has_data(&self, query: &str) -> bool {
        let encoded: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let answer = self.api(&format!("query?query={encoded}"));
        let series = answer["result"].as_array().expect("series");
        series.iter().any(|series| series["value"][1].as_str().is_some_and(|value| value != "NaN"))
    }
}

/// A query as Grafana would send it soon after the start of everything.
fn for_prometheus(query: &str) -> String {
    query.replace("$__rate_interval", "10s").replace("$__range", "5m")
}

#[test]
fn every_panel_has_data_and_every_rule_works() {
    let (Some(_), Some(tools)) = (brokers(), tools()) else { return };
    let dir = tempfile::tempdir().expect("a folder");
    let (broker, kafka) = Broker::start_with_metrics(&dir.path().join("kafka"));
    let job = Job::new(&broker.address, 3);
    let watched = [(); 3].map(|()| Watched(free_port()));
    let _first = job.process(2, 0, 2, &[&watched[0].flag()]);
    let mut second = job.process(2, 1, 2, &[&watched[1].flag()]);
    let listen = format!("--set=generator.http_listen=127.0.0.1:{}", watched[2].0);
    let _generator = job.generate_by(&job.brokers, 300, None, &[&listen]);
    let address = |watched: Watched| format!("127.0.0.1:{}", watched.0);
    let targets = [
        ("job-0:8080", address(watched[0])),
        ("job-1:8080", address(watched[1])),
        ("generator:8080", address(watched[2])),
        ("kafka:7071", kafka),
    ];
    let prometheus = Prometheus::start(&tools, dir.path(), &targets);

    // Something of all that is shown: also rubbish, and events of an hour ago.
    let plain = Plain::new(&job.brokers);
    let mut waiting = dashboard_queries();
    assert!(waiting.len() > 60, "{waiting:#?}");
    let wait = std::panic::AssertUnwindSafe(|| {
        eventually("every query has data", DEADLINE, || {
            plain.send(&job.events.name, 0, Some(b"rubbish"));
            plain.send(&job.events.name, 1, Some(&body(&event(1, now_ms() - 3_600_000))));
            plain.flush();
            waiting.retain(|(_, query)| !prometheus.has_data(&for_prometheus(query)));
            waiting.is_empty().then_some(())
        })
    });
    if std::panic::catch_unwind(wait).is_err() {
        panic!("no data for {waiting:#?}");
    }

    let rules = prometheus.api("rules");
    let rules =
        rules["groups"].as_array().expect("groups").iter().flat_map(|group| group["rules"].as_array().expect("rules"));
    let mut evaluated = 0;
    for rule in rules {
        assert!(rule["health"] == "ok" && rule.get("lastError").is_none(), "{rule:#}");
        evaluated += 1;
    }
    assert_eq!(evaluated, support::monitoring::alerts().len());

    // What docker-compose.yml asks.
    let health = |watched: Watched| {
        let url = format!("http://127.0.0.1:{}/readyz", watched.0);
        let output = Command::new(env!("CARGO_BIN_EXE_clicktide")).args(["health", "--url", &url]).output();
        let output = output.expect("clicktide health runs");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for watched in watched {
        eventually("all is well", DEADLINE, || (health(watched).0 == Some(0)).then_some(()));
    }
    let (_, told) = health(watched[0]);
    assert!(told.lines().any(|line| line.starts_with("ok      committing: ")), "{told}");

    // And that a failure is seen.
    second.kill();
    assert_eq!(health(watched[1]).0, Some(1));
    eventually("the alert of a process that is gone", DEADLINE, || {
        prometheus.has_data(r#"ALERTS{alertname="ClicktideProcessDown"}"#).then_some(())
    });
}
