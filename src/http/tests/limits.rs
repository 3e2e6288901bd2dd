//! What is too much, too large or too slow.

use std::io::Write;

use super::super::limits::*;
use super::super::testing::request_with;
use super::*;

#[test]
fn too_long_and_too_large() {
    let site = JobSite { savepoints: Some(SavepointRequests::default()), ..site_of_process_0() };
    let served = process_0_on("127.0.0.1:0", site);
    let check = |answer: Answer, code: u16, detail: &str| {
        assert_eq!(answer.code, code, "{}", answer.body);
        assert_eq!(header_of(&answer, "content-type"), Some("application/problem+json"));
        assert!(answer.body.contains(detail), "{}", answer.body);
    };
    let longest = format!("/v1/windows?{}", "a".repeat(URL_BYTES_MAX - "/v1/windows?".len()));
    check(get(served.address(), &longest), 400, "unknown parameter");
    check(get(served.address(), &format!("{longest}a")), 414, "may have 14336");
    check(get(served.address(), &format!("/{longest}")), 414, "may have 14336");
    let name = |bytes: usize| format!("{{\"name\":\"{}\"}}", "a".repeat(bytes - "{\"name\":\"\"}".len()));
    let post = |bytes: usize| post(served.address(), "/v1/savepoints", "application/json", &name(bytes));
    check(post(BODY_BYTES_MAX), 400, "1 to 200 letters");
    check(post(BODY_BYTES_MAX + 1), 413, "more than 4096 bytes");
    let head = format!("X-Long: {}\r\n\r\n", "a".repeat(HEADER_BYTES_MAX));
    assert_eq!(request_with(served.address(), "GET", "/healthz", &head).code, 431);
}

#[test]
fn the_longest_filters_fit() {
    let served = process_0();
    served.view.publish(window(10, 3));
    let longest = "%F0%9F%8C%8A".repeat(FILTER_CHARS_MAX);
    let answer = get(served.address(), &format!("/v1/pages?contains={longest}&prefix={longest}&limit={ROWS_MAX}"));
    assert_eq!((answer.code, answer.json()["matched"].clone()), (200, json!(0)));
}

#[test]
fn a_body_that_does_not_come_is_waited_for_no_longer() {
    let site = JobSite { savepoints: Some(SavepointRequests::default()), ..site_of_process_0() };
    let served = process_0_on("127.0.0.1:0", site);
    let head = "POST /v1/savepoints HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 20";
    let mut socket = send(served.address(), head);
    socket.write_all(b"{\"name\":").expect("write");
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 408");
}

#[test]
fn documented() {
    let seconds = |duration: Duration| format!("{} s", duration.as_secs());
    let kib = |bytes: usize| format!("{} KiB", bytes / 1024);
    let rows = [
        ("connections at a time; further ones wait", CONNECTIONS_MAX.to_string()),
        ("streams at a time; one more gets 503", STREAMS_MAX.to_string()),
        ("head of a request; a longer one gets 431", kib(HEADER_BYTES_MAX)),
        ("path and query of a request; longer ones get 414", kib(URL_BYTES_MAX)),
        ("body of a request; a longer one gets 413", kib(BODY_BYTES_MAX)),
        ("rows of one answer: `limit`", format!("{ROWS_MAX}, {ROWS_DEFAULT} if it is not given")),
        ("`contains` and `prefix`", format!("{FILTER_CHARS_MAX} characters")),
        ("numbers in requests", format!("±{NUMBER_MAX}")),
        ("parameters", "each once, and none but those of the path".to_owned()),
        ("head of a request to come, and connection to stay without one", seconds(HEADER_READ_MAX)),
        ("body of a request to come; then 408", seconds(BODY_READ_MAX)),
        ("client that reads nothing while there is something to send; then it is cut off", seconds(WRITE_STALL_MAX)),
        ("`/v1/checkpoints`; then 504", seconds(CHECKPOINTS_MAX)),
        ("`POST /v1/savepoints`; then 504", seconds(SAVEPOINT_MAX)),
        ("requests under way when the server stops", seconds(STOP_MAX)),
    ];
    let expected: Vec<String> = rows.iter().map(|(what, limit)| format!("| {what} | {limit} |")).collect();
    let text = include_str!("../../../docs/http-api.md");
    let found: Vec<&str> = text.lines().filter(|line| expected.iter().any(|row| row == line)).collect();
    assert_eq!(found, expected, "docs/http-api.md should have the rows:\n{}", expected.join("\n"));
}
