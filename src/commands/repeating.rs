//! Something done again and again while something else goes on.

use std::io;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

/// Ends what is repeated when it is dropped, and waits for that.
pub struct Repeating {
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Repeating {
    /// Calls `each` at once and then every `period`, on a thread of this name.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(name: &str, period: Duration, mut each: impl FnMut() + Send + 'static) -> io::Result<Repeating> {
        let (end, ended) = mpsc::channel::<()>();
        let repeat = move || {
            each();
            while ended.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                each();
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(repeat)?;
        Ok(Repeating { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Repeating {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_when_it_is_dropped() {
        let (tell, told) = mpsc::channel();
        let repeating = Repeating::start("test", Duration::from_millis(1), move || tell.send(()).unwrap()).unwrap();
        for _ in 0..3 {
            told.recv_timeout(Duration::from_secs(30)).unwrap();
        }
        drop(repeating);
        while told.try_recv().is_ok() {}
        assert_eq!(told.try_recv(), Err(mpsc::TryRecvError::Disconnected));
    }
}
