//! The processes of one job: who they are, and how they find each other before timely takes over.
//!
//! Timely's own start-up trusts whoever connects. Here the processes prove to each other first that they know the cluster's
//! secret, and compare the job, its configuration and the shape of the cluster; a stranger is turned away and harms nobody.
//! Process 0 hands every other process the [`JobStart`] that all must agree on before any source is built. Every two
//! processes have two connections: one for timely's workers, and one for signs of life, by which a process that hangs is told
//! from one that has nothing to say.

#[doc(hidden)]
pub mod fuzzing;
mod greeting;
mod heartbeat;
mod proof;

use std::any::Any;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use timely::communication::Hooks;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;
use timely::communication::allocator::{AllocatorBuilder, ProcessBuilder};

use crate::config::Secret;
use crate::exit::{Exit, end_without_peer};
use crate::progress::JobStart;

use greeting::{Greeting, Host, Met, shown};
pub use heartbeat::Heartbeats;
use heartbeat::{Farewell, Pulse, heartbeats};
use proof::Purpose;

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
    /// When another process has not been heard for as long, it is taken for lost.
    pub heartbeat_timeout: Duration,
    /// By which the processes know each other; needed unless all of them are on this machine.
    pub secret: Option<Secret>,
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
    /// Anybody could join the cluster.
    #[error(
        "process {process} is at {address} by the hosts file, which is not this machine's loopback, and there is no secret: \
         set cluster.secret_file (or CLICKTIDE_CLUSTER__SECRET) to the same secret for all processes"
    )]
    NoSecret {
        /// The process.
        process: usize,
        /// Its address.
        address: String,
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

impl ClusterError {
    /// With which code the program ends.
    pub fn exit(&self) -> Exit {
        match self {
            ClusterError::Flags(_) | ClusterError::Hosts { .. } | ClusterError::NoSecret { .. } => Exit::Configuration,
            ClusterError::Refused { .. } => Exit::Refused,
            ClusterError::Listen { .. } | ClusterError::Absent { .. } | ClusterError::Io(_) => Exit::Cluster,
        }
    }
}

impl Cluster {
    /// One process by itself.
    pub fn single(workers: usize) -> Self {
        Cluster {
            processes: 1,
            process: 0,
            workers,
            hosts: None,
            connect_timeout: Duration::ZERO,
            heartbeat_timeout: Duration::ZERO,
            secret: None,
        }
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

    /// Whether the processes at `addresses` may go without a secret, or have one. A name that can't be resolved may be
    /// anywhere.
    ///
    /// # Errors
    /// [`ClusterError::NoSecret`].
    pub fn check_secret(&self, addresses: &[String]) -> Result<(), ClusterError> {
        let near =
            |address: &str| address.to_socket_addrs().is_ok_and(|mut found| found.all(|at| at.ip().is_loopback()));
        let far = || addresses.iter().enumerate().find(|(_, address)| !near(address));
        match (self.processes, &self.secret) {
            (1, _) | (_, Some(_)) => Ok(()),
            _ => far()
                .map_or(Ok(()), |(process, address)| Err(ClusterError::NoSecret { process, address: address.clone() })),
        }
    }
}

/// What timely starts its workers from.
pub struct Allocators {
    /// One per worker of this process.
    pub builders: Vec<AllocatorBuilder>,
    /// Keeps the network threads.
    pub guard: Box<dyn Any + Send>,
    /// When the other processes were heard last.
    pub heartbeats: Heartbeats,
}

/// Brings the processes together.
///
/// `identity` (the job's name and the configuration that has to be the same everywhere) is compared between processes.
/// Process 0 calls `start` and hands its result to all others; nobody else calls it. From the end of this on, a process that
/// is lost ends the program ([`end_without_peer`]), until the guard is dropped.
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
        return Ok((Allocators { builders, guard: Box::new(()), heartbeats: Heartbeats::default() }, start()?));
    }
    cluster.check_secret(&addresses)?;

    // The last process only connects, all others listen from the start, so that nobody is told that nobody is there.
    let listener = (cluster.process + 1 < cluster.processes).then(|| listen(cluster, &addresses)).transpose()?;
    let deadline = Instant::now() + cluster.connect_timeout;
    let Cluster { processes, process, workers, .. } = *cluster;
    let heartbeat_timeout_ms = u64::try_from(cluster.heartbeat_timeout.as_millis()).unwrap_or(u64::MAX);
    let greeting =
        Greeting { identity: identity.to_owned(), processes, workers, heartbeat_timeout_ms, generation: None };
    let mut host = Host { process, greeting, secret: cluster.secret.clone() };
    let mut peers: Vec<Peer> = (0..processes).map(|_| Peer::default()).collect();

    let mut job_start = None;
    if process == 0 {
        job_start = Some(start()?);
    }
    // Process 0 comes first: what it hands over says which run this is.
    for peer in 0..process {
        for purpose in [Purpose::Workers, Purpose::Heartbeat] {
            host.greeting.generation = job_start.as_ref().map(|start: &JobStart| start.generation);
            let (socket, handed_over) = connect(cluster, &host, purpose, peer, &addresses[peer], deadline)?;
            peers[peer].join(purpose, peer, socket, cluster.heartbeat_timeout).map_err(ClusterError::Io)?;
            job_start = job_start.or(handed_over);
        }
    }
    let job_start = job_start.ok_or_else(|| ClusterError::Refused {
        process,
        peer: 0,
        reason: "it handed over no start".to_owned(),
    })?;
    host.greeting.generation = Some(job_start.generation);
    if let Some(listener) = listener {
        accept(cluster, host, &job_start, &listener, &mut peers, deadline)?;
    }
    let (sockets, pulses): (Vec<_>, Vec<_>) = peers.into_iter().map(|peer| (peer.workers, peer.pulse)).unzip();
    let pulses: Vec<Pulse> = pulses.into_iter().flatten().collect();
    for pulse in &pulses {
        pulse.listen(Arc::new(end_without_peer)).map_err(ClusterError::Io)?;
    }
    let (builders, timely) = initialize_networking_from_sockets(typed(), sockets, process, workers, Hooks::default())
        .map_err(ClusterError::Io)?;
    let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
    let heartbeats = heartbeats(&pulses);
    // Dropped in this order: when timely's connections are closed, the job has ended in all processes.
    Ok((Allocators { builders, guard: Box::new((timely, Farewell(pulses))), heartbeats }, job_start))
}

/// More than so many connections at once are left waiting until some of these have been heard.
const HEARD_AT_ONCE_MAX: usize = 256;

/// The connections to another process.
#[derive(Default)]
struct Peer {
    workers: Option<TcpStream>,
    pulse: Option<Pulse>,
}

impl Peer {
    fn complete(&self) -> bool {
        self.workers.is_some() && self.pulse.is_some()
    }

    fn join(&mut self, purpose: Purpose, peer: usize, socket: TcpStream, timeout: Duration) -> io::Result<()> {
        match purpose {
            // It may have been started again meanwhile; then it comes with new connections, this one first.
            Purpose::Workers => *self = Peer { workers: Some(socket), pulse: None },
            Purpose::Heartbeat => self.pulse = Some(Pulse::start(peer, socket, timeout)?),
        }
        Ok(())
    }
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
    host: &Host,
    purpose: Purpose,
    peer: usize,
    address: &str,
    deadline: Instant,
) -> Result<(TcpStream, Option<JobStart>), ClusterError> {
    loop {
        match host.connect(purpose, peer, address, deadline) {
            Ok(Met::Welcome(socket, start)) => return Ok((socket, start.map(|start| *start))),
            Ok(Met::Refused(reason)) => {
                return Err(ClusterError::Refused { process: cluster.process, peer, reason });
            }
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(50)),
            Err(error) => {
                return Err(ClusterError::Absent {
                    process: cluster.process,
                    peer: peer.to_string(),
                    at: format!(" at {address} ({})", shown(&error.to_string())),
                    waited_s: cluster.connect_timeout.as_secs(),
                });
            }
        }
    }
}

/// Accepts every process with a higher index.
fn accept(
    cluster: &Cluster,
    host: Host,
    start: &JobStart,
    listener: &TcpListener,
    peers: &mut [Peer],
    deadline: Instant,
) -> Result<(), ClusterError> {
    let missing = |peers: &[Peer]| {
        let absent = peers.iter().enumerate().skip(cluster.process + 1).filter(|(_, peer)| !peer.complete());
        absent.map(|(index, _)| index.to_string()).collect::<Vec<_>>()
    };
    // Each is heard on a thread of its own, so that strangers who say little or nothing keep nobody waiting.
    let (tell, heard) = mpsc::channel::<(SocketAddr, io::Result<(usize, Purpose, TcpStream)>)>();
    let handed_over = (cluster.process == 0).then(|| start.clone());
    let host = Arc::new((host, handed_over));
    let mut hearing = 0;
    while !missing(peers).is_empty() {
        while let Ok((address, met)) = heard.try_recv() {
            hearing -= 1;
            match met {
                Ok((peer, purpose, socket)) => {
                    peers[peer].join(purpose, peer, socket, cluster.heartbeat_timeout).map_err(ClusterError::Io)?;
                }
                Err(error) => {
                    let error = shown(&error.to_string());
                    tracing::warn!(%address, error, "turned a connection away");
                }
            }
        }
        if hearing >= HEARD_AT_ONCE_MAX {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        }
        match listener.accept() {
            Ok((socket, address)) => {
                let (tell, host) = (tell.clone(), Arc::clone(&host));
                let hear = move || {
                    // Nobody listens any more once all are there.
                    tell.send((address, host.0.welcome(socket, host.1.as_ref()))).ok();
                };
                std::thread::Builder::new().name("greeting".to_owned()).spawn(hear).map_err(ClusterError::Io)?;
                hearing += 1;
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                return Err(ClusterError::Absent {
                    process: cluster.process,
                    peer: missing(peers).join(", "),
                    at: String::new(),
                    waited_s: cluster.connect_timeout.as_secs(),
                });
            }
            Err(e) => tracing::warn!(error = %e, "a connection was lost before it was accepted"),
        }
    }
    Ok(())
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

#[cfg(test)]
mod tests;
