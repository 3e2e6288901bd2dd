//! Every limit of the HTTP server. `docs/http-api.md` has the same table; a test holds the two together.

use std::time::Duration;

/// Most connections at a time; further ones wait to be accepted.
pub const CONNECTIONS_MAX: usize = 512;
/// Most streams (`/v1/stream`) at a time; one more is answered with 503.
pub const STREAMS_MAX: usize = 256;
/// Most bytes in the head of a request.
pub const HEADER_BYTES_MAX: usize = 16 * 1024;
/// Most bytes in a request's path and query. The longest `contains` and `prefix`, percent-encoded, fit.
pub const URL_BYTES_MAX: usize = 14 * 1024;
/// Most bytes in the body of a request.
pub const BODY_BYTES_MAX: usize = 4 * 1024;
/// Most rows of one answer: the greatest `limit`.
pub const ROWS_MAX: usize = 1_000;
/// The `limit` of a request that says none.
pub const ROWS_DEFAULT: usize = 100;
/// Most characters of `contains` and `prefix`.
pub const FILTER_CHARS_MAX: usize = 512;
/// Most bytes of a page's key in `page`: no event may have a longer one.
pub const PAGE_KEY_BYTES_MAX: usize = 2_048;
/// The greatest number that JSON carries everywhere, 2^53 - 1: no number in a request is greater, or less than minus this.
pub const NUMBER_MAX: i64 = 9_007_199_254_740_991;
/// How long a client may take to send the head of a request, and how long it may stay connected without one.
pub const HEADER_READ_MAX: Duration = Duration::from_secs(30);
/// How long a client may take to send the body of a request.
pub const BODY_READ_MAX: Duration = Duration::from_secs(10);
/// How long a client may read nothing while there is something to send to it.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(60);
/// How long the checkpoint store may take to be listed.
pub const CHECKPOINTS_MAX: Duration = Duration::from_secs(10);
/// How old an answer about the checkpoint store may be.
pub const CHECKPOINTS_AGE_MAX: Duration = Duration::from_secs(10);
/// How long a savepoint may take. Longer than this none takes that comes to anything.
pub const SAVEPOINT_MAX: Duration = Duration::from_secs(120);
/// How long requests may still run after the server was told to stop.
pub const STOP_MAX: Duration = Duration::from_secs(1);
