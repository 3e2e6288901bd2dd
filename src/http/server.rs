//! The HTTP server: one thread with a current-thread runtime, with limits on connections and headers.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_io_timeout::TimeoutStream;

use super::change::Peer;
use super::limits::{CONNECTIONS_MAX, HEADER_BYTES_MAX, HEADER_READ_MAX, STOP_MAX, WRITE_STALL_MAX};
use super::status::Status;
use super::{Live, Site, router};

/// Seconds between two rounds of work on the metrics.
const UPKEEP_SECONDS: u64 = 5;

/// A running server; dropping it stops it without waiting.
#[must_use = "dropping the server stops it"]
pub struct Server {
    address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops it: accepts no more, ends the streams, gives other requests [`STOP_MAX`], and waits for that.
    pub fn stop(self) {
        self.stop.send_replace(true);
        if self.thread.join().is_err() {
            tracing::error!("the HTTP server's thread panicked");
        }
    }
}

/// Serves a site on a thread of its own until the server is stopped.
///
/// The thread also takes the event rate once a second and does the metrics' upkeep.
///
/// # Errors
///
/// When the listener cannot be used or the thread cannot be started.
pub fn serve(listener: TcpListener, site: Site) -> io::Result<Server> {
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = {
        let _entered = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let (stop, stopped) = watch::channel(false);
    let thread =
        std::thread::Builder::new().name("http".into()).spawn(move || run(runtime, listener, site, stopped))?;
    Ok(Server { address, stop, thread })
}

fn run(runtime: Runtime, listener: tokio::net::TcpListener, site: Site, stop: watch::Receiver<bool>) {
    let (status, metrics) = match &site {
        Site::Job(job) => (Some(Arc::clone(&job.status)), job.metrics.clone()),
        Site::Generator(generator) => (None, generator.metrics.clone()),
    };
    let (cluster_changed, cluster) = watch::channel(cluster_json(status.as_deref()));
    let router = router(site, Live { cluster, stop: stop.clone() });
    runtime.block_on(async {
        let every_second = every_second(status, cluster_changed, metrics);
        tokio::select! {
            () = accept(listener, router, stop) => {}
            () = every_second => {}
        }
    });
    runtime.shutdown_background();
}

fn cluster_json(status: Option<&Status>) -> Arc<str> {
    status.map_or_else(|| "null".into(), |status| super::json(&status.snapshot()).into())
}

async fn every_second(status: Option<Arc<Status>>, changed: watch::Sender<Arc<str>>, metrics: PrometheusHandle) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for seconds in 0_u64.. {
        ticks.tick().await;
        if let Some(status) = &status {
            status.sample();
            changed.send_replace(cluster_json(Some(status)));
        }
        if seconds % UPKEEP_SECONDS == 0 {
            metrics.run_upkeep();
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, router: Router, mut stop: watch::Receiver<bool>) {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&free).acquire_owned().await;
            (permit, listener.accept().await)
        };
        tokio::select! {
            () = stopped(&mut stop) => break,
            Some(_) = connections.join_next() => {}
            (permit, accepted) = accepted => match accepted {
                Ok((socket, peer)) => {
                    let connection = serve_connection(socket, Peer(peer), router.clone(), stop.clone());
                    connections.spawn(async move {
                        connection.await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, for example: others may free some.
                    tracing::warn!(%error, "cannot accept an HTTP connection");
                    sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    let rest = async { while connections.join_next().await.is_some() {} };
    // Who has not finished by then is cut off.
    let _ = timeout(STOP_MAX, rest).await;
}

async fn serve_connection(socket: tokio::net::TcpStream, peer: Peer, router: Router, mut stop: watch::Receiver<bool>) {
    // Events are small and should leave at once.
    let _ = socket.set_nodelay(true);
    let mut socket = TimeoutStream::new(socket);
    socket.set_write_timeout(Some(WRITE_STALL_MAX));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_READ_MAX)
        .max_header_size(HEADER_BYTES_MAX)
        .serve_connection(TokioIo::new(Box::pin(socket)), TowerToHyperService::new(router.layer(Extension(peer))));
    tokio::pin!(connection);
    // A client that goes away is no error of ours.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Comes back when the server is to stop.
pub(super) async fn stopped(stop: &mut watch::Receiver<bool>) {
    // An error says that the `Server` was dropped.
    let _ = stop.wait_for(|stop| *stop).await;
}
