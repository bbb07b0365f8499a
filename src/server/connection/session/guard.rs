//! A panic of the handler ends a response, and not the worker.

use std::{panic, thread};

use log::error;

use crate::server::answer::response::Response;
use crate::server::http::Request;
use crate::server::station::Station;
use crate::shared::log_text::panic_message;

/// The handler's response, or 500 and a close if it has panicked. The worker goes on, unless it is configured to exit.
#[inline(never)]
pub(super) fn unless_panicked(
    answered: thread::Result<Response>,
    request: &Request<'_>,
    station: &Station<'_>,
) -> Response {
    let panic = match answered {
        Ok(response) => return response,
        Err(panic) => panic,
    };
    station.row().count_panic();
    let (method, target) = (request.method(), request.target());
    error!("{} panicked in {method} {target}: {}", station.tag, panic_message(&*panic));
    if station.config.exits_on_panic() {
        panic::resume_unwind(panic);
    }
    Response::text("the server failed to answer this request\n").status(500).close()
}
