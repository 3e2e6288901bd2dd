//! `clicktide launch`: all processes of a job on this machine, started again together when one fails.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cluster::local_hosts;
use crate::commands::signals::stop_on_signal;
use crate::commands::status_line::{JobLine, Voice};
use crate::config::Config;
use crate::exit::{Exit, Failure};
use crate::logging::{self, LogFormat};
use crate::terminal;

/// What each process is started with.
pub struct Launch {
    /// The arguments of `clicktide run`, without those that differ between the processes.
    pub arguments: Vec<String>,
    /// How often the job is started again after a failure before giving up.
    pub restarts: u32,
    /// How it is told what is going on.
    pub voice: Voice,
}

/// The first pause before the job is started again; it doubles up to the last.
const BACKOFF: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A run that lasted this long was a good one: the pauses begin anew.
const GOOD_RUN: Duration = Duration::from_secs(60);
/// The others get this long to end after one has failed.
const GRACE: Duration = Duration::from_secs(5);

/// Runs the job's processes until all have ended well, a signal comes, or restarting does not help.
///
/// # Errors
/// When the job fails in a way that a restart does not mend, or too often.
pub fn launch(launch: &Launch, config: &Config) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    stop_on_signal(Arc::clone(&stop), Arc::new(AtomicBool::new(true)))?;
    let line = Arc::new(Mutex::new(JobLine::new(launch.voice)));
    let mut backoff = BACKOFF;
    let mut restarts = 0;
    loop {
        let began = Instant::now();
        let Some(code) = run_once(launch, config, &stop, &line)? else { return Ok(()) };
        let lost = code.map_or_else(|| "was killed".to_owned(), |code| format!("ended with code {code}"));
        if stop.load(Ordering::Relaxed) {
            // A stop that was on its way when this one came.
            return match code {
                AGAIN => Ok(()),
                _ => Err(Failure::new(Exit::Failure, format!("a process {lost} while the job was stopping"))),
            };
        }
        if code == AGAIN {
            tracing::info!("the job's input has grown: starting the job again");
            continue;
        }
        // Files with certificates or passwords may have been renewed since a run that was good.
        let denied = code == Some(Exit::Denied as i32) && began.elapsed() <= GOOD_RUN;
        if let Some(exit) = hopeless(code).or(denied.then_some(Exit::Denied)) {
            return Err(Failure::new(exit, format!("a process {lost}, which a restart does not mend")));
        }
        if began.elapsed() > GOOD_RUN {
            (backoff, restarts) = (BACKOFF, 0);
        }
        restarts += 1;
        if restarts > launch.restarts {
            return Err(Failure::new(
                Exit::Failure,
                format!("a process {lost}; gave up after {} restarts", launch.restarts),
            ));
        }
        tracing::warn!(restarts, pause_ms = backoff.as_millis() as u64, "a process {lost}: starting the job again");
        lock(&line).show_text(&format!("a process {lost}: starting again"));
        wait(backoff, &stop);
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// What a process ended with, if a restart does not mend it.
fn hopeless(code: Option<i32>) -> Option<Exit> {
    [Exit::Configuration, Exit::Refused, Exit::Fenced].into_iter().find(|exit| code == Some(*exit as i32))
}

/// What a process ends with to be started again: no failure, and nothing to wait for.
const AGAIN: Option<i32> = Some(Exit::Again as i32);

/// How much an end says about why the job has ended.
fn weight(code: Option<i32>) -> u8 {
    match code {
        AGAIN => 0,
        // Another one was lost first.
        Some(code) if code == Exit::PeerLost as i32 => 1,
        code if hopeless(code).is_some() || code == Some(Exit::Denied as i32) => 3,
        _ => 2,
    }
}

/// A process of the job. It stops in good order when its standard input is closed, also when this program is gone.
///
/// What it says is read as long as it says anything. It does not depend on that: its log and its state are written by threads
/// that nobody waits for.
struct Process {
    child: Child,
    input: Option<ChildStdin>,
    reading: Vec<JoinHandle<()>>,
}

impl Process {
    fn start(mut command: Command, line: &SharedLine) -> std::io::Result<Process> {
        let mut child = command.stdin(Stdio::piped()).spawn()?;
        let mut process = Process { input: child.stdin.take(), child, reading: Vec::new() };
        if let Some(states) = process.child.stdout.take() {
            let line = Arc::clone(line);
            process.read(states, move |state| lock(&line).show(&String::from_utf8_lossy(state), &[]))?;
        }
        if let Some(log) = process.child.stderr.take() {
            // A line at once, so that those of several processes do not get mixed up.
            process.read(log, |text| _ = terminal::above(|| std::io::stderr().write_all(&[text, b"\n"].concat())))?;
        }
        Ok(process)
    }

    /// Reads lines until there are no more.
    fn read(
        &mut self,
        output: impl Read + Send + 'static,
        mut each: impl FnMut(&[u8]) + Send + 'static,
    ) -> std::io::Result<()> {
        let read = move || BufReader::new(output).split(b'\n').map_while(Result::ok).for_each(|line| each(&line));
        self.reading.push(std::thread::Builder::new().name("reading".to_owned()).spawn(read)?);
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Already gone in the good case.
        self.child.kill().ok();
        self.child.wait().ok();
        // Its last words.
        self.reading.drain(..).for_each(|reading| _ = reading.join());
    }
}

/// Where the job's state is shown.
type SharedLine = Arc<Mutex<JobLine>>;

fn lock(line: &SharedLine) -> MutexGuard<'_, JobLine> {
    line.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs all processes once. None: all ended well. Otherwise the exit code, if there is one, of the process whose end says
/// most about why, which need not be the first: others end because of it.
fn run_once(
    launch: &Launch,
    config: &Config,
    stop: &AtomicBool,
    line: &SharedLine,
) -> Result<Option<Option<i32>>, Failure> {
    let failure = |e: std::io::Error| Failure::new(Exit::Failure, format!("can't start the job's processes: {e}"));
    let hosts = HostsFile::new(config.cluster.processes).map_err(failure)?;
    let program = std::env::current_exe().map_err(failure)?;
    let mut processes = Vec::new();
    for index in 0..config.cluster.processes {
        let mut command = Command::new(&program);
        command.args(["run", "--supervised", "-n"]).arg(config.cluster.processes.to_string());
        command.arg("-p").arg(index.to_string()).arg("-w").arg(config.cluster.workers.to_string());
        command.arg("-h").arg(&hosts.0).arg("--http").arg(http_address(config, index));
        if index == 0 && !launch.voice.quiet {
            command.arg("--status").stdout(Stdio::piped());
        }
        if launch.voice.draws() {
            command.stderr(Stdio::piped());
            if config.logging.format == LogFormat::Auto {
                command.arg("--set=logging.format=human").env(logging::FORCE_COLOURS, "1");
            }
        }
        command.args(&launch.arguments);
        processes.push(Process::start(command, line).map_err(failure)?);
    }

    let mut bad: Option<Option<i32>> = None;
    let mut deadline: Option<Instant> = None;
    while !processes.is_empty() {
        if stop.load(Ordering::Relaxed) {
            processes.iter_mut().for_each(|process| drop(process.input.take()));
        }
        let mut ended = None;
        for (index, process) in processes.iter_mut().enumerate() {
            if let Some(status) = process.child.try_wait().map_err(failure)? {
                ended = Some((index, status));
                break;
            }
        }
        match ended {
            Some((index, status)) => {
                processes.remove(index);
                if !status.success() {
                    let telling = bad.get_or_insert(status.code());
                    if weight(status.code()) > weight(*telling) {
                        *telling = status.code();
                    }
                    deadline.get_or_insert(Instant::now() + GRACE);
                }
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
        if deadline.is_some_and(|deadline| Instant::now() > deadline) {
            // Dropped, and with that killed.
            processes.clear();
        }
    }
    Ok(bad)
}

/// The address of a process's HTTP server: the configured port, and those after it.
fn http_address(config: &Config, index: usize) -> String {
    match config.http.listen {
        None => "off".to_owned(),
        Some(address) if address.port() == 0 => address.to_string(),
        Some(address) => {
            let port = address.port().saturating_add(u16::try_from(index).unwrap_or(u16::MAX));
            SocketAddr::new(address.ip(), port).to_string()
        }
    }
}

fn wait(pause: Duration, stop: &AtomicBool) {
    let until = Instant::now() + pause;
    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A hosts file that is gone when the processes are.
struct HostsFile(PathBuf);

impl HostsFile {
    fn new(processes: usize) -> std::io::Result<Self> {
        let name = format!("clicktide-hosts-{}-{}.txt", std::process::id(), unique());
        let path = std::env::temp_dir().join(name);
        local_hosts(processes, &path)?;
        Ok(HostsFile(path))
    }
}

fn unique() -> u128 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_nanos())
}

impl Drop for HostsFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_that_says_most_counts() {
        let code = |exit: Exit| Some(exit as i32);
        let rising = [code(Exit::Again), code(Exit::PeerLost), code(Exit::Kafka), code(Exit::Denied)];
        assert!(rising.is_sorted_by_key(|code| weight(*code)));
        for same in [None, code(Exit::Panic), code(Exit::CommitUnknown), code(Exit::Source), code(Exit::Cluster)] {
            assert_eq!(weight(same), weight(code(Exit::Kafka)));
        }
        let mended = |exit| hopeless(code(exit)).is_none();
        assert!(
            [Exit::Kafka, Exit::PeerLost, Exit::Panic, Exit::CommitUnknown, Exit::Source, Exit::Again].map(mended)
                == [true; 6]
        );
        assert!([Exit::Configuration, Exit::Fenced, Exit::Refused].map(mended) == [false; 3]);
    }
}
