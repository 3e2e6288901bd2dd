//! What the tests of this module share: small windows and a small client.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clicktide_dataflows::event::PageAnalytics;
use clicktide_dataflows::time::Windows;

use super::{ClosedWindow, ProcessIdentity, Status};

/// The status of a job with windows of 50 ms every 10 ms, whose events may be 20 ms out of order.
pub(super) fn status(workers: usize) -> Status {
    let windows = Windows::new(50, 10, 0).expect("windows");
    let job = "clicks".into();
    Status::new(ProcessIdentity { job, process: 0, processes: 1, workers, windows, disorder_bound_ms: 20 })
}

pub(super) fn page(page_url: &str, window_end: i64, view_count: i64) -> PageAnalytics {
    PageAnalytics {
        page_url: page_url.into(),
        window_start: window_end - 10,
        window_end,
        view_count,
        unique_users: 3,
        click_count: 2,
        conversion_count: 1,
        engagement_rate: 0.5,
        bounce_rate: 0.25,
        avg_session_duration: 12.5,
    }
}

/// A window with pages `/0`, `/1`, … that have 0, 1, … views.
pub(super) fn window(window_end: i64, pages: usize) -> ClosedWindow {
    let pages = (0..pages).map(|i| page(&format!("/{i}"), window_end, i as i64)).collect();
    ClosedWindow { window_start: window_end - 10, window_end, close_to_commit_ms: Some(400), pages }
}

/// A response: its status code, its head in lower case, and its body.
pub(super) struct Answer {
    pub(super) code: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }
}

/// Sends the head of a request, without its last empty line, and leaves the connection open.
pub(super) fn send(address: SocketAddr, head: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    socket.write_all(format!("{head}\r\nHost: test\r\n\r\n").as_bytes()).expect("write");
    socket
}

pub(super) fn request(address: SocketAddr, method: &str, path: &str) -> Answer {
    request_with(address, method, path, "\r\n")
}

/// The same with a body of this content type.
pub(super) fn post(address: SocketAddr, path: &str, content_type: &str, body: &str) -> Answer {
    post_with(address, path, &format!("Content-Type: {content_type}\r\n"), body)
}

/// The same with these headers, each with its line's end.
pub(super) fn post_with(address: SocketAddr, path: &str, headers: &str, body: &str) -> Answer {
    request_with(address, "POST", path, &format!("{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
}

/// `rest` follows the other headers.
pub(super) fn request_with(address: SocketAddr, method: &str, path: &str, rest: &str) -> Answer {
    let mut socket = TcpStream::connect(address).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("timeout");
    let head = format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nHost: test\r\n");
    socket.write_all(format!("{head}{rest}").as_bytes()).expect("write");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("read");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status code");
    Answer { code, head: head.to_lowercase(), body: body.into() }
}

pub(super) fn get(address: SocketAddr, path: &str) -> Answer {
    request(address, "GET", path)
}
