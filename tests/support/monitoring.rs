//! The dashboards and alert rules that are shipped, and the tools of Prometheus.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file of the project.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The folder of `prometheus` and `promtool`. Without them the test is skipped, which `scripts/test` reports.
pub fn tools() -> Option<PathBuf> {
    super::required("CLICKTIDE_PROMETHEUS", false).map(PathBuf::from)
}

/// Grafana's dashboards, by file name.
pub fn dashboards() -> BTreeMap<String, Value> {
    let files = fs::read_dir(root().join("config/grafana/dashboards")).expect("dashboards");
    let read = |file: PathBuf| {
        let text = fs::read_to_string(&file).expect("a file");
        let dashboard = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        (file.file_name().expect("a name").to_string_lossy().into_owned(), dashboard)
    };
    files.map(|file| read(file.expect("a file").path())).collect()
}

/// The alert rules.
pub fn alerts() -> Vec<Value> {
    let rules: Value = serde_saphyr::from_str(&read("config/prometheus/alerts.yml")).expect("alert rules");
    let groups = rules["groups"].as_array().expect("groups");
    groups.iter().flat_map(|group| group["rules"].as_array().expect("rules")).cloned().collect()
}

/// The names of the metrics that config/kafka-jmx.yml makes.
pub fn jmx_metrics() -> Vec<String> {
    let rules: Value = serde_saphyr::from_str(&read("config/kafka-jmx.yml")).expect("the exporter's rules");
    let names = rules["rules"].as_array().expect("rules").iter().map(|rule| rule["name"].as_str().expect("a name"));
    let parts = |name: &str| match name {
        "kafka_topic_$1_$2_total" => {
            ["messages_in", "bytes_in", "bytes_out"].map(|what| format!("kafka_topic_{what}_total")).to_vec()
        }
        name => vec![name.to_owned()],
    };
    names.flat_map(parts).collect()
}

/// Every query of a panel that has something to show while all is well, with where it is from.
pub fn dashboard_queries() -> Vec<(String, String)> {
    let shown = |(_, query): &(String, String)| !query.contains("ALERTS");
    dashboards().iter().flat_map(|(file, dashboard)| panel_queries(file, dashboard)).filter(shown).collect()
}

fn panel_queries(file: &str, dashboard: &Value) -> Vec<(String, String)> {
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let query = |panel: &Value, target: &Value| {
        (format!("{file}: {}", panel["title"]), target["expr"].as_str().expect("a query").to_owned())
    };
    panels
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten().map(move |target| query(panel, target)))
        .collect()
}

/// Every query of the dashboards, their annotations and the alert rules, with where it is from.
pub fn queries() -> Vec<(String, String)> {
    let mut queries = Vec::new();
    for (file, dashboard) in dashboards() {
        queries.extend(panel_queries(&file, &dashboard));
        for each in dashboard["annotations"]["list"].as_array().expect("annotations") {
            let query = each["target"]["expr"].as_str().expect("a query");
            queries.push((format!("{file}: {}", each["name"]), query.to_owned()));
        }
    }
    for rule in alerts() {
        queries.push((rule["alert"].to_string(), rule["expr"].as_str().expect("a query").to_owned()));
    }
    queries
}

/// The metrics that a query names.
pub fn metric_names(query: &str) -> Vec<&str> {
    const PREFIXES: [&str; 4] = ["clicktide_", "process_", "kafka_", "jvm_"];
    let words = query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| PREFIXES.iter().any(|prefix| word.starts_with(prefix))).collect()
}
