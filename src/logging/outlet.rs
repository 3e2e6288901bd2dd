//! Threads that write lines.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use crate::metrics;

/// So many lines may wait to be written.
const WAITING_MAX: usize = 8_192;
/// For so long the end of a program waits for lines to be written.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Where lines go: written by a thread of its own, so that nobody waits for a terminal that is stopped, a pipe that is not read
/// or a slow disk. Where too many wait, the newest are lost, which is told as soon as there is room again.
#[derive(Clone)]
pub(super) struct Outlet {
    messages: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

enum Message {
    Line(Vec<u8>),
    /// To be answered once everything before it is written.
    Flush(SyncSender<()>),
}

impl Outlet {
    /// Starts the thread, which calls `write` with each line.
    pub fn start(name: &str, write: impl FnMut(&[u8]) + Send + 'static) -> io::Result<Outlet> {
        let (messages, received) = mpsc::sync_channel(WAITING_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let losing = Arc::clone(&lost);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || write_all(&received, &losing, write))?;
        Ok(Outlet { messages, lost })
    }

    /// Waits until what was written before is out, or for a second.
    pub fn flush(&self) {
        let deadline = Instant::now() + FLUSH_MAX;
        let (written, is_written) = mpsc::sync_channel(1);
        let mut flush = Message::Flush(written);
        loop {
            match self.messages.try_send(flush) {
                Ok(()) => break,
                Err(TrySendError::Full(message)) if Instant::now() < deadline => flush = message,
                Err(_) => return,
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        is_written.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok();
    }
}

fn write_all(received: &Receiver<Message>, lost: &AtomicU64, mut write: impl FnMut(&[u8])) {
    while let Ok(message) = received.recv() {
        match message {
            Message::Line(line) => write(&line),
            Message::Flush(written) => drop(written.send(())),
        }
        let lines = lost.swap(0, Ordering::Relaxed);
        if lines > 0 {
            tracing::warn!(lines, "log lines are lost: they could not be written as fast as they came");
        }
    }
}

/// Takes whole lines.
impl Write for Outlet {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.messages.try_send(Message::Line(line.to_vec())).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
            ::metrics::counter!(metrics::LOG_LINES_SUPPRESSED).increment(1);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn a_flush_comes_back_when_all_is_written() {
        let written = Arc::new(Mutex::new(Vec::new()));
        let into = Arc::clone(&written);
        let mut outlet = Outlet::start("test", move |line| into.lock().unwrap().push(line.to_vec())).unwrap();
        for line in ["one\n", "two\n"] {
            outlet.write_all(line.as_bytes()).unwrap();
        }
        Outlet::flush(&outlet);
        assert_eq!(*written.lock().unwrap(), [b"one\n", b"two\n"]);
    }

    #[test]
    fn nobody_waits_for_what_is_not_written() {
        let (release, released) = mpsc::channel::<()>();
        let written = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&written);
        let mut outlet = Outlet::start("test", move |_| {
            // Like a terminal that is stopped, until the sender is dropped.
            released.recv().ok();
            counted.fetch_add(1, Ordering::Relaxed);
        })
        .unwrap();
        for _ in 0..WAITING_MAX * 2 {
            outlet.write_all(b"line\n").unwrap();
        }
        assert!(outlet.lost.load(Ordering::Relaxed) >= WAITING_MAX as u64 - 1);
        drop(release);
        Outlet::flush(&outlet);
        assert!(written.load(Ordering::Relaxed) >= WAITING_MAX as u64);
    }
}
