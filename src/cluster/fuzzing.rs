//! Either end of the greeting against whatever the other end may say, for the fuzz targets. No part of the library's
//! interface.

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::{Value, json};

use super::greeting::{Greeting, Host, Met, PROTOCOL};
use super::proof::{Encounter, End, Nonce, Purpose};
use crate::config::Secret;
use crate::progress::JobStart;

/// What somebody says at one of its turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words<'a> {
    /// What a process of the job says, who knows the secret.
    Right,
    /// These bytes, whatever they are.
    Other(&'a [u8]),
}

/// Longer than anything takes that comes at all.
const PATIENCE: Duration = Duration::from_secs(60);

fn host(process: usize) -> Host {
    let identity = "the job".to_owned();
    let greeting = Greeting { identity, processes: 3, workers: 2, heartbeat_timeout_ms: 10_000, generation: Some(7) };
    Host { process, greeting, secret: Some(Secret::new("a secret that is shared")) }
}

/// Process 0 hears somebody who says, one after the other, a hello, a proof and a greeting. Whether it lets them in, or else
/// why not.
///
/// # Errors
/// When they are turned away: why.
pub fn accept(says: [Words<'_>; 3]) -> Result<(), String> {
    let (there, here) = connection();
    thread::scope(|scope| {
        scope.spawn(move || connecting(Stranger::new(there), says));
        host(0).welcome(here, Some(&JobStart::fresh(4))).map(drop).map_err(|error| error.to_string())
    })
}

/// Process 1 connects to somebody who answers with a nonce, a proof and a welcome. Whether it takes them for process 0, or else
/// why not.
///
/// # Errors
/// When it is turned away, or does not believe them: why.
pub fn connect(says: [Words<'_>; 3]) -> Result<(), String> {
    let (there, here) = connection();
    thread::scope(|scope| {
        scope.spawn(move || accepting(Stranger::new(here), says));
        let met = host(1).introduce_itself(there, Purpose::Workers, 0, Instant::now() + PATIENCE);
        match met {
            Ok(Met::Welcome(..)) => Ok(()),
            Ok(Met::Refused(reason)) => Err(reason),
            Err(error) => Err(error.to_string()),
        }
    })
}

/// Speaks as whoever connects; gives up when the other end does.
fn connecting(mut stranger: Stranger, [hello, proof, greeting]: [Words<'_>; 3]) -> Option<()> {
    let right = json!({
        "protocol": PROTOCOL, "purpose": "workers", "connecting": 1, "accepting": 0, "nonce": vec![1; 32]
    });
    let said = stranger.say(hello, &right)?;
    let connecting_nonce = nonce(&said["nonce"])?;
    let accepting_nonce = nonce(&stranger.hear()?["Yes"])?;
    let encounter = encounter(connecting_nonce, accepting_nonce);
    stranger.say(proof, &encounter.prove(host(1).secret.as_ref(), End::Connecting))?;
    stranger.hear()?;
    stranger.say(greeting, &host(1).greeting)?;
    stranger.hear().map(drop)
}

/// Speaks as whoever is connected to.
fn accepting(mut stranger: Stranger, [answer, proof, welcome]: [Words<'_>; 3]) -> Option<()> {
    let connecting_nonce = nonce(&stranger.hear()?["nonce"])?;
    let said = stranger.say(answer, &json!({"Yes": vec![2; 32]}))?;
    let accepting_nonce = nonce(&said["Yes"])?;
    let encounter = encounter(connecting_nonce, accepting_nonce);
    stranger.hear()?;
    stranger.say(proof, &json!({"Yes": encounter.prove(host(0).secret.as_ref(), End::Accepting)}))?;
    stranger.hear()?;
    stranger.say(welcome, &json!({"Yes": JobStart::fresh(4)})).map(drop)
}

fn encounter(connecting_nonce: Nonce, accepting_nonce: Nonce) -> Encounter {
    Encounter { purpose: Purpose::Workers, connecting: 1, accepting: 0, connecting_nonce, accepting_nonce }
}

fn nonce(value: &Value) -> Option<Nonce> {
    serde_json::from_value(value.clone()).ok()
}

fn connection() -> (TcpStream, TcpStream) {
    static LISTENER: LazyLock<TcpListener> = LazyLock::new(|| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    let address = LISTENER.local_addr().expect("it listens");
    // Nobody else connects to it, and one at a time does.
    static ONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let connecting = TcpStream::connect(address).expect("it listens");
    (connecting, LISTENER.accept().expect("somebody connects").0)
}

/// The end that may say anything.
struct Stranger {
    socket: TcpStream,
    heard: BufReader<TcpStream>,
}

impl Stranger {
    fn new(socket: TcpStream) -> Stranger {
        socket.set_nodelay(true).expect("a socket");
        let heard = BufReader::new(socket.try_clone().expect("a socket"));
        Stranger { socket, heard }
    }

    /// Says `words`, which are `right` as a line if they are to be that. Returns what has been said, if it can be answered.
    fn say(&mut self, words: Words<'_>, right: &impl Serialize) -> Option<Value> {
        match words {
            Words::Right => {
                let mut line = serde_json::to_vec(right).ok()?;
                line.push(b'\n');
                self.socket.write_all(&line).ok()?;
                serde_json::to_value(right).ok()
            }
            Words::Other(bytes) => {
                self.socket.write_all(bytes).ok()?;
                let line = bytes.split(|byte| *byte == b'\n').next()?;
                if line.len() == bytes.len() {
                    // Whoever waits for the end of the line is told that there will be none.
                    self.socket.shutdown(Shutdown::Write).ok()?;
                    return None;
                }
                // What can't be read gets no answer, or a refusal, which nobody waits for.
                let said = serde_json::from_slice(line);
                if said.is_err() {
                    self.socket.shutdown(Shutdown::Write).ok()?;
                }
                said.ok()
            }
        }
    }

    fn hear(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.heard.read_line(&mut line).ok()?;
        serde_json::from_str(&line).ok()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.socket.shutdown(Shutdown::Write).ok();
    }
}
