//! The API's own document, and requests made up from it, straight through the router.

use std::collections::BTreeSet;

use axum::body::{Body, to_bytes};
use proptest::prelude::*;
use tower::ServiceExt;

use super::*;
use crate::http::change::Peer;

/// A router with some windows, on which requests are carried out one by one.
struct Routed {
    router: Router,
    runtime: tokio::runtime::Runtime,
}

impl Routed {
    fn new(access: Access) -> Routed {
        let site = JobSite { access, ..site_of_process_0() };
        let view = site.view.clone().expect("process 0 has one");
        for end in [10, 20, 30] {
            view.publish(window(end, 20));
        }
        let (_, cluster) = watch::channel("{}".into());
        let (_, stop) = watch::channel(false);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        Routed { router: router(Site::Job(site), Live { cluster, stop }), runtime }
    }

    /// The status of the answer, its content type, and its JSON if it is that.
    fn request(&self, method: &str, path: &str, body: &str) -> Option<(StatusCode, String, Value)> {
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, "application/json");
        let request = request.extension(Peer(SocketAddr::from(([127, 0, 0, 1], 9)))).body(Body::from(body.to_owned()));
        // What is no request at all, the server itself refuses.
        let request = request.ok()?;
        Some(self.runtime.block_on(async {
            let response = self.router.clone().oneshot(request).await.expect("it cannot fail");
            let content_type = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let content_type = content_type.unwrap_or_default().to_owned();
            let status = response.status();
            let bytes = to_bytes(response.into_body(), 1 << 24).await.expect("a body");
            (status, content_type, serde_json::from_slice(&bytes).unwrap_or_default())
        }))
    }

    fn document(&self) -> Value {
        self.request("GET", "/v1/openapi.json", "").expect("a request").2
    }
}

/// Every operation of a document: its path, its method, and itself.
fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let paths = document["paths"].as_object().expect("paths");
    let of_path = |(path, item): (&String, &Value)| {
        let item = item.as_object().expect("a path item").clone();
        let path = path.clone();
        item.into_iter().map(move |(method, operation)| (path.clone(), method, operation)).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

#[test]
fn everything_is_described() {
    let document = Routed::new(Access::default()).document();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{}", document["openapi"]);
    let operations = operations(&document);
    let paths: BTreeSet<&str> = operations.iter().map(|(path, ..)| path.as_str()).collect();
    for path in
        ["/", "/healthz", "/metrics", "/readyz", "/v1/checkpoints", "/v1/cluster", "/v1/openapi.json", "/v1/stream"]
    {
        assert!(paths.contains(path), "{path} is not in {paths:?}");
    }
    for (path, method, operation) in &operations {
        let place = format!("{method} {path}");
        assert!(operation["summary"].is_string(), "{place} has no summary");
        for parameter in operation["parameters"].as_array().into_iter().flatten() {
            assert!(parameter["description"].is_string(), "{place}: {parameter}");
            assert!(parameter["schema"].is_object(), "{place}: {parameter}");
        }
        for (status, response) in operation["responses"].as_object().expect("responses") {
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{place}: {status}");
            let content = response["content"].as_object().expect("content");
            assert_eq!(content.len(), 1, "{place}: {status}");
            if status.starts_with('4') {
                assert!(content.contains_key("application/problem+json"), "{place}: {status}");
            }
        }
    }
    // Whoever follows a reference gets somewhere, and every schema says what it is.
    let text = document.to_string();
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap_or_default();
        assert!(schemas.contains_key(name), "{name} is not in {:?}", schemas.keys());
    }
}

#[test]
fn the_token_is_described_where_there_is_one() {
    let document = Routed::new(Access::default()).document();
    assert_eq!(document["components"]["securitySchemes"], Value::Null);
    let access = Access { token: Some(Secret::new("0123456789abcdef")), ..Access::default() };
    let routed = Routed::new(access);
    let request = Request::builder().uri("/v1/openapi.json").header("authorization", "Bearer 0123456789abcdef");
    let request = request.body(Body::empty()).expect("a request");
    let document: Value = routed.runtime.block_on(async {
        let response = routed.router.clone().oneshot(request).await.expect("it cannot fail");
        serde_json::from_slice(&to_bytes(response.into_body(), 1 << 24).await.expect("a body")).expect("JSON")
    });
    for (path, method, operation) in operations(&document) {
        let guarded = path.starts_with("/v1/") || path == "/metrics";
        assert_eq!(operation["security"].is_array(), guarded, "{method} {path}");
        assert_eq!(operation["responses"]["401"].is_object(), guarded, "{method} {path}");
    }
    assert_eq!(document["components"]["securitySchemes"]["token"]["scheme"], json!("bearer"));
}

#[test]
fn requests_are_counted_by_route() {
    let recorder = crate::metrics::recorder().expect("valid buckets");
    metrics::with_local_recorder(&recorder, || {
        let routed = Routed::new(Access::default());
        for path in ["/v1/windows/10", "/v1/windows/20", "/v1/windows/x", "/nowhere", "/v1/nowhere/else"] {
            routed.request("GET", path, "");
        }
        routed.request("DELETE", "/v1/windows/10", "");
    });
    let text = recorder.handle().render();
    for line in [
        r#"clicktide_http_requests_total{route="/v1/windows/{window_end}",status="200"} 2"#,
        r#"clicktide_http_requests_total{route="/v1/windows/{window_end}",status="400"} 1"#,
        r#"clicktide_http_requests_total{route="/v1/windows/{window_end}",status="405"} 1"#,
        r#"clicktide_http_requests_total{route="none",status="404"} 2"#,
    ] {
        assert!(text.lines().any(|found| found == line), "no {line} in\n{text}");
    }
}

/// Any text, as a client would send it: percent-encoded, or not, or wrongly.
fn texts() -> impl Strategy<Value = String> {
    let encoded = |text: String| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    prop_oneof![
        Just(String::new()),
        "[a-z0-9/.-]{1,12}",
        "-?[0-9]{1,25}",
        any::<String>().prop_map(encoded),
        "(%[0-9A-Fa-f]{2}){1,6}",
        "[!-~]{1,12}",
        "[0-9a-f]{38,42}",
    ]
}

fn parameters() -> impl Strategy<Value = String> {
    let names = prop_oneof![
        Just("window_end".to_owned()),
        Just("window_end_min".to_owned()),
        Just("window_end_max".to_owned()),
        Just("sort".to_owned()),
        Just("order".to_owned()),
        Just("contains".to_owned()),
        Just("prefix".to_owned()),
        Just("view_count_min".to_owned()),
        Just("limit".to_owned()),
        Just("cursor".to_owned()),
        texts(),
    ];
    let good = prop_oneof![
        Just("20".to_owned()),
        Just("view_count".to_owned()),
        Just("bounce_rate".to_owned()),
        Just("asc".to_owned()),
        Just("desc".to_owned()),
    ];
    let pair = (names, prop_oneof![texts(), good]).prop_map(|(name, value)| format!("{name}={value}"));
    prop::collection::vec(pair, 0..4).prop_map(|pairs| pairs.join("&"))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is asked for is answered by what is asked for, or a problem that says why not, and both as they are described.
    #[test]
    fn any_parameters(path in 0_usize..7, place in texts(), query in parameters(), body in "[ -~]{0,40}") {
        thread_local! {
            static ROUTED: (Routed, Value) = {
                let routed = Routed::new(Access::default());
                let document = routed.document();
                (routed, document)
            };
        }
        let described = [
            ("get", "/v1/windows"),
            ("get", "/v1/windows/latest"),
            ("get", "/v1/windows/{window_end}"),
            ("get", "/v1/pages"),
            ("get", "/v1/pages/{page}/windows"),
            ("post", "/v1/savepoints"),
            ("get", "/v1/checkpoints"),
        ];
        let (method, template) = described[path];
        let path = template.replace("{window_end}", &place).replace("{page}", &place);
        let answered = ROUTED.with(|(routed, document)| {
            let (status, content_type, json) = routed.request(&method.to_uppercase(), &format!("{path}?{query}"), &body)?;
            let operation = &document["paths"][template][method]["responses"][status.as_str()];
            Some((status, content_type, json, operation["content"].clone()))
        });
        let Some((status, content_type, json, described)) = answered else { return Ok(()) };
        // A path that is empty, or has a slash or a question mark in it, is another one.
        let same = !place.is_empty() && !place.contains(['/', '?', '#']) && place != "latest";
        prop_assert!(!same || described[&content_type].is_object(), "{status} {content_type} of {path}?{query}");
        prop_assert!(!status.is_server_error(), "{status} of {path}?{query}");
        if !status.is_success() {
            prop_assert_eq!(content_type, "application/problem+json");
            prop_assert_eq!(&json["status"], &serde_json::json!(status.as_u16()));
            prop_assert!(json["detail"].as_str().is_some_and(|detail| !detail.is_empty()));
        }
    }
}
