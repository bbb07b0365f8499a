//! What the sockets of connections have set.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, Socket, TcpKeepalive};

use crate::sys;

/// What a client does not take waits with us, not in the kernel, beyond this much that is not even sent: otherwise the
/// kernel takes megabytes for each slow client. Where it paces what it sends (BBR), short queues also cost less than half.
const NOTSENT_MAX: u32 = 128 * 1024;

/// Makes a connection that was accepted elsewhere as those of our listeners are.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    sys::fds::set_nonblocking(stream, true)?;
    never_linger(stream);
    tune(&SockRef::from(stream))
}

/// Has closing a TCP connection that was accepted never wait. It inherits `SO_LINGER` from its listener, of which other
/// workers have copies, and whoever has one can set that at any time: so each connection is freed of it by itself.
pub(crate) fn never_linger(connection: &impl AsFd) {
    // Where it fails there is no such option.
    let _ = SockRef::from(connection).set_linger(None);
}

/// Has a TCP connection end with a reset when it is closed (`SO_LINGER` of socket(7)): its client shall see that it was
/// broken off. Other sockets have nothing of the kind.
pub(crate) fn reset_at_close(connection: &impl AsFd) {
    // Where it fails the connection has failed before.
    let _ = SockRef::from(connection).set_linger(Some(Duration::ZERO));
}

/// How often a peer that does not answer is asked.
const KEEPALIVE_RETRIES: u32 = 4;

/// Has the kernel ask a peer that has been silent for so long whether it is still there, and break the connection if it
/// does not answer for as long again. For a connection, or for a listener, whose connections inherit it. In seconds; zero
/// is not at all.
pub(crate) fn keep_alive(socket: &impl AsFd, silence: Duration) {
    let socket = SockRef::from(socket);
    // Where it fails the kernel does not know it, and the connection does without.
    if silence.is_zero() {
        let _ = socket.set_keepalive(false);
        return;
    }
    // What the kernel takes.
    let seconds = |span: Duration| Duration::from_secs(span.as_millis().div_ceil(1000).clamp(1, 32_767) as u64);
    let asked = TcpKeepalive::new()
        .with_time(seconds(silence))
        .with_interval(seconds(silence / KEEPALIVE_RETRIES))
        .with_retries(KEEPALIVE_RETRIES);
    let _ = socket.set_tcp_keepalive(&asked);
}

/// For a connection, or for a listener, whose connections inherit it.
pub(super) fn tune(socket: &Socket) -> io::Result<()> {
    // An answer is sent whole, and Nagle would only hold back its last segment.
    socket.set_tcp_nodelay(true)?;
    // What only looks like Linux may not know it, and does without.
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
