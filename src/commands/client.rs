//! One HTTP request to a process of ours, for the commands that ask one.

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// No answer of ours is nearly as long.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Sends a request to `address` (`host:port`) and gives the answer's status and text.
///
/// # Errors
/// A text that says why there is no answer within `timeout`.
pub fn exchange(address: &str, request: Request<Body>, timeout: Duration) -> Result<(StatusCode, String), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    let exchange = async {
        let stream = TcpStream::connect(address).await.map_err(|e| e.to_string())?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| e.to_string())?;
        tokio::spawn(connection);
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let status = answer.status();
        let body = to_bytes(Body::new(answer.into_body()), ANSWER_BYTES_MAX).await.map_err(|e| e.to_string())?;
        Ok((status, String::from_utf8_lossy(&body).trim().to_owned()))
    };
    let answer = runtime.block_on(async { tokio::time::timeout(timeout, exchange).await });
    // The name of the address may still be looked up, on a thread that would be waited for.
    runtime.shutdown_background();
    answer.unwrap_or_else(|_| Err(format!("no answer within {} s", timeout.as_secs_f64())))
}
