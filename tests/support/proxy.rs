//! A network between a client and a server that can be cut.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Network {
    /// Everything passes.
    Passes,
    /// Every connection is closed, and every new one at once.
    Cut,
    /// Connections stay and are accepted; nothing passes in either direction.
    Stalls,
    /// What the client sends arrives, and no answer does.
    LosesAnswers,
}

/// A port that leads to another, so far as the network passes. Gone with the guard, connections included.
pub struct Proxy {
    shared: Arc<Shared>,
}

struct Shared {
    server: u16,
    network: AtomicU8,
    /// Connections made before the latest cut are closed.
    cuts: AtomicU32,
    over: AtomicBool,
}

/// How soon a change is noticed.
const NOTICE: Duration = Duration::from_millis(5);

impl Proxy {
    /// Listens on `port` of 127.0.0.1 for connections to `server`, a port of the same.
    pub fn start(port: u16, server: u16) -> Proxy {
        let listener = TcpListener::bind(("127.0.0.1", port)).expect("the proxy's port is free");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let network = AtomicU8::new(Network::Passes as u8);
        let (cuts, over) = (AtomicU32::new(0), AtomicBool::new(false));
        let shared = Arc::new(Shared { server, network, cuts, over });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            while !accepting.over.load(Ordering::Relaxed) {
                match listener.accept() {
                    // Dropped, and with that closed, where it can't be passed on.
                    Ok((client, _)) => drop(accepting.pass_on(client)),
                    Err(_) => thread::sleep(NOTICE),
                }
            }
        });
        Proxy { shared }
    }

    /// From now on the network is so. What was held back while it stalled passes once it does again.
    pub fn set(&self, network: Network) {
        self.shared.network.store(network as u8, Ordering::SeqCst);
        if network == Network::Cut {
            self.reset();
        }
    }

    /// Closes every connection; what was held back is lost.
    pub fn reset(&self) {
        self.shared.cuts.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.reset();
    }
}

impl Shared {
    fn is(&self, network: Network) -> bool {
        self.network.load(Ordering::SeqCst) == network as u8
    }

    fn pass_on(self: &Arc<Self>, client: TcpStream) -> io::Result<()> {
        let cuts = self.cuts.load(Ordering::SeqCst);
        if self.is(Network::Cut) {
            return Ok(());
        }
        let server = TcpStream::connect(("127.0.0.1", self.server))?;
        for (from, to, answers) in [(&client, &server, false), (&server, &client, true)] {
            from.set_nonblocking(false)?;
            from.set_nodelay(true)?;
            from.set_read_timeout(Some(NOTICE))?;
            let (from, to, shared) = (from.try_clone()?, to.try_clone()?, Arc::clone(self));
            thread::spawn(move || {
                // However it ends, both ends see it.
                shared.copy(&from, &to, answers, cuts).ok();
                from.shutdown(Shutdown::Both).ok();
                to.shutdown(Shutdown::Both).ok();
            });
        }
        Ok(())
    }

    fn copy(&self, mut from: &TcpStream, mut to: &TcpStream, answers: bool, cuts: u32) -> io::Result<()> {
        let mut bytes = vec![0; 64 << 10];
        while self.cuts.load(Ordering::SeqCst) == cuts {
            let read = match from.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(read) => read,
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
                Err(e) => return Err(e),
            };
            while self.is(Network::Stalls) || (answers && self.is(Network::LosesAnswers)) {
                if self.cuts.load(Ordering::SeqCst) != cuts {
                    return Ok(());
                }
                thread::sleep(NOTICE);
            }
            to.write_all(&bytes[..read])?;
        }
        Ok(())
    }
}
