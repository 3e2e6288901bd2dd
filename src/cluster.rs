//! The processes of one job: who they are, and how they find each other before timely takes over.
//!
//! Timely's own start-up trusts whoever connects. Here the processes greet each other first: a greeting names the job, the
//! process and the shape of the cluster, a stranger is turned away and harms nobody, and process 0 hands every other
//! process the [`JobStart`] that all must agree on before any source is built.

use std::any::Any;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use timely::communication::Hooks;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};

use crate::progress::JobStart;

/// One process's place among the processes of a job: timely's own flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// How many processes.
    pub processes: usize,
    /// Which of them this is.
    pub process: usize,
    /// Worker threads in each.
    pub workers: usize,
    /// A file with the address of one process per line; none: ports from 2101 on of this host.
    pub hosts: Option<PathBuf>,
    /// How long to wait for the other processes.
    pub connect_timeout: Duration,
}

/// Why the processes of a job could not come together.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The flags contradict each other.
    #[error("{0}")]
    Flags(String),
    /// The hosts file can't be used.
    #[error("hosts file {path}: {reason}")]
    Hosts {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The own address can't be listened on.
    #[error("process {process} can't listen on {address}: {source}")]
    Listen {
        /// This process.
        process: usize,
        /// Its address.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// Others did not come in time.
    #[error("process {process} waited {waited_s} s in vain for process {peer}{at}")]
    Absent {
        /// This process.
        process: usize,
        /// The one that did not come.
        peer: String,
        /// Where it was looked for.
        at: String,
        /// For how long.
        waited_s: u64,
    },
    /// Another process does not accept this one.
    #[error("process {peer} turned process {process} away: {reason}")]
    Refused {
        /// This process.
        process: usize,
        /// The other one.
        peer: usize,
        /// What it said.
        reason: String,
    },
    /// Timely could not take the connections over.
    #[error("the connections between the processes failed: {0}")]
    Io(#[from] io::Error),
}

impl Cluster {
    /// One process by itself.
    pub fn single(workers: usize) -> Self {
        Cluster { processes: 1, process: 0, workers, hosts: None, connect_timeout: Duration::ZERO }
    }

    /// The address of every process.
    ///
    /// # Errors
    /// When the flags contradict each other or the hosts file has too few lines.
    pub fn addresses(&self) -> Result<Vec<String>, ClusterError> {
        let Cluster { processes, process, workers, .. } = *self;
        if processes == 0 || workers == 0 {
            return Err(ClusterError::Flags(format!("-n {processes} -w {workers}: both must be at least 1")));
        }
        if process >= processes {
            return Err(ClusterError::Flags(format!("-p {process}: with -n {processes} it must be below {processes}")));
        }
        let Some(path) = &self.hosts else {
            let port = |index| 2101 + index;
            return Ok((0..processes).map(|index| format!("127.0.0.1:{}", port(index))).collect());
        };
        let error = |reason: String| ClusterError::Hosts { path: path.clone(), reason };
        let text = std::fs::read_to_string(path).map_err(|e| error(e.to_string()))?;
        let addresses = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let addresses: Vec<String> = addresses.take(processes).map(str::to_owned).collect();
        match addresses.iter().find(|address| !address.contains(':')) {
            Some(address) => Err(error(format!("{address:?} is not HOST:PORT"))),
            None if addresses.len() < processes => {
                Err(error(format!("has {} addresses, and -n {processes} needs {processes}", addresses.len())))
            }
            None => Ok(addresses),
        }
    }
}

/// What timely starts its workers from.
pub struct Allocators {
    /// One per worker of this process.
    pub builders: Vec<AllocatorBuilder>,
    /// Keeps the network threads.
    pub guard: Box<dyn Any + Send>,
}

/// Brings the processes together.
///
/// `identity` (the job's name and the configuration that has to be the same everywhere) is compared between processes.
/// Process 0 calls `start` and hands its result to all others; nobody else calls it.
///
/// # Errors
/// See [`ClusterError`], and whatever `start` fails with.
pub fn assemble<E: From<ClusterError>>(
    cluster: &Cluster,
    identity: &str,
    start: impl FnOnce() -> Result<JobStart, E>,
) -> Result<(Allocators, JobStart), E> {
    let addresses = cluster.addresses()?;
    let typed = || ProcessBuilder::new_typed_vector(cluster.workers, Hooks::default().refill, None);
    if cluster.processes == 1 {
        let builders = typed().into_iter().map(AllocatorBuilder::Process).collect();
        return Ok((Allocators { builders, guard: Box::new(()) }, start()?));
    }

    // The last process only connects, all others listen from the start, so that nobody is told that nobody is there.
    let listener = (cluster.process + 1 < cluster.processes).then(|| listen(cluster, &addresses)).transpose()?;
    let deadline = Instant::now() + cluster.connect_timeout;
    let mut sockets: Vec<Option<TcpStream>> = (0..cluster.processes).map(|_| None).collect();
    let mut greeting = Greeting {
        protocol: PROTOCOL.to_owned(),
        identity: identity.to_owned(),
        process: cluster.process,
        processes: cluster.processes,
        workers: cluster.workers,
        generation: None,
    };

    let mut job_start = None;
    if cluster.process == 0 {
        job_start = Some(start()?);
    }
    // Process 0 comes first: what it hands over says which run this is.
    for peer in 0..cluster.process {
        greeting.generation = job_start.as_ref().map(|start: &JobStart| start.generation);
        let (socket, handed_over) = connect(cluster, &greeting, peer, &addresses[peer], deadline)?;
        sockets[peer] = Some(socket);
        job_start = job_start.or(handed_over);
    }
    let job_start = job_start.ok_or_else(|| ClusterError::Refused {
        process: cluster.process,
        peer: 0,
        reason: "it handed over no start".to_owned(),
    })?;
    greeting.generation = Some(job_start.generation);
    if let Some(listener) = listener {
        accept(cluster, &greeting, &job_start, &listener, &mut sockets, deadline)?;
    }
    let (builders, guard) =
        initialize_networking_from_sockets(typed(), sockets, cluster.process, cluster.workers, Hooks::default())
            .map_err(ClusterError::Io)?;
    let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
    Ok((Allocators { builders, guard: Box::new(guard) }, job_start))
}

/// The version of the greetings and of what the workers send each other.
const PROTOCOL: &str = concat!("clicktide/", env!("CARGO_PKG_VERSION"), "/1");
/// Longer greetings are a stranger's: a name and a configuration are shorter.
const GREETING_BYTES_MAX: usize = 1 << 20;
/// A start with thousands of partitions and idle advances is shorter.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// More than so many connections at once are left waiting until some of these have been heard.
const HEARD_AT_ONCE_MAX: usize = 256;
/// How long a greeting may take from its first byte to its last.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// What a process says to one with a lower index, as a line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Greeting {
    protocol: String,
    identity: String,
    process: usize,
    processes: usize,
    workers: usize,
    /// Unknown to whoever has not met process 0 yet.
    generation: Option<i64>,
}

/// The answer, as a line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Answer {
    /// Be welcome; process 0 hands over the start.
    Welcome(Option<JobStart>),
    /// Go away, because of this.
    Refused(String),
}

fn listen(cluster: &Cluster, addresses: &[String]) -> Result<TcpListener, ClusterError> {
    let address = &addresses[cluster.process];
    let listener = TcpListener::bind(address.as_str()).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| ClusterError::Listen { process: cluster.process, address: address.clone(), source })
}

/// Connects to a process with a lower index, again and again until it is there.
fn connect(
    cluster: &Cluster,
    greeting: &Greeting,
    peer: usize,
    address: &str,
    deadline: Instant,
) -> Result<(TcpStream, Option<JobStart>), ClusterError> {
    loop {
        let attempt = greet(address, greeting, deadline);
        match attempt {
            Ok((socket, Answer::Welcome(start))) => return Ok((socket, start)),
            Ok((_, Answer::Refused(reason))) => {
                return Err(ClusterError::Refused { process: cluster.process, peer, reason });
            }
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            Err(error) => {
                return Err(ClusterError::Absent {
                    process: cluster.process,
                    peer: peer.to_string(),
                    at: format!(" at {address} ({error})"),
                    waited_s: cluster.connect_timeout.as_secs(),
                });
            }
        }
    }
}

fn greet(address: &str, greeting: &Greeting, deadline: Instant) -> io::Result<(TcpStream, Answer)> {
    let mut error = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
            Ok(mut socket) => {
                socket.set_nodelay(true)?;
                write_line(&mut socket, greeting)?;
                // The other side may itself be waiting, for process 0 or for Kafka.
                let answer = read_line(&mut socket, ANSWER_BYTES_MAX, deadline)?;
                return Ok((socket, answer));
            }
            Err(e) => error = e,
        }
    }
    Err(error)
}

/// Accepts every process with a higher index.
fn accept(
    cluster: &Cluster,
    own: &Greeting,
    start: &JobStart,
    listener: &TcpListener,
    sockets: &mut [Option<TcpStream>],
    deadline: Instant,
) -> Result<(), ClusterError> {
    let missing = |sockets: &[Option<TcpStream>]| {
        let absent = sockets.iter().enumerate().skip(cluster.process + 1).filter(|(_, socket)| socket.is_none());
        absent.map(|(index, _)| index.to_string()).collect::<Vec<_>>()
    };
    // Each is heard on a thread of its own, so that strangers who say little or nothing keep nobody waiting.
    let (tell, heard) = mpsc::channel::<(SocketAddr, io::Result<(Greeting, TcpStream)>)>();
    let mut hearing = 0;
    while !missing(sockets).is_empty() {
        while let Ok((address, greeted)) = heard.try_recv() {
            hearing -= 1;
            match greeted.and_then(|greeted| welcome(greeted, own, start)) {
                Ok((peer, socket)) => sockets[peer] = Some(socket),
                Err(error) => tracing::warn!(%address, %error, "turned a connection away"),
            }
        }
        if hearing >= HEARD_AT_ONCE_MAX {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        }
        match listener.accept() {
            Ok((socket, address)) => {
                let tell = tell.clone();
                // Nobody listens any more once all are there.
                let hear = move || drop(tell.send((address, hear(socket))));
                std::thread::Builder::new().name("greeting".to_owned()).spawn(hear).map_err(ClusterError::Io)?;
                hearing += 1;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                return Err(ClusterError::Absent {
                    process: cluster.process,
                    peer: missing(sockets).join(", "),
                    at: String::new(),
                    waited_s: cluster.connect_timeout.as_secs(),
                });
            }
            Err(e) => tracing::warn!(error = %e, "a connection was lost before it was accepted"),
        }
    }
    Ok(())
}

/// Hears a greeting.
fn hear(mut socket: TcpStream) -> io::Result<(Greeting, TcpStream)> {
    socket.set_nonblocking(false)?;
    socket.set_nodelay(true)?;
    let greeting = read_line(&mut socket, GREETING_BYTES_MAX, Instant::now() + GREETING_TIMEOUT)?;
    Ok((greeting, socket))
}

/// Answers a greeting.
fn welcome(
    (theirs, mut socket): (Greeting, TcpStream),
    own: &Greeting,
    start: &JobStart,
) -> io::Result<(usize, TcpStream)> {
    socket.set_write_timeout(Some(GREETING_TIMEOUT))?;
    if let Some(reason) = objection(own, &theirs) {
        write_line(&mut socket, &Answer::Refused(reason.clone()))?;
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    write_line(&mut socket, &Answer::Welcome((own.process == 0).then(|| start.clone())))?;
    socket.set_write_timeout(None)?;
    Ok((theirs.process, socket))
}

fn objection(own: &Greeting, theirs: &Greeting) -> Option<String> {
    let differs = |what: &str, ours: &dyn std::fmt::Debug, theirs: &dyn std::fmt::Debug| {
        Some(format!("{what} differs: {ours:?} in process {}, {theirs:?} in the one that connects", own.process))
    };
    if theirs.protocol != own.protocol {
        differs("the version", &own.protocol, &theirs.protocol)
    } else if theirs.identity != own.identity {
        differs("the job or its configuration", &own.identity, &theirs.identity)
    } else if (theirs.processes, theirs.workers) != (own.processes, own.workers) {
        differs("-n and -w", &(own.processes, own.workers), &(theirs.processes, theirs.workers))
    } else if theirs.process <= own.process || theirs.process >= own.processes {
        Some(format!(
            "process {} connects to process {}; each connects to those before it",
            theirs.process, own.process
        ))
    } else if own.process > 0 && theirs.generation != own.generation {
        differs("the run", &own.generation, &theirs.generation)
    } else {
        None
    }
}

fn write_line(socket: &mut TcpStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    socket.write_all(&line)
}

/// Reads one line and not a byte more, as what follows is timely's. All of it has to come before the deadline.
fn read_line<T: for<'de> Deserialize<'de>>(
    socket: &mut TcpStream,
    bytes_max: usize,
    deadline: Instant,
) -> io::Result<T> {
    let mut line = Vec::new();
    let mut ahead = [0; 8 << 10];
    while line.last() != Some(&b'\n') {
        let late = || io::Error::new(io::ErrorKind::TimedOut, "no whole line came in time");
        let patience = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
        socket.set_read_timeout(Some(patience.ok_or_else(late)?))?;
        let came = match socket.peek(&mut ahead) {
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => return Err(late()),
            came => came?,
        };
        if came == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"));
        }
        let wanted = ahead[..came].iter().position(|byte| *byte == b'\n').map_or(came, |end| end + 1);
        socket.read_exact(&mut ahead[..wanted])?;
        line.extend_from_slice(&ahead[..wanted]);
        if line.len() > bytes_max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the line is too long"));
        }
    }
    socket.set_read_timeout(None)?;
    Ok(serde_json::from_slice(&line)?)
}

/// The addresses of so many processes on this machine, on free ports, written to a hosts file.
///
/// # Errors
/// When no port is free or the file can't be written.
pub fn local_hosts(processes: usize, path: &Path) -> io::Result<()> {
    // All are held until all are known, so that they differ.
    let held: Vec<TcpListener> = (0..processes).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<_>>()?;
    let mut text = String::new();
    for listener in &held {
        text.push_str(&format!("{}\n", listener.local_addr()?));
    }
    std::fs::write(path, text)
}
