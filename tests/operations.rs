//! What operators are given beside the program: dashboards, alert rules, docker-compose.yml, config/kubernetes. What they refer
//! to is there, and they agree with each other. (`tests/monitoring.rs` tries dashboards and rules on a running job.)

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clicktide::config::{Config, Override};
use clicktide::metrics::{METRICS, MetricKind};
use serde_json::Value;

use support::monitoring::{alerts, dashboards, jmx_metrics, metric_names, queries, read, root, tools};

/// The JSON pointer's value, which must be there.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {value:#}"))
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).as_str().unwrap_or_else(|| panic!("{pointer} is no text in {value:#}"))
}

fn number(value: &Value, pointer: &str) -> i64 {
    at(value, pointer).as_i64().unwrap_or_else(|| panic!("{pointer} is no number in {value:#}"))
}

fn list<'a>(value: &'a Value, pointer: &str) -> &'a Vec<Value> {
    at(value, pointer).as_array().unwrap_or_else(|| panic!("{pointer} is no list in {value:#}"))
}

fn yaml(path: &str) -> Value {
    documents(path).pop().expect("a document")
}

fn documents(path: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(&read(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

// --- Dashboards and alert rules -----------------------------------------------------------------------------------------

#[test]
fn grafana_can_show_the_dashboards() {
    let source = text(&yaml("config/grafana/provisioning/datasources/prometheus.yml"), "/datasources/0/uid").to_owned();
    let dashboards = dashboards();
    let uids: BTreeSet<&str> = dashboards.values().map(|dashboard| text(dashboard, "/uid")).collect();
    assert_eq!(uids.len(), dashboards.len(), "each dashboard has a uid of its own");
    for (name, dashboard) in &dashboards {
        assert_eq!(number(dashboard, "/schemaVersion"), 41, "{name}: as Grafana 12 writes it");
        let panels = list(dashboard, "/panels");
        let ids: BTreeSet<i64> = panels.iter().map(|panel| number(panel, "/id")).collect();
        assert_eq!(ids.len(), panels.len(), "{name}: each panel has an id of its own");
        check_places(name, panels);
        for panel in panels.iter().filter(|panel| panel["type"] != "row") {
            let title = text(panel, "/title");
            assert!(["stat", "table", "timeseries"].contains(&text(panel, "/type")), "{name}: {title}");
            assert!(
                panel["type"] == "table" || panel.pointer("/fieldConfig/defaults/unit").is_some(),
                "{name}: {title}"
            );
            assert_eq!(text(panel, "/datasource/uid"), source, "{name}: {title}");
            if let Some(steps) = panel.pointer("/fieldConfig/defaults/thresholds/steps") {
                let values: Vec<Option<f64>> =
                    steps.as_array().expect("steps").iter().map(|s| s["value"].as_f64()).collect();
                assert!(values[0].is_none() && values.is_sorted(), "{name}: {title}: {values:?}");
            }
            let refs: BTreeSet<&str> = list(panel, "/targets").iter().map(|target| text(target, "/refId")).collect();
            assert_eq!(refs.len(), list(panel, "/targets").len(), "{name}: {title}");
            for target in list(panel, "/targets") {
                assert_eq!(text(target, "/datasource/uid"), source, "{name}: {title}");
            }
        }
        for annotation in list(dashboard, "/annotations/list") {
            assert_eq!(text(annotation, "/datasource/uid"), source, "{name}");
        }
        for link in list(dashboard, "/links") {
            let url = text(link, "/url");
            let known = url.strip_prefix("/d/").map_or(url.starts_with("http://127.0.0.1:"), |uid| uids.contains(uid));
            assert!(known, "{name}: a link to {url}");
        }
    }
}

/// Panels lie within 24 columns and not on each other, and each in the row of its question.
fn check_places(dashboard: &str, panels: &[Value]) {
    let place = |panel: &Value| ["x", "y", "w", "h"].map(|side| number(&panel["gridPos"], &format!("/{side}")));
    assert_eq!(panels[0]["type"], "row", "{dashboard}");
    for (index, panel) in panels.iter().enumerate() {
        let [x, y, w, h] = place(panel);
        assert!(x >= 0 && y >= 0 && w > 0 && h > 0 && x + w <= 24, "{dashboard}: {}", panel["title"]);
        for other in &panels[..index] {
            let [x2, y2, w2, h2] = place(other);
            let apart = x + w <= x2 || x2 + w2 <= x || y + h <= y2 || y2 + h2 <= y;
            assert!(apart, "{dashboard}: {} lies on {}", panel["title"], other["title"]);
        }
    }
}

#[test]
fn every_metric_that_is_shown_or_alerted_on_exists() {
    let jmx = jmx_metrics();
    // What the exporter serves of its own accord.
    let jvm = ["jvm_memory_used_bytes", "jvm_memory_max_bytes"];
    let (mut names, mut counted) = (BTreeSet::new(), BTreeSet::new());
    for (place, query) in queries() {
        for name in metric_names(&query) {
            let base =
                ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
            let histogram = METRICS.iter().any(|metric| metric.name == base && metric.kind == MetricKind::Histogram);
            let known = histogram || METRICS.iter().any(|metric| metric.name == name);
            let known = known || jmx.iter().any(|metric| metric == name) || jvm.contains(&name);
            assert!(known, "{place}: there is no metric {name}: {query}");
            names.insert(name.to_owned());
        }
        for function in ["rate(", "increase("] {
            for part in query.split(function).skip(1) {
                let name: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let counts = ["_total", "_bucket", "_sum", "_count"].iter().any(|suffix| name.ends_with(suffix));
                assert!(counts, "{place}: {function}{name}…) of what is no counter: {query}");
                counted.insert(name);
            }
        }
        // The rates of several series are summed; the rate of a sum would take every restart for an event.
        assert!(!query.contains("rate(sum"), "{place}: {query}");
    }
    for name in names.iter().filter(|name| name.ends_with("_total") || name.ends_with("_bucket")) {
        assert!(counted.contains(name), "{name} is a counter, and nothing takes its rate or increase");
    }
    let unused: Vec<&String> = jmx.iter().filter(|name| !names.contains(*name)).collect();
    assert!(unused.is_empty(), "config/kafka-jmx.yml exports what nobody looks at: {unused:?}");
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(path: &str) -> BTreeSet<String> {
    let headings = read(path);
    let headings =
        headings.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept = heading.to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn every_alert_says_what_to_do() {
    let documented = read("docs/monitoring.md");
    let (mut names, troubleshooting) = (BTreeSet::new(), anchors("docs/troubleshooting.md"));
    for rule in alerts() {
        let name = text(&rule, "/alert");
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        let severity = text(&rule, "/labels/severity");
        assert!(["critical", "warning", "info"].contains(&severity), "{name}: {severity}");
        for annotation in ["summary", "description"] {
            assert!(text(&rule, &format!("/annotations/{annotation}")).len() > 20, "{name}: {annotation}");
        }
        let runbook = text(&rule, "/annotations/runbook");
        let anchor = runbook.strip_prefix("docs/troubleshooting.md#").unwrap_or_else(|| panic!("{name}: {runbook}"));
        assert!(troubleshooting.contains(anchor), "{name}: docs/troubleshooting.md has no section #{anchor}");
        assert!(
            documented.contains(&format!("| `{name}` | {severity} |")),
            "docs/monitoring.md lacks {name}, {severity}"
        );
    }
    for file in ["docs/monitoring.md", "docs/troubleshooting.md", "docs/kubernetes.md"] {
        let text = read(file);
        let words = text.split(|c: char| !c.is_alphanumeric());
        for name in words.filter(|word| word.strip_prefix("Clicktide").is_some_and(|rest| !rest.is_empty())) {
            assert!(names.contains(name), "{file}: there is no alert {name}");
        }
    }
}

#[test]
fn alert_rules_pass_their_tests() {
    let Some(tools) = tools() else { return };
    let check = |args: &[&str]| {
        let output =
            Command::new(tools.join("promtool")).args(args).current_dir(root()).output().expect("promtool runs");
        let told = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(output.status.success(), "promtool {args:?}: {told}");
    };
    check(&["check", "config", "config/prometheus/prometheus.yml"]);
    check(&["check", "rules", "--lint=all", "--lint-fatal", "config/prometheus/alerts.yml"]);
    check(&["test", "rules", "tests/alerts.yml"]);
    // Of each rule, that it fires.
    let tests = read("tests/alerts.yml");
    for rule in alerts() {
        let expected = format!("alertname=\"{}\"", text(&rule, "/alert"));
        assert!(tests.contains(&expected), "tests/alerts.yml expects no {expected}");
    }
}

// --- docker-compose.yml -------------------------------------------------------------------------------------------------

#[test]
fn compose_is_understood_by_its_own_loader() {
    // As in tests/compose/go.mod; an older one would look for a newer one.
    const GO_MINOR: u32 = 25;
    let version = Command::new("go").arg("version").output().map(|go| String::from_utf8_lossy(&go.stdout).into_owned());
    let version = version.unwrap_or_default();
    let minor = version.split_once(" go1.").and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next());
    if minor.and_then(|minor| minor.parse().ok()) < Some(GO_MINOR) {
        return support::skipped(&format!("there is no Go 1.{GO_MINOR} or later"));
    }
    let mut loader = Command::new("go");
    loader.args(["run", ".", "../../docker-compose.yml"]).current_dir(root().join("tests/compose"));
    let output = loader.output().expect("go runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Mebibytes of `512m` or `2g`.
fn mebibytes(limit: &str) -> u64 {
    let (number, unit) = limit.split_at(limit.len() - 1);
    let number: u64 = number.parse().unwrap_or_else(|_| panic!("{limit}"));
    match unit {
        "m" => number,
        "g" => number * 1024,
        _ => panic!("{limit}: in m or g"),
    }
}

#[test]
fn compose_stays_within_8_gb_and_on_this_machine() {
    let compose = yaml("docker-compose.yml");
    let services = at(&compose, "/services").as_object().expect("services");
    // What has to be asked for is left out.
    let started = services.values().filter(|service| service.get("profiles").is_none());
    let memory: u64 = started.map(|service| mebibytes(text(service, "/deploy/resources/limits/memory"))).sum();
    assert!(memory <= 8 * 1024, "{memory} MiB");
    for (name, service) in services {
        for port in service.get("ports").map_or(&[][..], |ports| ports.as_array().expect("ports")) {
            assert!(port.as_str().expect("a port").starts_with("127.0.0.1:"), "{name}: {port}");
        }
        assert_eq!(service.get("healthcheck").is_some(), name != "topics", "{name}: a healthcheck");
    }
    // What Prometheus asks is there, at the ports that they listen on.
    let prometheus = yaml("config/prometheus/prometheus.yml");
    let targets = list(&prometheus, "/scrape_configs").iter().flat_map(|job| list(job, "/static_configs/0/targets"));
    let targets: BTreeSet<&str> = targets.map(|target| target.as_str().expect("a target")).collect();
    assert_eq!(targets, BTreeSet::from(["generator:8080", "job-0:8080", "job-1:8080", "kafka:7071"]));
    assert!(targets.iter().all(|target| services.contains_key(target.split(':').next().expect("a host"))));
    let config = Config::load(Some(&root().join("config/compose.toml")), &[]).expect("a good configuration");
    assert_eq!(config.http.listen.map(|address| address.port()), Some(8080));
    assert_eq!(config.generator.http_listen.map(|address| address.port()), Some(8080));
    assert!(read("config/kafka.Dockerfile").contains("exporter.jar=7071:"));
}

/// The rest of the line after `prefix`, up to a space or a quote.
fn after<'a>(text: &'a str, prefix: &str) -> &'a str {
    let (_, rest) = text.split_once(prefix).unwrap_or_else(|| panic!("no {prefix:?}"));
    rest.split([' ', '\n', '"', '<']).next().expect("something")
}

#[test]
fn kafka_in_compose_is_the_one_that_is_tested() {
    let (image, script, pom) = (read("config/kafka.Dockerfile"), read("scripts/kafka"), read("scripts/kafka-pom.xml"));
    let exporter = "io.prometheus.jmx:jmx_prometheus_javaagent:";
    assert_eq!(after(&image, exporter), after(&script, exporter), "the exporter's version");
    let (_, kafka) = pom.split_once("<artifactId>kafka_2.13</artifactId>").expect("Kafka");
    assert_eq!(after(&image, "apache/kafka:"), after(kafka, "<version>"), "Kafka's version");
}

#[test]
fn the_schema_registry_in_compose_is_the_one_that_is_tested() {
    let (compose, script) = (read("docker-compose.yml"), read("scripts/registry"));
    assert_eq!(after(&compose, "apicurio/apicurio-registry:"), after(&script, "readonly version="));
}

// --- config/kubernetes --------------------------------------------------------------------------------------------------

const KUBERNETES: &str = "config/kubernetes";
/// The version whose schemas count.
const KUBERNETES_VERSION: &str = "1.35";

/// All manifests but those of kustomize.
fn manifests() -> Vec<PathBuf> {
    let folders = ["config", "topics", "job", "generator"].map(|folder| root().join(KUBERNETES).join(folder));
    let files = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("a folder"));
    let files = files.map(|file| file.expect("a file").path());
    let manifests: Vec<PathBuf> = files
        .filter(|file| file.extension().is_some_and(|extension| extension == "yaml"))
        .filter(|file| !file.ends_with("kustomization.yaml"))
        .collect();
    assert!(manifests.len() >= 8, "{manifests:?}");
    manifests
}

#[test]
fn kubernetes_manifests_follow_their_schemas() {
    let Some(python) = support::python() else { return };
    let mut validate = Command::new(python.with_file_name("kubernetes-validate"));
    let output = validate.args(["-k", KUBERNETES_VERSION, "--strict"]).args(manifests()).output();
    let output = output.unwrap_or_else(|error| panic!("{validate:?}: {error}"));
    let told = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{told}");
    assert_eq!(told.matches(" passed for resource ").count(), 9, "{told}");
}

#[test]
fn kustomize_finds_all_files() {
    for folder in ["config", "topics", "job", "generator"] {
        let folder = format!("{KUBERNETES}/{folder}");
        let kustomization = yaml(&format!("{folder}/kustomization.yaml"));
        let mut named: BTreeSet<&str> =
            list(&kustomization, "/resources").iter().map(|file| file.as_str().expect("a file")).collect();
        for generator in kustomization.get("configMapGenerator").map_or(&[][..], |g| g.as_array().expect("a list")) {
            named.extend(list(generator, "/files").iter().map(|file| file.as_str().expect("a file")));
        }
        for file in &named {
            assert!(root().join(&folder).join(file).exists(), "{folder}: {file}");
        }
        for file in fs::read_dir(root().join(&folder)).expect("a folder") {
            let file = file.expect("a file").file_name().into_string().expect("a name");
            assert!(file == "kustomization.yaml" || named.contains(file.as_str()), "{folder}: nobody uses {file}");
        }
        assert_eq!(text(&kustomization, "/namespace"), "clicktide", "{folder}");
    }
}

/// The configuration that the pods get, with secrets of this test.
fn kubernetes_config(dir: &Path) -> Config {
    let secret = dir.join("secret");
    fs::write(&secret, "00112233445566778899aabbccddeeff\n").expect("written");
    let hosts = root().join(KUBERNETES).join("config/hosts.txt");
    let overrides = [
        Override::new("test", "privacy.hash_key_file", secret.display()),
        Override::new("test", "cluster.secret_file", secret.display()),
        Override::new("test", "cluster.hosts", hosts.display()),
    ];
    let file = root().join(KUBERNETES).join("config/clicktide.toml");
    Config::load(Some(&file), &overrides).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn kubernetes_processes_find_each_other() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = kubernetes_config(dir.path());
    let job = yaml(&format!("{KUBERNETES}/job/statefulset.yaml"));
    let services = documents(&format!("{KUBERNETES}/job/services.yaml"));
    let namespace = yaml(&format!("{KUBERNETES}/config/namespace.yaml"));

    assert_eq!(number(&job, "/spec/replicas"), i64::try_from(config.cluster.processes).expect("few"));
    let (name, service) = (text(&job, "/metadata/name"), text(&job, "/spec/serviceName"));
    let ports: BTreeMap<&str, i64> = list(&job, "/spec/template/spec/containers/0/ports")
        .iter()
        .map(|port| (text(port, "/name"), number(port, "/containerPort")))
        .collect();
    let host = |index: usize| {
        let (namespace, port) = (text(&namespace, "/metadata/name"), ports["cluster"]);
        format!("{name}-{index}.{service}.{namespace}.svc.cluster.local:{port}")
    };
    let expected: Vec<String> = (0..config.cluster.processes).map(host).collect();
    assert_eq!(config.cluster().addresses().expect("good addresses"), expected);
    // No line too many either.
    let hosts = read(&format!("{KUBERNETES}/config/hosts.txt"));
    assert_eq!(hosts.lines().filter(|line| !line.starts_with('#')).count(), expected.len());

    // All at once, with names before they are ready: or they wait for each other for ever.
    assert_eq!(text(&job, "/spec/podManagementPolicy"), "Parallel");
    assert_eq!(text(&job, "/spec/updateStrategy/type"), "OnDelete");
    let headless =
        services.iter().find(|other| text(other, "/metadata/name") == service).expect("the headless service");
    assert_eq!(text(headless, "/spec/clusterIP"), "None");
    assert_eq!(at(headless, "/spec/publishNotReadyAddresses"), true);
    let selected = at(&job, "/spec/selector/matchLabels");
    assert_eq!(at(headless, "/spec/selector"), selected);
    assert_eq!(at(&job, "/spec/template/metadata/labels"), selected);
    let budget = yaml(&format!("{KUBERNETES}/job/disruption.yaml"));
    assert_eq!(at(&budget, "/spec/selector/matchLabels"), selected);
    let network = yaml(&format!("{KUBERNETES}/job/network.yaml"));
    assert_eq!(at(&network, "/spec/podSelector/matchLabels"), selected);
    assert_eq!(number(&network, "/spec/ingress/0/ports/0/port"), ports["cluster"]);
    assert_eq!(number(&network, "/spec/ingress/1/ports/0/port"), ports["http"]);

    // Process 0 answers for the whole job.
    let http =
        services.iter().find(|other| text(other, "/metadata/name") == "clicktide-http").expect("the HTTP service");
    assert_eq!(text(http, "/spec/selector/statefulset.kubernetes.io~1pod-name"), format!("{name}-0"));
    assert_eq!(config.http.listen.map(|address| i64::from(address.port())), Some(ports["http"]));
    // Each waits for the others for longer than the kubelet waits before it starts one of them again.
    assert!(config.cluster().connect_timeout > Duration::from_secs(300), "cluster.connect_timeout");
}

#[test]
fn kubernetes_pods_have_what_their_configuration_names() {
    let config = read(&format!("{KUBERNETES}/config/clicktide.toml"));
    for file in ["topics/job.yaml", "job/statefulset.yaml", "generator/deployment.yaml"] {
        let pod = yaml(&format!("{KUBERNETES}/{file}"))["spec"]["template"]["spec"].take();
        let container = at(&pod, "/containers/0");
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true, "{file}");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{file}");
        let volumes: BTreeSet<&str> = list(&pod, "/volumes").iter().map(|volume| text(volume, "/name")).collect();
        let mounts: Vec<(&str, &str)> = list(container, "/volumeMounts")
            .iter()
            .map(|mount| (text(mount, "/name"), text(mount, "/mountPath")))
            .collect();
        assert!(mounts.iter().all(|(volume, _)| volumes.contains(volume)), "{file}");
        let mounted = |path: &str| mounts.iter().any(|(_, at)| path.starts_with(at));
        assert!(mounted("/etc/clicktide/clicktide.toml"), "{file}");
        for key in ["hash_key_file", "secret_file"] {
            assert!(mounted(after(&config, &format!("{key} = \""))), "{file}: {key}");
        }
        if file == "job/statefulset.yaml" {
            for key in ["hosts", "store"] {
                assert!(mounted(after(&config, &format!("\n{key} = \""))), "{file}: {key}");
            }
        }
        // As the image says.
        let dockerfile = read("Dockerfile");
        assert_eq!(number(&pod, "/securityContext/runAsUser").to_string(), after(&dockerfile, "\nUSER "), "{file}");
    }
}
