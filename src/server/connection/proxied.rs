//! Connections that are closed because of their peer, or of what precedes their first request.

use std::net::SocketAddr;
use std::time::Duration;

use log::warn;

use crate::server::context::Context;

/// How often to log that connections are closed for lack of a header, or because their peer is not trusted.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// Counts a connection that is closed because of its peer or its first bytes. Logs it, since the cause may be the
/// configuration of a proxy or of the pool.
#[cold]
pub(crate) fn refuse(peer: Option<SocketAddr>, problem: &str, cx: &mut Context<'_>) {
    cx.stats.row.count_refused();
    if cx.proxies.warned.is_none_or(|at| cx.clock.now.since(at) >= WARN_EVERY) {
        cx.proxies.warned = Some(cx.clock.now);
        let peer = peer.map_or_else(|| "a Unix socket".to_owned(), |peer| peer.to_string());
        warn!("{} closed a connection from {peer}: {problem}; see proxy-protocol and trusted-proxies", cx.station.tag);
    }
}
