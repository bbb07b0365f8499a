//! Stands between the loop and user code: a panic of the handler ends an answer, and not the worker.

use std::panic::{self, AssertUnwindSafe};

use log::error;

use crate::server::answer::response::Response;
use crate::server::http::Request;
use crate::server::station::Station;
use crate::shared::log_text::panic_message;

/// The handler.
pub(super) struct Guard<'a, H> {
    pub(super) station: &'a Station<'a>,
    pub(super) handler: &'a mut H,
}

impl<H> Guard<'_, H>
where
    H: FnMut(&Request<'_>) -> Response,
{
    /// The handler's answer, or 500 and a close when it panics. The worker goes on, unless it is told to end then.
    pub(super) fn answer(&mut self, request: &Request<'_>) -> Response {
        match panic::catch_unwind(AssertUnwindSafe(|| (self.handler)(request))) {
            Ok(response) => response,
            Err(panic) => {
                self.station.row().count_panic();
                let (method, target) = (request.method(), request.target());
                error!("{} panicked in {method} {target}: {}", self.station.tag, panic_message(&*panic));
                if self.station.config.exits_on_panic() {
                    panic::resume_unwind(panic);
                }
                Response::text("the server failed to answer this request\n").status(500).close()
            }
        }
    }
}
