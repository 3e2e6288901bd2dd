//! The broker, and the job as a program: its topics, its processes and what they take.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Kafka, and its process if that is known.
pub struct Broker {
    /// Its address.
    pub address: String,
    pid: Option<u32>,
    /// Of a broker that was started here.
    dir: Option<TempDir>,
}

impl Broker {
    /// The brokers that were named, or one that is started now and ends with this.
    pub fn find(named: Option<&str>, pid: Option<u32>) -> Result<Self, Box<dyn Error>> {
        if let Some(address) = named {
            return Ok(Broker { address: address.to_owned(), pid, dir: None });
        }
        let dir = tempfile::tempdir()?;
        let owner = std::process::id().to_string();
        let address = scripts_kafka(&["start", "--dir", &dir.path().to_string_lossy(), "--owner", &owner])?;
        let pid = std::fs::read_to_string(dir.path().join("pid"))?.trim().parse()?;
        Ok(Broker { address: address.trim().to_owned(), pid: Some(pid), dir: Some(dir) })
    }

    /// CPU time of the broker so far, if its process is known.
    pub fn cpu(&self) -> Option<Duration> {
        Some(ProcessTimes::of(self.pid?)?.cpu)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(dir) = &self.dir
            && let Err(error) = scripts_kafka(&["stop", "--dir", &dir.path().to_string_lossy()])
        {
            eprintln!("the broker does not stop: {error}");
        }
    }
}

fn scripts_kafka(arguments: &[&str]) -> Result<String, Box<dyn Error>> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/kafka");
    let output = Command::new(script).args(arguments).stderr(Stdio::inherit()).output()?;
    match output.status.success() {
        true => Ok(String::from_utf8(output.stdout)?),
        false => Err(format!("scripts/kafka {}: {}", arguments.join(" "), output.status).into()),
    }
}

/// How many processes a job has, and workers in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    processes: usize,
    workers: usize,
}

impl Shape {
    /// So many processes of so many workers.
    pub const fn new(processes: usize, workers: usize) -> Self {
        Shape { processes, workers }
    }

    /// In words.
    pub fn name(self) -> String {
        let counted = |count: usize, one: &str, many: &str| format!("{count} {}", if count == 1 { one } else { many });
        let workers = counted(self.workers, "worker", "workers");
        format!("job, {} of {workers}", counted(self.processes, "process", "processes"))
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.processes, self.workers)
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let count = |text: &str| text.parse().ok().filter(|count| (1..=64).contains(count));
        let (processes, workers) = text.split_once('x').unwrap_or((text, "1"));
        match (count(processes), count(workers)) {
            (Some(processes), Some(workers)) => Ok(Shape { processes, workers }),
            _ => Err("not processes x workers, such as 1x2".to_owned()),
        }
    }
}

/// A name for topics and jobs that nobody else has.
pub fn unique(prefix: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{prefix}-{}-{}", since_epoch.as_millis(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// A job that has not begun, with topics of its own but for the events, which others may read too.
pub struct Job {
    /// The topic of its results.
    pub results: String,
    flags: Vec<String>,
    dir: TempDir,
}

impl Job {
    /// A job on the topic `events`, which is made with so many partitions if it is not there. `flags` are further flags of
    /// all its commands.
    pub fn create(broker: &Broker, events: &str, partitions: u32, flags: &[String]) -> Result<Self, Box<dyn Error>> {
        let name = unique("bench-job");
        let dir = tempfile::tempdir()?;
        let results = format!("{name}-results");
        let mut all = vec![
            format!("--brokers={}", broker.address),
            "--log=info".to_owned(),
            "--set=logging.format=json".to_owned(),
            format!("--set=job.name={name}"),
            format!("--set=kafka.events_topic={events}"),
            format!("--set=kafka.results_topic={results}"),
            format!("--set=kafka.dead_letters_topic={name}-dead-letters"),
            format!("--set=kafka.progress_topic={name}-progress"),
            format!("--set=topics.events_partitions={partitions}"),
            // Nothing is deleted while it is of use.
            "--set=topics.events_retention=24h".to_owned(),
            format!("--set=checkpoints.store={}", dir.path().join("checkpoints").display()),
        ];
        all.extend_from_slice(flags);
        let job = Job { results, flags: all, dir };
        job.command(&["topics", "create"])?;
        Ok(job)
    }

    /// Audits what it has committed; what the audit says, which agrees.
    pub fn audit(&self) -> Result<String, Box<dyn Error>> {
        self.command(&["audit"])
    }

    fn command(&self, command: &[&str]) -> Result<String, Box<dyn Error>> {
        let output = Command::new(env!("CARGO_BIN_EXE_clicktide")).args(command).args(&self.flags).output()?;
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        match output.status.success() {
            true => Ok(text.into_owned()),
            false => Err(format!("clicktide {}: {}\n{text}{errors}", command.join(" "), output.status).into()),
        }
    }

    /// Starts all its processes, under the command `under` if there is one.
    pub fn start(&self, shape: Shape, flags: &[&str], under: Option<&str>) -> Result<Running, Box<dyn Error>> {
        let hosts = self.dir.path().join("hosts.txt");
        let mut addresses = free_addresses(2 * shape.processes)?;
        let http = addresses.split_off(shape.processes);
        let lines: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        std::fs::write(&hosts, lines.join("\n"))?;
        let began = Instant::now();
        let processes = (0..shape.processes).map(|process| {
            let program = env!("CARGO_BIN_EXE_clicktide");
            let mut words = under.into_iter().flat_map(str::split_whitespace).chain([program]);
            let mut command = Command::new(words.next().unwrap_or(program));
            command.args(words).arg("run").arg("-h").arg(&hosts).args(&self.flags).args(flags);
            for (flag, count) in [("-n", shape.processes), ("-p", process), ("-w", shape.workers)] {
                command.arg(flag).arg(count.to_string());
            }
            command.arg(format!("--http={}", http[process]));
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn()
        });
        let mut processes = processes.collect::<Result<Vec<Child>, _>>()?;
        let pids: Vec<u32> = processes.iter().map(Child::id).collect();
        let (tell, together) = mpsc::channel();
        for (number, process) in processes.iter_mut().enumerate() {
            let (stderr, pids) = (process.stderr.take(), pids.clone());
            let tell = (number == 0).then(|| tell.clone());
            std::thread::spawn(move || stderr.map(|stderr| follow_log(stderr, &pids, tell.as_ref())));
        }
        let together = Some(together);
        Ok(Running { began, processes, together, http, peaks_kib: BTreeMap::new() })
    }
}

/// Reads a process's log to its end. Passes on what is more than a notice, and tells when the processes are together, with
/// the CPU time of all of them.
fn follow_log(stderr: ChildStderr, pids: &[u32], together: Option<&mpsc::Sender<(Instant, Duration)>>) {
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        if line.contains(r#""message":"the processes are together""#) {
            let cpu = pids.iter().filter_map(|pid| ProcessTimes::of(*pid)).map(|times| times.cpu).sum();
            // Nobody listens to a job that was dropped.
            together.map(|together| together.send((Instant::now(), cpu)));
        } else if !line.contains(r#""level":"INFO""#) {
            eprintln!("{line}");
        }
    }
}

/// Addresses of this machine on which nobody listens.
fn free_addresses(count: usize) -> Result<Vec<SocketAddr>, Box<dyn Error>> {
    // All are listened on at once, so that they differ.
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<Vec<_>, _>>()?;
    Ok(listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
}

/// A job that runs; killed when it is dropped.
pub struct Running {
    began: Instant,
    processes: Vec<Child>,
    /// When process 0 found all together, and how much CPU time they all had taken by then; none if that means nothing.
    together: Option<mpsc::Receiver<(Instant, Duration)>>,
    /// Where each process serves its metrics.
    http: Vec<SocketAddr>,
    /// The most memory that each process has been seen to have had, KiB.
    peaks_kib: BTreeMap<u32, u64>,
}

/// What all processes of a job together took.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// From the start until they were together, and knew where to begin.
    pub start: Duration,
    /// The CPU time of that.
    pub start_cpu: Duration,
    /// From then on until the last had ended.
    pub wall: Duration,
    /// The CPU time of that.
    pub cpu: Duration,
    /// Resident memory of the process that had most, at its peak, MB.
    pub peak_mb: f64,
}

/// How often the processes are looked at. Memory that grows in the last of these intervals is not seen.
const LOOK_EVERY: Duration = Duration::from_millis(10);

impl Running {
    /// A single process, which has nobody to wait for.
    pub fn alone(mut command: Command) -> Result<Self, Box<dyn Error>> {
        let (began, process) = (Instant::now(), command.spawn()?);
        Ok(Running { began, processes: vec![process], together: None, http: Vec::new(), peaks_kib: BTreeMap::new() })
    }

    /// Waits until all processes have ended in good order.
    pub fn wait(self, patience: Duration) -> Result<Taken, Box<dyn Error>> {
        self.wait_watching(patience, LOOK_EVERY, |_| Ok(()))
    }

    /// The same; `watch` is shown the job again and again.
    pub fn wait_watching(
        mut self,
        patience: Duration,
        every: Duration,
        mut watch: impl FnMut(&Running) -> Result<(), Box<dyn Error>>,
    ) -> Result<Taken, Box<dyn Error>> {
        let mut cpu = Duration::ZERO;
        while !self.processes.is_empty() {
            for at in (0..self.processes.len()).rev() {
                let pid = self.processes[at].id();
                self.note_memory(pid);
                // A process that has ended can be asked for its times until it is waited for.
                let times = ProcessTimes::of(pid).ok_or("a process that is not waited for is known")?;
                if times.ended {
                    cpu += times.cpu;
                    let status = self.processes.swap_remove(at).wait()?;
                    if !status.success() {
                        return Err(format!("a process of the job has ended: {status}").into());
                    }
                }
            }
            if self.began.elapsed() > patience {
                return Err(format!("the job has not ended after {} s", patience.as_secs()).into());
            }
            watch(&self)?;
            std::thread::sleep(every);
        }
        let peak_kib = self.peaks_kib.values().max().copied().unwrap_or(0);
        let together = self.together.as_ref().map(|together| together.recv_timeout(LOOK_EVERY)).transpose()?;
        let (together, start_cpu) = together.unwrap_or((self.began, Duration::ZERO));
        Ok(Taken {
            start: together - self.began,
            start_cpu,
            wall: together.elapsed(),
            cpu: cpu.saturating_sub(start_cpu),
            peak_mb: peak_kib as f64 * 1_024.0 / 1e6,
        })
    }

    /// Asks for an orderly stop, and waits for it.
    pub fn stop(self, patience: Duration) -> Result<Taken, Box<dyn Error>> {
        for process in &self.processes {
            let signalled = Command::new("kill").arg("-TERM").arg(process.id().to_string()).status()?;
            if !signalled.success() {
                return Err("a process of the job is gone".into());
            }
        }
        let ran = self.began.elapsed();
        self.wait(ran + patience)
    }

    /// How long it has run.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Resident memory of the process that has most, MB.
    pub fn resident_mb(&self) -> f64 {
        let kib = self.processes.iter().filter_map(|process| status_kib(process.id(), "VmRSS:")).max();
        kib.unwrap_or(0) as f64 * 1_024.0 / 1e6
    }

    /// What process 0 says of itself in its metrics, line by line; nothing while it does not answer.
    pub fn metrics(&self) -> Vec<String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(&self.http[..])?;
            stream.set_read_timeout(Some(Duration::from_secs(5)))?;
            stream.write_all(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        };
        // At its start and at its end it does not listen.
        ask().unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn note_memory(&mut self, pid: u32) {
        if let Some(peak_kib) = status_kib(pid, "VmHWM:") {
            let known = self.peaks_kib.entry(pid).or_default();
            *known = peak_kib.max(*known);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for process in &mut self.processes {
            // One that has ended already need not be killed.
            process.kill().ok();
            process.wait().ok();
        }
    }
}

/// A line of a process's status that is in KiB.
fn status_kib(pid: u32, name: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix(" kB")?.parse().ok())
}

/// What the system says of a process.
struct ProcessTimes {
    /// CPU time so far, of all its threads, to 10 ms.
    cpu: Duration,
    /// Whether it only waits to be waited for.
    ended: bool,
}

impl ProcessTimes {
    fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The command's name may hold spaces, and ends with the last parenthesis; see proc_pid_stat(5).
        let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
        let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        // Linux tells times in hundredths of a second, whatever its own tick is.
        Some(ProcessTimes { cpu: Duration::from_millis(ticks * 10), ended: fields.first() == Some(&"Z") })
    }
}
