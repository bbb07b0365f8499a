//! Stands between a connection and user code: a panic of the handler ends a response, and not the worker.

use std::panic::{self, AssertUnwindSafe};

use log::error;

use crate::server::answer::response::Response;
use crate::server::http::Request;
use crate::server::station::Station;
use crate::shared::log_text::panic_message;

/// The handler's response, or 500 and a close if it panics. The worker goes on, unless it is configured to exit.
#[inline]
pub(super) fn answer<H>(handler: &mut H, request: &Request<'_>, station: &Station<'_>) -> Response
where
    H: FnMut(&Request<'_>) -> Response,
{
    match panic::catch_unwind(AssertUnwindSafe(|| handler(request))) {
        Ok(response) => response,
        Err(panic) => {
            station.row().count_panic();
            let (method, target) = (request.method(), request.target());
            error!("{} panicked in {method} {target}: {}", station.tag, panic_message(&*panic));
            if station.config.exits_on_panic() {
                panic::resume_unwind(panic);
            }
            Response::text("the server failed to answer this request\n").status(500).close()
        }
    }
}
