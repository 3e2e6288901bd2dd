//! How two processes meet on a new connection, in lines of JSON.
//!
//! ```text
//!  connecting (the higher index)                         accepting (the lower index)
//!    Hello: version, purpose, both indexes, nonce  ──▶
//!                                                  ◀──   nonce
//!    proof                                         ──▶
//!                                                  ◀──   proof
//!    Greeting: the job, the cluster's shape, the run ──▶
//!                                                  ◀──   welcome; process 0 hands over the start
//! ```
//!
//! Any answer may be a refusal instead. Up to the proofs nothing is said that a stranger may not know.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::proof::{Encounter, End, Nonce, Proof, Purpose};
use crate::config::Secret;
use crate::progress::JobStart;

/// The version of the greetings and of what the workers send each other.
pub(super) const PROTOCOL: &str = concat!("clicktide/", env!("CARGO_PKG_VERSION"), "/2");
/// What is said before the proofs is shorter than this.
const HELLO_BYTES_MAX: usize = 4 << 10;
/// A name and a configuration are shorter.
const GREETING_BYTES_MAX: usize = 1 << 20;
/// A start with thousands of partitions and idle advances is shorter.
const ANSWER_BYTES_MAX: usize = 64 << 20;
/// How long a stranger may take from the connection to the end of its greeting.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// So much of a refusal is shown: who refuses may be anybody.
const REASON_CHARS_MAX: usize = 1_000;

/// What both ends compare once they know each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Greeting {
    /// The job and its configuration.
    pub identity: String,
    /// Processes of the job.
    pub processes: usize,
    /// Workers of each.
    pub workers: usize,
    /// How long each is listened for, and with that how often it has to beat, ms.
    pub heartbeat_timeout_ms: u64,
    /// Unknown to whoever has not met process 0 yet.
    pub generation: Option<i64>,
}

/// The first words of whoever connects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Hello {
    protocol: String,
    purpose: Purpose,
    connecting: usize,
    accepting: usize,
    nonce: Nonce,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Answer<T> {
    /// Go on.
    Yes(T),
    /// Go away, because of this.
    No(String),
}

/// What a process meets others with.
#[derive(Clone, Debug)]
pub(super) struct Host {
    /// Which process this is.
    pub process: usize,
    /// What has to be the same in all of them.
    pub greeting: Greeting,
    /// By which they know each other.
    pub secret: Option<Secret>,
}

/// What came of a connection to another process.
pub(super) enum Met {
    /// The connection is this process's; process 0 has handed over the start.
    Welcome(TcpStream, Option<Box<JobStart>>),
    /// The other process does not want this one, for a reason that will not go away.
    Refused(String),
}

impl Host {
    /// Connects to another process and has itself welcomed there.
    ///
    /// # Errors
    /// When nobody is there, or nobody who answers before the deadline, or somebody who does not know the secret.
    pub fn connect(&self, purpose: Purpose, accepting: usize, address: &str, deadline: Instant) -> io::Result<Met> {
        let mut error = io::Error::new(io::ErrorKind::AddrNotAvailable, "the name has no address");
        for address in address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                Ok(socket) => return self.introduce_itself(socket, purpose, accepting, deadline),
                Err(e) => error = e,
            }
        }
        Err(error)
    }

    /// The connecting end.
    pub(super) fn introduce_itself(
        &self,
        mut socket: TcpStream,
        purpose: Purpose,
        accepting: usize,
        deadline: Instant,
    ) -> io::Result<Met> {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(GREETING_TIMEOUT))?;
        let connecting_nonce: Nonce = rand::random();
        let connecting = self.process;
        let protocol = PROTOCOL.to_owned();
        write_line(&mut socket, &Hello { protocol, purpose, connecting, accepting, nonce: connecting_nonce })?;
        // The other end may itself be waiting, for process 0 or for Kafka.
        let accepting_nonce: Nonce = match read_line(&mut socket, HELLO_BYTES_MAX, deadline)? {
            Answer::Yes(nonce) => nonce,
            Answer::No(reason) => return Ok(Met::Refused(shown(&reason))),
        };
        let encounter = Encounter { purpose, connecting, accepting, connecting_nonce, accepting_nonce };
        write_line(&mut socket, &encounter.prove(self.secret.as_ref(), End::Connecting))?;
        match read_line(&mut socket, HELLO_BYTES_MAX, deadline)? {
            Answer::Yes(proof) if encounter.verify(self.secret.as_ref(), End::Accepting, &proof) => {}
            Answer::Yes(_) => return Err(invalid("whoever is there does not know the secret")),
            Answer::No(reason) => return Ok(Met::Refused(shown(&reason))),
        }
        write_line(&mut socket, &self.greeting)?;
        let answer: Answer<Option<Box<JobStart>>> = read_line(&mut socket, ANSWER_BYTES_MAX, deadline)?;
        socket.set_write_timeout(None)?;
        Ok(match answer {
            Answer::Yes(start) => Met::Welcome(socket, start),
            Answer::No(reason) => Met::Refused(shown(&reason)),
        })
    }

    /// The accepting end: hears who connects, and welcomes it with the start or turns it away. Returns which process it is
    /// and what the connection is for.
    ///
    /// # Errors
    /// When it is nobody of this job, does not know the secret, or does not come to the point in time.
    pub fn welcome(&self, mut socket: TcpStream, start: Option<&JobStart>) -> io::Result<(usize, Purpose, TcpStream)> {
        let deadline = Instant::now() + GREETING_TIMEOUT;
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(GREETING_TIMEOUT))?;
        let hello: Hello = read_line(&mut socket, HELLO_BYTES_MAX, deadline)?;
        if let Some(reason) = self.objection_to_hello(&hello) {
            return refuse(&mut socket, reason);
        }
        let Hello { purpose, connecting, accepting, nonce: connecting_nonce, .. } = hello;
        let accepting_nonce: Nonce = rand::random();
        write_line(&mut socket, &Answer::Yes(accepting_nonce))?;
        let encounter = Encounter { purpose, connecting, accepting, connecting_nonce, accepting_nonce };
        let proof: Proof = read_line(&mut socket, HELLO_BYTES_MAX, deadline)?;
        if !encounter.verify(self.secret.as_ref(), End::Connecting, &proof) {
            return refuse(&mut socket, format!("the secret differs between processes {accepting} and {connecting}"));
        }
        write_line(&mut socket, &Answer::Yes(encounter.prove(self.secret.as_ref(), End::Accepting)))?;
        let greeting: Greeting = read_line(&mut socket, GREETING_BYTES_MAX, deadline)?;
        if let Some(reason) = self.objection_to_greeting(purpose, &greeting) {
            return refuse(&mut socket, reason);
        }
        let handed_over = start.filter(|_| purpose == Purpose::Workers);
        write_line(&mut socket, &Answer::Yes(handed_over))?;
        socket.set_write_timeout(None)?;
        Ok((connecting, purpose, socket))
    }

    fn differs(&self, what: &str, ours: &dyn std::fmt::Debug, theirs: &dyn std::fmt::Debug) -> Option<String> {
        Some(format!("{what} differs: {ours:?} in process {}, {theirs:?} in the one that connects", self.process))
    }

    fn objection_to_hello(&self, theirs: &Hello) -> Option<String> {
        if theirs.protocol != PROTOCOL {
            self.differs("the version", &PROTOCOL, &shown(&theirs.protocol))
        } else if theirs.accepting != self.process {
            self.differs("which process is here by the hosts file", &self.process, &theirs.accepting)
        } else if theirs.connecting <= self.process {
            let Hello { connecting, .. } = theirs;
            Some(format!("process {connecting} connects to process {}; each connects to those before it", self.process))
        } else if theirs.connecting >= self.greeting.processes {
            self.differs("-n", &self.greeting.processes, &format!("above {}", theirs.connecting))
        } else {
            None
        }
    }

    fn objection_to_greeting(&self, purpose: Purpose, theirs: &Greeting) -> Option<String> {
        let own = &self.greeting;
        if theirs.identity != own.identity {
            self.differs("the job or its configuration", &own.identity, &theirs.identity)
        } else if (theirs.processes, theirs.workers) != (own.processes, own.workers) {
            self.differs("-n and -w", &(own.processes, own.workers), &(theirs.processes, theirs.workers))
        } else if theirs.heartbeat_timeout_ms != own.heartbeat_timeout_ms {
            self.differs("cluster.heartbeat_timeout (ms)", &own.heartbeat_timeout_ms, &theirs.heartbeat_timeout_ms)
        } else if theirs.generation != own.generation && !(self.process == 0 && purpose == Purpose::Workers) {
            // Which run it is, process 0 says.
            self.differs("the run", &own.generation, &theirs.generation)
        } else {
            None
        }
    }
}

fn refuse<T>(socket: &mut TcpStream, reason: String) -> io::Result<T> {
    write_line(socket, &Answer::<()>::No(reason.clone()))?;
    Err(invalid(reason))
}

fn invalid(reason: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason.into())
}

/// What somebody says, fit for one line of a log.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect()
}

fn write_line(socket: &mut TcpStream, message: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    socket.write_all(&line)
}

/// Reads one line and not a byte more, as what follows is somebody else's. All of it has to come before the deadline.
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
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            came => came?,
        };
        if came == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection was closed"));
        }
        let wanted = ahead[..came].iter().position(|byte| *byte == b'\n').map_or(came, |end| end + 1);
        socket.read_exact(&mut ahead[..wanted])?;
        line.extend_from_slice(&ahead[..wanted]);
        if line.len() > bytes_max {
            return Err(invalid("the line is too long"));
        }
    }
    socket.set_read_timeout(None)?;
    Ok(serde_json::from_slice(&line)?)
}

#[cfg(test)]
mod tests;
