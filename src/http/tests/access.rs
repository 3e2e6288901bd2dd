//! Who is let in.

use super::super::testing::{post_with, request_with};
use super::*;

const TOKEN: &str = "0123456789abcdef";

fn with_token() -> Access {
    Access { token: Some(Secret::new(TOKEN)), ..Access::default() }
}

#[test]
fn only_health_and_the_dashboards_files_are_shown_without_the_token() {
    let served = process_0_on("127.0.0.1:0", JobSite { access: with_token(), ..site_of_process_0() });
    served.view.publish(window(10, 3));
    for path in ["/", "/dashboard.js", "/dashboard.css", "/favicon.svg", "/healthz", "/readyz"] {
        assert_eq!(get(served.address(), path).code, 200, "{path}");
    }
    let guarded = [
        "/metrics",
        "/v1/windows",
        "/v1/windows/latest",
        "/v1/windows/10",
        "/v1/pages",
        "/v1/pages/%2F1/windows",
        "/v1/cluster",
        "/v1/openapi.json",
    ];
    for path in guarded {
        let check = |authorization: &str, code: u16, challenge: Option<&str>| {
            let answer = request_with(served.address(), "GET", path, &format!("{authorization}\r\n"));
            assert_eq!(answer.code, code, "{authorization} {path}: {}", answer.body);
            assert_eq!(header_of(&answer, "www-authenticate"), challenge, "{authorization} {path}");
            if code == 401 {
                assert_eq!(header_of(&answer, "content-type"), Some("application/problem+json"));
                assert_eq!(answer.json()["status"], json!(401));
                assert!(!answer.body.contains(TOKEN));
            }
        };
        check(&format!("Authorization: Bearer {TOKEN}\r\n"), 200, None);
        check(&format!("authorization: bearer {TOKEN}\r\n"), 200, None);
        check("", 401, Some(r#"bearer realm="clicktide""#));
        let wrong = Some(r#"bearer realm="clicktide", error="invalid_token""#);
        check("Authorization: Bearer 0123456789abcdeg\r\n", 401, wrong);
        check("Authorization: Bearer \r\n", 401, Some(r#"bearer realm="clicktide", error="invalid_request""#));
        let other = Some(r#"bearer realm="clicktide", error="invalid_request""#);
        check(&format!("Authorization: Basic {TOKEN}\r\n"), 401, other);
    }
    for path in ["/v1/stream", "/v1/checkpoints"] {
        assert_eq!(get(served.address(), path).code, 401, "{path}");
    }
    assert_eq!(post(served.address(), "/v1/savepoints", "application/json", "{}").code, 401);
}

#[test]
fn other_processes_and_the_generator_ask_for_the_token_too() {
    let process_1 = served(Site::Job(JobSite { view: None, access: with_token(), ..site_of_process_0() }));
    let health = Arc::new(Health::default);
    let generator = served(Site::Generator(GeneratorSite { health, metrics: metrics_handle(), access: with_token() }));
    let check = |server: &Server, path: &str, authorization: &str, code: u16| {
        assert_eq!(request_with(server.address(), "GET", path, &format!("{authorization}\r\n")).code, code, "{path}");
    };
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    for server in [&process_1, &generator] {
        check(server, "/healthz", "", 200);
        check(server, "/metrics", "", 401);
        check(server, "/metrics", &token, 200);
    }
    check(&generator, "/metrics/health", "", 200);
}

#[test]
fn changes_need_the_token_or_come_from_this_machine() {
    let savepoints = || JobSite { savepoints: Some(SavepointRequests::default()), ..site_of_process_0() };
    let open = process_0_on("127.0.0.1:0", savepoints());
    let guarded = process_0_on("127.0.0.1:0", JobSite { access: with_token(), ..savepoints() });
    let check = |served: &Served, headers: &str, code: u16| {
        let headers = format!("Content-Type: application/json\r\n{headers}");
        // The last thing that is looked at.
        let answer = post_with(served.address(), "/v1/savepoints", &headers, r#"{"name": ".."}"#);
        assert_eq!(answer.code, code, "{headers}: {}", answer.body);
    };
    check(&open, "", 400);
    check(&open, "Origin: http://localhost:8080\r\n", 400);
    check(&open, "Origin: https://shop.example\r\n", 403);
    check(&open, "Origin: null\r\n", 403);
    check(&guarded, "", 401);
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    check(&guarded, &token, 400);
    check(&guarded, &format!("{token}Origin: https://intranet.example\r\n"), 400);
}

#[test]
fn pages_of_other_sites_read_only_if_they_are_allowed_to() {
    let origins = |origins: &[&str]| Access {
        cors_origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
        ..with_token()
    };
    let site = |access| process_0_on("127.0.0.1:0", JobSite { access, ..site_of_process_0() });
    let (off, on) = (site(origins(&[])), site(origins(&["https://a.example", "http://b.example:8080"])));
    let allowed = |served: &Served, method: &str, rest: &str| {
        let answer = request_with(served.address(), method, "/v1/windows", &format!("{rest}\r\n"));
        header_of(&answer, "access-control-allow-origin").map(str::to_owned)
    };
    let token = format!("Authorization: Bearer {TOKEN}\r\n");
    for (origin, expected) in [
        ("https://a.example", Some("https://a.example")),
        ("http://b.example:8080", Some("http://b.example:8080")),
        ("http://b.example", None),
        ("null", None),
    ] {
        let rest = format!("Origin: {origin}\r\n{token}");
        assert_eq!(allowed(&on, "GET", &rest).as_deref(), expected, "{origin}");
        assert_eq!(allowed(&off, "GET", &rest), None, "{origin}");
        let preflight = format!("Origin: {origin}\r\nAccess-Control-Request-Method: GET\r\n");
        assert_eq!(allowed(&on, "OPTIONS", &preflight).as_deref(), expected, "{origin}");
        assert_eq!(allowed(&off, "OPTIONS", &preflight), None, "{origin}");
    }
    let preflight = "Origin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n\r\n";
    let answer = request_with(on.address(), "OPTIONS", "/v1/savepoints", preflight);
    assert_eq!(header_of(&answer, "access-control-allow-methods"), Some("get,head"));
    assert_eq!(header_of(&answer, "access-control-allow-headers"), Some("authorization"));
    assert_eq!(header_of(&answer, "access-control-allow-credentials"), None);
}
