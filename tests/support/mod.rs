//! What the tests share that run the program or talk to Kafka.

// Each test file is a program of its own, and none of them uses all of this.
#![allow(dead_code)]

pub mod acls;
pub mod chance;
pub mod expected;
pub mod job;
pub mod monitoring;
pub mod proxy;
pub mod registry;
pub mod topics;
pub mod tty;
pub mod watched;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use proxy::Proxy;

/// The brokers to test against. Without any the test is skipped, which `scripts/test` reports, or fails if
/// `CLICKTIDE_REQUIRE_KAFKA=1`.
pub fn brokers() -> Option<String> {
    required("KAFKA_BROKERS", std::env::var("CLICKTIDE_REQUIRE_KAFKA").is_ok_and(|value| value == "1"))
}

/// A Python with the packages of `tests/requirements.txt`. Without one the test is skipped, which `scripts/test`
/// reports.
pub fn python() -> Option<PathBuf> {
    required("CLICKTIDE_PYTHON", false).map(PathBuf::from)
}

/// Chromium, for the tests of the dashboard. Without one they are skipped, which `scripts/test` reports, or fail if
/// `CLICKTIDE_REQUIRE_BROWSER=1`.
pub fn chromium() -> Option<PathBuf> {
    required("CLICKTIDE_CHROMIUM", std::env::var("CLICKTIDE_REQUIRE_BROWSER").is_ok_and(|value| value == "1"))
        .map(PathBuf::from)
}

fn required(variable: &str, or_fail: bool) -> Option<String> {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        assert!(!or_fail, "{variable} is not set");
        skipped(&format!("{variable} is not set"));
    }
    value
}

/// Says, for `scripts/test` to report, that the running test is skipped.
pub fn skipped(why: &str) {
    // Not by eprintln!, which the test harness keeps to itself when a test passes.
    let _ = writeln!(std::io::stderr(), "SKIPPED {}: {why}", test_name());
}

/// The name of the running test, which is that of its thread.
pub fn test_name() -> String {
    thread::current().name().unwrap_or("test").to_owned()
}

/// A name for a topic, job or group that no other test and no other run uses.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_millis();
    format!("{prefix}-{now:x}-{:x}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Ports of 127.0.0.1 on which nobody listens. They lie below the range of ephemeral ports, so that no outgoing
/// connection takes one before it is used, or while what listens on it is being restarted.
pub fn free_ports(count: usize) -> Vec<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id().wrapping_mul(7919);
    let candidates = || u16::try_from(10_000 + start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000);
    std::iter::repeat_with(candidates)
        .map(|port| port.expect("less than 30,000"))
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .take(count)
        .collect()
}

/// One port as [`free_ports`] finds them.
pub fn free_port() -> u16 {
    free_ports(1)[0]
}

/// Whether the program is built with TLS. Without it the test is skipped, which `scripts/test` reports, or fails if
/// `CLICKTIDE_REQUIRE_TLS=1`.
pub fn tls() -> bool {
    let there = cfg!(feature = "tls");
    if !there {
        assert!(std::env::var("CLICKTIDE_REQUIRE_TLS").is_err(), "built without the feature tls");
        skipped("built without the feature tls, which needs OpenSSL's headers and pkg-config");
    }
    there
}

/// Waits until `condition` gives something, and panics after `deadline`.
pub fn eventually<T>(what: &str, deadline: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < deadline, "{what}: not within {deadline:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A running `clicktide`, killed when dropped. Its output goes to files, which a failing test prints.
pub struct Process {
    name: String,
    child: Child,
    status: Option<ExitStatus>,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// Starts `clicktide` with these arguments; `name` names its output in `dir` and in messages.
    pub fn start<A: AsRef<OsStr>>(name: &str, dir: &Path, args: impl IntoIterator<Item = A>) -> Process {
        let mut command = Command::new(env!("CARGO_BIN_EXE_clicktide"));
        command.args(args);
        Process::spawn(name, dir, command)
    }

    /// Starts any command, with whatever environment it was given.
    pub fn spawn(name: &str, dir: &Path, mut command: Command) -> Process {
        let (stdout, stderr) = (dir.join(format!("{name}.stdout")), dir.join(format!("{name}.stderr")));
        // Appended to, so that a process started again under its name hides nothing of the first.
        let log = |path: &Path| File::options().create(true).append(true).open(path).expect("a log file");
        command.stdin(Stdio::null()).stdout(log(&stdout)).stderr(log(&stderr));
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {command:?}: {error}"));
        Process { name: name.to_owned(), child, status: None, stdout, stderr }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stdout so far.
    pub fn stdout(&self) -> String {
        read(&self.stdout)
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        read(&self.stderr)
    }

    /// Sends a signal by its name, as in `INT`, `TERM`, `STOP`, `CONT`.
    pub fn signal(&mut self, signal: &str) {
        assert!(self.exited().is_none(), "{}: SIG{signal} comes too late, it has ended: {:?}", self.name, self.status);
        assert!(send_signal(self.id(), signal), "{}: kill -s {signal}", self.name);
    }

    /// The processes that it has started and that have not ended.
    pub fn children(&self) -> Vec<u32> {
        let children = format!("/proc/{0}/task/{0}/children", self.id());
        let children = fs::read_to_string(children).unwrap_or_default();
        children.split_whitespace().map(|id| id.parse().expect("a process id")).collect()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        self.child.kill().expect("kill");
        self.status = Some(self.child.wait().expect("wait"));
    }

    /// How it ended, if it has.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        if self.status.is_none() {
            self.status = self.child.try_wait().expect("wait");
        }
        self.status
    }

    /// Waits until it ends; panics after `deadline`.
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("{} ends", self.name);
        eventually(&what, deadline, || self.exited())
    }

    /// Waits until it ends, and panics unless that is with this exit code.
    pub fn wait_for_code(&mut self, code: i32, deadline: Duration) {
        let status = self.wait(deadline);
        assert_eq!(status.code(), Some(code), "{}: {status}", self.name);
    }

    /// Waits for something while it runs; panics after `deadline`, or as soon as the process has ended without it.
    pub fn until<T>(&mut self, what: &str, deadline: Duration, mut condition: impl FnMut(&Process) -> Option<T>) -> T {
        let what = format!("{}: {what}", self.name);
        eventually(&what, deadline, || {
            let ended = self.exited();
            let value = condition(self);
            assert!(value.is_some() || ended.is_none(), "{what}: it ended before: {ended:?}");
            value
        })
    }
}

/// Sends a signal by its name; returns whether the process was there to get it.
pub fn send_signal(process: u32, signal: &str) -> bool {
    let mut kill = Command::new("kill");
    kill.args(["-s", signal, &process.to_string()]).stderr(Stdio::null()).status().expect("kill").success()
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.exited().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if thread::panicking() {
            for (stream, text) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
                let lines: Vec<_> = text.lines().collect();
                let last = &lines[lines.len().saturating_sub(100)..];
                eprintln!("--- {}: {stream}, the last {} of {} lines", self.name, last.len(), lines.len());
                eprintln!("{}", last.join("\n"));
            }
        }
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// An Apache Kafka of the test's own, for those that stop or kill it. Gone with the guard, and with the test process
/// however that ends. Ask [`brokers`] first, so that the test is skipped where there is no Kafka.
pub struct Broker {
    dir: PathBuf,
    /// Its address.
    pub address: String,
}

impl Broker {
    /// Starts one with the usual settings and these, as in `message.max.bytes=100000`; `dir` must be new or empty.
    pub fn start(dir: &Path, settings: &[&str]) -> Broker {
        Broker::start_with(dir, &[], settings)
    }

    /// The same on this port, for those that name it in their settings.
    pub fn start_on(dir: &Path, port: u16, settings: &[&str]) -> Broker {
        Broker::start_with(dir, &["--port", &port.to_string()], settings)
    }

    /// One that also serves its own metrics for Prometheus, and at which address.
    pub fn start_with_metrics(dir: &Path) -> (Broker, String) {
        let broker = Broker::start_with(dir, &["--jmx"], &[]);
        let address = fs::read_to_string(dir.join("jmx")).expect("the metrics' address");
        (broker, address.trim().to_owned())
    }

    /// One with listeners for TLS and SASL, and an authorizer; see `scripts/kafka --help`.
    pub fn start_secured(dir: &Path) -> Broker {
        Broker::start_with(dir, &["--secured"], &[])
    }

    /// One with two ways to it: its own address, and, by a network that can be cut, the address that is returned with it.
    pub fn start_behind_proxy(dir: &Path) -> (Broker, Proxy, String) {
        let [direct, controller, proxied, proxy] = free_ports(4)[..] else { unreachable!() };
        let settings = [
            format!("controller.quorum.voters=1@127.0.0.1:{controller}"),
            format!(
                "listeners=PLAINTEXT://127.0.0.1:{direct},CONTROLLER://127.0.0.1:{controller},PROXIED://127.0.0.1:{proxied}"
            ),
            format!("advertised.listeners=PLAINTEXT://127.0.0.1:{direct},PROXIED://127.0.0.1:{proxy}"),
            "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT".to_owned(),
        ];
        let broker = Broker::start_on(dir, direct, &settings.each_ref().map(String::as_str));
        (broker, Proxy::start(proxy, proxied), format!("127.0.0.1:{proxy}"))
    }

    fn start_with(dir: &Path, options: &[&str], settings: &[&str]) -> Broker {
        let owner = std::process::id().to_string();
        let mut options = [options, &["--owner", &owner]].concat();
        options.extend(settings.iter().flat_map(|setting| ["--set", setting]));
        Broker { dir: dir.to_owned(), address: scripts_kafka("start", dir, &options).trim().to_owned() }
    }

    /// SIGKILL. The data stays.
    pub fn kill(&self) {
        scripts_kafka("kill", &self.dir, &[]);
    }

    /// Sends a signal by its name, at once.
    pub fn signal(&self, signal: &str) {
        let id = fs::read_to_string(self.dir.join("pid")).expect("the broker runs");
        assert!(send_signal(id.trim().parse().expect("a process id"), signal), "the broker is gone");
    }

    /// Shuts it down in good order. The data stays.
    pub fn stop(&self) {
        scripts_kafka("stop", &self.dir, &["--keep"]);
    }

    /// Starts it again on the same data and port.
    pub fn start_again(&self) {
        scripts_kafka("start", &self.dir, &["--keep"]);
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        scripts_kafka("stop", &self.dir, &[]);
    }
}

fn scripts_kafka(action: &str, dir: &Path, options: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka");
    let output = Command::new(script).arg(action).arg("--dir").arg(dir).args(options).output().expect("scripts/kafka");
    let errors = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && !thread::panicking() {
        panic!("scripts/kafka {action}: {}\n{errors}", output.status);
    }
    String::from_utf8_lossy(&output.stdout).into_owned()
}
