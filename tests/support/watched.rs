//! What an operator sees of a process: its HTTP answers, read as a monitoring system or a person would.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use super::{Process, eventually};

/// A process's HTTP server, on this port of 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub struct Watched(pub u16);

/// Generous: nothing is asserted about how long anything takes.
const DEADLINE: Duration = Duration::from_secs(90);

impl Watched {
    /// The flag that has a process serve there.
    pub fn flag(self) -> String {
        format!("--set=http.listen=127.0.0.1:{}", self.0)
    }

    /// What a path answers: status code and body; none while nobody answers.
    pub fn get(self, path: &str) -> Option<(u16, String)> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.0)).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        // Of this version, in which no answer comes in chunks.
        write!(socket, "GET {path} HTTP/1.0\r\nHost: test\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        let code = head.split(' ').nth(1)?.parse().ok()?;
        Some((code, body.to_owned()))
    }

    /// The JSON of a path, where it is answered with success.
    pub fn json(self, path: &str) -> Option<Value> {
        let (code, body) = self.get(path)?;
        (code == 200).then(|| serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}")))
    }

    /// A figure of `/v1/cluster`, by its JSON pointer.
    pub fn cluster(self, pointer: &str) -> Option<Value> {
        self.json("/v1/cluster")?.pointer(pointer).cloned()
    }

    /// The value of a series of `/metrics`, with its labels as they are written there.
    pub fn metric(self, series: &str) -> Option<f64> {
        let (_, text) = self.get("/metrics")?;
        text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// Why a check of `/healthz` or `/readyz` fails, if it does.
    pub fn failing(self, path: &str, check: &str) -> Option<String> {
        let (code, body) = self.get(path)?;
        let body: Value = serde_json::from_str(&body).ok()?;
        let checks = body["checks"].as_array()?;
        let found = checks.iter().find(|found| found["name"] == check && found["ok"] == false)?;
        assert_eq!(code, 503, "{path}: {body}");
        found["reason"].as_str().map(str::to_owned)
    }

    /// Waits until `/readyz` says that all is well.
    pub fn until_ready(self, process: &mut Process) {
        process.until("it is ready", DEADLINE, |_| (self.get("/readyz")?.0 == 200).then_some(()));
    }

    /// Waits until something is seen; fails with what is seen instead.
    pub fn until<T>(self, what: &str, see: impl Fn(Watched) -> Option<T>) -> T {
        let wait = std::panic::AssertUnwindSafe(|| eventually(what, DEADLINE, || see(self)));
        std::panic::catch_unwind(wait).unwrap_or_else(|panic| {
            for path in ["/readyz", "/v1/cluster"] {
                eprintln!("{path}: {:?}", self.get(path));
            }
            std::panic::resume_unwind(panic)
        })
    }
}
