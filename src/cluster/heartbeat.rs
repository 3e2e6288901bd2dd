//! Signs of life between two processes, on a connection of their own.
//!
//! A process that hangs or is stopped keeps its connections open, and timely would wait for it for ever. So each end writes a
//! beat every fifth of the timeout, on a thread that does nothing else (a long operator must not look like death), and
//! listens for those of the other end on another thread.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const BEAT: u8 = b'.';
/// The last beat of a process that ends because the job does.
const GOODBYE: u8 = b'!';
/// After a silence that is too long the other end is listened to for this much longer: it may have been this process that
/// was stopped, with beats waiting to be heard.
const LAST_CHANCE: Duration = Duration::from_millis(100);

/// Told when another process is lost, and why.
pub(super) type Lost = Arc<dyn Fn(String) + Send + Sync>;

/// When another process was heard last.
type Heard = Arc<Mutex<Instant>>;

/// When each of the other processes was heard last.
#[derive(Clone, Debug, Default)]
pub struct Heartbeats(Vec<(usize, Heard)>);

impl Heartbeats {
    /// Every other process, and how long ago it was heard. Without another process there is none.
    pub fn ages(&self) -> impl Iterator<Item = (usize, Duration)> {
        self.0.iter().map(|(process, heard)| (*process, lock(heard).elapsed()))
    }
}

fn lock(heard: &Heard) -> std::sync::MutexGuard<'_, Instant> {
    // What is behind this lock is right whatever happened to another holder.
    heard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This process's beats to another one. They end with it.
pub(super) struct Pulse {
    peer: usize,
    heard: Heard,
    socket: TcpStream,
    timeout: Duration,
    /// Nothing is ever sent: the thread ends when it is dropped.
    _beating: mpsc::Sender<()>,
}

impl Pulse {
    /// Begins to beat; what comes from there is kept until [`Pulse::listen`].
    pub fn start(peer: usize, socket: TcpStream, timeout: Duration) -> io::Result<Pulse> {
        let mut to = socket.try_clone()?;
        socket.set_write_timeout(Some(timeout))?;
        let (beating, ended) = mpsc::channel();
        let beat = move || {
            // A failure is noticed by whoever listens, here and there.
            while to.write_all(&[BEAT]).is_ok() {
                if ended.recv_timeout(timeout / 5) == Err(RecvTimeoutError::Disconnected) {
                    return;
                }
            }
        };
        std::thread::Builder::new().name(format!("beat-{peer}")).spawn(beat)?;
        Ok(Pulse { peer, heard: Arc::new(Mutex::new(Instant::now())), socket, timeout, _beating: beating })
    }

    /// Listens for the other process from now on, until it says goodbye or is lost.
    pub fn listen(&self, lost: Lost) -> io::Result<()> {
        let (from, peer, timeout) = (self.socket.try_clone()?, self.peer, self.timeout);
        let heard = Arc::clone(&self.heard);
        *lock(&heard) = Instant::now();
        let listen = move || {
            if let Err(why) = listen(from, peer, timeout, &heard) {
                lost(why);
            }
        };
        std::thread::Builder::new().name(format!("listen-{peer}")).spawn(listen).map(drop)
    }

    /// Says goodbye: the end of the connection means nothing any more.
    fn farewell(&self) {
        // If the other end is gone, it need not be told.
        (&self.socket).write_all(&[GOODBYE]).ok();
    }
}

/// The heartbeats that are listened for.
pub(super) fn heartbeats(pulses: &[Pulse]) -> Heartbeats {
    Heartbeats(pulses.iter().map(|pulse| (pulse.peer, Arc::clone(&pulse.heard))).collect())
}

/// Listens until the other end says goodbye. Otherwise, why it is lost.
fn listen(mut from: TcpStream, peer: usize, timeout: Duration, heard: &Heard) -> Result<(), String> {
    let mut beats = [0; 64];
    loop {
        let left = timeout.saturating_sub(lock(heard).elapsed());
        let patience = left.max(LAST_CHANCE);
        let read = from.set_read_timeout(Some(patience)).and_then(|()| from.read(&mut beats));
        match read {
            Ok(0) => return Err(format!("the connection to process {peer} is closed")),
            Ok(count) if beats[..count].contains(&GOODBYE) => return Ok(()),
            Ok(_) => *lock(heard) = Instant::now(),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                if left.is_zero() {
                    return Err(format!("process {peer} has not been heard for {} s", timeout.as_secs_f64()));
                }
            }
            Err(e) => return Err(format!("the connection to process {peer} is closed: {e}")),
        }
    }
}

/// The beats to all other processes. Says goodbye to them when dropped, which is when the job has ended well: a process that
/// fails exits and drops nothing.
pub(super) struct Farewell(pub Vec<Pulse>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.iter().for_each(Pulse::farewell);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    const DEADLINE: Duration = Duration::from_secs(30);

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connecting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (connecting, listener.accept().unwrap().0)
    }

    /// A pulse, and what its listener finds.
    fn listening(peer: usize, socket: TcpStream, timeout_ms: u64) -> (Pulse, mpsc::Receiver<String>) {
        let (tell, told) = mpsc::channel();
        let pulse = Pulse::start(peer, socket, Duration::from_millis(timeout_ms)).unwrap();
        pulse.listen(Arc::new(move |why| tell.send(why).unwrap())).unwrap();
        (pulse, told)
    }

    #[test]
    fn a_silent_process_is_lost() {
        let (one, _silent) = connection();
        let (_pulse, told) = listening(3, one, 500);
        assert_eq!(told.recv_timeout(DEADLINE).unwrap(), "process 3 has not been heard for 0.5 s");
    }

    #[test]
    fn a_closed_connection_is_told_at_once_and_a_goodbye_is_none() {
        let ((one, other), (third, fourth)) = (connection(), connection());
        let (_one, told) = listening(1, one, 3_600_000);
        let (_third, not_told) = listening(3, third, 3_600_000);
        drop(other);
        assert!(told.recv_timeout(DEADLINE).unwrap().starts_with("the connection to process 1 is closed"));
        drop(Farewell(vec![Pulse::start(0, fourth, DEADLINE).unwrap()]));
        // The listener has ended without a word.
        assert_eq!(not_told.recv_timeout(DEADLINE), Err(RecvTimeoutError::Disconnected));
    }

    #[test]
    fn two_that_beat_hear_each_other() {
        let (one, other) = connection();
        let (one, told) = listening(1, one, 5_000);
        let pulses = [one];
        let (_other, told_too) = listening(0, other, 5_000);
        let ages = heartbeats(&pulses);
        // Longer than the timeout.
        assert_eq!(told.recv_timeout(Duration::from_secs(6)), Err(RecvTimeoutError::Timeout));
        assert_eq!(told_too.try_recv(), Err(mpsc::TryRecvError::Empty));
        let ages: Vec<_> = ages.ages().collect();
        assert!(matches!(ages[..], [(1, age)] if age < Duration::from_secs(5)), "{ages:?}");
    }
}
