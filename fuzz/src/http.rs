//! A request: a line with its method and its path and query, lines of headers, a line `==`, and the body.
//!
//! Whatever is asked, it is answered: with what was asked for, or with a problem that says why not. A server that fails would
//! say so with a status of 500 or more; only health checks may say 503.

use clicktide::config::Secret;
use clicktide::http::Access;
use clicktide::http::fuzzing::Api;

thread_local! {
    static OPEN: Api = Api::new(Access::default());
    static GUARDED: Api = Api::new(Access {
        token: Some(Secret::new("a token that is long enough")),
        cors_origins: vec!["https://shop.example".to_owned()],
    });
}

/// Checks one request, with a token configured and without.
pub fn run(data: &[u8]) {
    let (head, body) = super::parts(data);
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let at = first.iter().position(|byte| *byte == b' ').unwrap_or(first.len());
    let (method, uri) = (&first[..at], first.get(at + 1..).unwrap_or_default());
    let headers: Vec<(&[u8], &[u8])> = lines.filter_map(header).collect();
    for api in [&OPEN, &GUARDED] {
        let Some(answer) = api.with(|api| api.answer(method, uri, &headers, body)) else { return };
        let text = String::from_utf8_lossy(&answer.body);
        assert!(answer.status < 500 || uri.starts_with(b"/healthz") || uri.starts_with(b"/readyz"), "{text}");
        // Whoever is not well says so in the words of a health check.
        if method != b"HEAD" && answer.content_type.contains("json") && answer.status < 500 {
            let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
            let is_problem = answer.content_type == "application/problem+json";
            assert_eq!(is_problem, answer.status >= 400, "{} {body}", answer.status);
        }
    }
}

fn header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|byte| *byte == b':')?;
    Some((&line[..at], line[at + 1..].trim_ascii()))
}
