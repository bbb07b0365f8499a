//! The header of the PROXY protocol, before a client's first request.

use std::net::SocketAddr;
use std::time::Duration;

use log::warn;

use super::{Connection, Kept, Step};
use crate::server::context::Context;
use crate::server::proxy::{parse, Found};

/// How often to log that connections are closed for lack of a header, or because their peer is not trusted.
const TOLD: Duration = Duration::from_secs(60);

impl Connection {
    /// The first bytes belong to a header.
    pub(crate) fn await_header(&mut self) {
        self.peer.await_header();
    }

    /// Removes the header, as far as it has arrived, from the first `len` bytes of the buffer. Returns where the
    /// client's bytes begin, or what to do with the connection while there are none.
    #[cold]
    pub(super) fn take_header(&mut self, len: usize, cx: &mut Context<'_>) -> Result<usize, Step> {
        let start = match self.peer.left_to_skip() {
            Some(left) => left.min(len),
            None => match parse(&cx.input[..len]) {
                Found::Header(header) => {
                    self.peer.learn(&header);
                    header.len + header.skip.min(len - header.len)
                }
                Found::NeedMore => {
                    self.kept =
                        (len > 0).then(|| Box::new(Kept { input: cx.input[..len].to_vec(), ..Kept::default() }));
                    return Err(self.wait_for_more());
                }
                Found::Invalid(problem) => {
                    refuse(self.peer.address(), problem, cx);
                    return Err(Step::Close);
                }
            },
        };
        if self.peer.skipped(start) {
            Ok(start)
        } else {
            Err(self.wait_for_more())
        }
    }

    fn wait_for_more(&self) -> Step {
        match () {
            // Health checks end like this.
            () if self.transport.is_ended() => Step::Close,
            () if self.transport.is_readable() => Step::Again,
            () => Step::Wait,
        }
    }
}

/// Counts a connection that is closed because of its peer or its first bytes. Logs it, since the cause may be the
/// configuration of a proxy or of the pool.
#[cold]
pub(crate) fn refuse(peer: Option<SocketAddr>, problem: &str, cx: &mut Context<'_>) {
    cx.stats.row.count_refused();
    if cx.proxies.told.is_none_or(|told| cx.clock.now.since(told) >= TOLD) {
        cx.proxies.told = Some(cx.clock.now);
        let peer = peer.map_or_else(|| "a Unix socket".to_owned(), |peer| peer.to_string());
        warn!("{} closed a connection from {peer}: {problem}; see proxy-protocol and trusted-proxies", cx.station.tag);
    }
}
