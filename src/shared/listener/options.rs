//! The options of connections.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, Socket, TcpKeepalive};

use crate::sys;

/// The limit of unsent bytes in the kernel. Beyond it, a response for a slow client waits in the worker; otherwise the
/// kernel would take megabytes for each slow client. If the kernel paces what it sends (BBR), short queues also cost
/// less than half.
const NOTSENT_MAX: u32 = 128 * 1024;

/// Gives a connection that was accepted elsewhere the options that our listeners give theirs.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    sys::fds::set_nonblocking(stream, true)?;
    never_linger(stream);
    tune(&SockRef::from(stream))
}

/// Makes sure that closing an accepted TCP connection never blocks. It inherits `SO_LINGER` from its listener, on which
/// any worker with a copy can set the option at any time. So each connection is cleared by itself.
pub(crate) fn never_linger(connection: &impl AsFd) {
    // If this fails, the socket has no such option.
    let _ = SockRef::from(connection).set_linger(None);
}

/// Makes closing a TCP connection reset it (`SO_LINGER` in socket(7)), so that the client sees that the response was
/// cut. Has no effect on other sockets.
pub(crate) fn reset_at_close(connection: &impl AsFd) {
    // If this fails, the connection has failed before.
    let _ = SockRef::from(connection).set_linger(Some(Duration::ZERO));
}

/// The number of probes to a peer that does not answer.
const KEEPALIVE_RETRIES: u32 = 4;

/// Makes the kernel probe a peer after this time of silence, and break the connection if the peer does not answer for
/// as long again. For a connection, or for a listener, whose connections inherit it. In seconds; zero turns it off.
pub(crate) fn keep_alive(socket: &impl AsFd, silence: Duration) {
    let socket = SockRef::from(socket);
    // If this fails, the kernel does not support it, and the connection does without.
    if silence.is_zero() {
        let _ = socket.set_keepalive(false);
        return;
    }
    // The range that the kernel accepts.
    let seconds = |span: Duration| Duration::from_secs(span.as_millis().div_ceil(1000).clamp(1, 32_767) as u64);
    let asked = TcpKeepalive::new()
        .with_time(seconds(silence))
        .with_interval(seconds(silence / KEEPALIVE_RETRIES))
        .with_retries(KEEPALIVE_RETRIES);
    let _ = socket.set_tcp_keepalive(&asked);
}

/// For a connection, or for a listener, whose connections inherit the options.
pub(super) fn tune(socket: &Socket) -> io::Result<()> {
    // A response is written whole, and Nagle's algorithm would only delay its last segment.
    socket.set_tcp_nodelay(true)?;
    // Kernels that only resemble Linux may lack this option, and do without.
    let _ = socket.set_tcp_notsent_lowat(NOTSENT_MAX);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn connections_inherit_the_options_of_their_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        tune(&SockRef::from(&listener)).expect("it is a TCP socket");
        let _client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
        let (accepted, _) = listener.accept().expect("a client has connected");
        assert!(accepted.nodelay().expect("it is open"));
        assert_eq!(SockRef::from(&accepted).tcp_notsent_lowat().expect("it is open"), NOTSENT_MAX);
    }

    #[test]
    fn connections_are_kept_alive_as_their_listener_says() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        for (silence, asked) in [
            (Duration::from_secs(60), Some((60, 15))),
            (Duration::from_millis(1), Some((1, 1))),
            (Duration::MAX, Some((32_767, 32_767))),
            (Duration::ZERO, None),
        ] {
            keep_alive(&listener, silence);
            let _client = TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it listens");
            let (accepted, _) = listener.accept().expect("a client has connected");
            let socket = SockRef::from(&accepted);
            let is_on = socket.keepalive().expect("it is open");
            let times = (socket.tcp_keepalive_time(), socket.tcp_keepalive_interval());
            let times = (times.0.expect("it is open").as_secs(), times.1.expect("it is open").as_secs());
            assert_eq!(is_on.then_some(times), asked, "{silence:?}");
        }
    }
}
