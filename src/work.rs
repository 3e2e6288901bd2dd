//! How much of a long work is done: counted by those who do it, looked at by whoever tells of it.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Done and all there is to do, in bytes or records. Both only rise.
#[derive(Debug, Default)]
pub struct Work {
    done: AtomicU64,
    total: AtomicU64,
}

impl Work {
    /// There is so much more to do.
    pub fn expect(&self, more: u64) {
        self.total.fetch_add(more, Ordering::Relaxed);
    }

    /// So much more is done.
    pub fn advance(&self, more: u64) {
        self.done.fetch_add(more, Ordering::Relaxed);
    }

    /// How much is done.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// How much there is to do in all, as far as is known.
    pub fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}

/// Reads, and counts each byte as work that is done.
pub struct Counted<R> {
    input: R,
    work: Arc<Work>,
}

impl<R> Counted<R> {
    /// Counts what is read from `input`.
    pub fn new(input: R, work: Arc<Work>) -> Self {
        Counted { input, work }
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.input.read(buffer)?;
        self.work.advance(bytes as u64);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_done() {
        let work = Arc::new(Work::default());
        work.expect(5);
        let mut text = String::new();
        Counted::new(&b"bytes"[..], Arc::clone(&work)).read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), work.done(), work.total()), ("bytes", 5, 5));
    }
}
