//! What the sockets of connections have set.

use std::io;
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{SockRef, Socket};

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
}
