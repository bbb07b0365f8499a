//! What a worker can pass to the workers after it in place of its connections.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use crate::descriptors::{held, is_client, linger, option, receive_descriptors, send_message, MOST};

/// Until the parent has told it to whom it is to pass its connections, and until all is passed.
const CLIENT_TURN_MAX: Duration = Duration::from_secs(30);

/// A record of a connection that has had three requests (`src/shared/handover/record.rs`).
const RECORD: [u8; 10] = [1, 0, 3, 0, 0, 0, 0, 0, 0, 0];

/// How often each record goes with each descriptor.
const ROUNDS: usize = 5;

/// Waits until it is told to leave, takes the orders in place of the server, and passes on all that it has.
pub(crate) fn pass_on(kinds: &[[RawFd; 2]]) -> String {
    eprintln!("waits for orders");
    let (end, mut senders) = (Instant::now() + CLIENT_TURN_MAX, Vec::new());
    let sources: Vec<RawFd> = held().filter(|fd| option(*fd, libc::SO_DOMAIN) == Some(libc::AF_UNIX)).collect();
    while senders.is_empty() && Instant::now() < end {
        let received: Vec<RawFd> = sources.iter().flat_map(|source| receive_descriptors(*source)).collect();
        senders.extend(received.into_iter().filter(|fd| option(*fd, libc::SO_TYPE) == Some(libc::SOCK_SEQPACKET)));
        std::thread::sleep(Duration::from_millis(1));
    }
    let (clients, mut sent): (Vec<RawFd>, usize) = (held().filter(|fd| is_client(*fd)).collect(), 0);
    clients.iter().for_each(|client| linger(*client));
    for _ in 0..ROUNDS {
        for record in &records() {
            for fds in &sets(kinds, &clients) {
                sent += senders.iter().filter(|sender| send(**sender, record, fds, end)).count();
            }
        }
    }
    for client in &clients {
        // It is blocking from now on, wherever it is.
        unsafe { libc::fcntl(*client, libc::F_SETFL, 0) };
    }
    say!("passed on {sent} times");
    format!("passed on {sent} times")
}

/// A good one, and others of another version, with other flags, too short and too long.
fn records() -> Vec<Vec<u8>> {
    let with = |at: usize, value: u8| {
        let mut record = RECORD.to_vec();
        record[at] = value;
        record
    };
    let long = [&RECORD[..], &[b'x'; (64 << 10) + 1]].concat();
    vec![RECORD.to_vec(), with(0, 9), with(1, 0xff), RECORD[..5].to_vec(), Vec::new(), long]
}

/// None, one, several, and as many as fit.
fn sets(kinds: &[[RawFd; 2]], clients: &[RawFd]) -> Vec<Vec<RawFd>> {
    let kinds = kinds.iter().flat_map(|kind| [kind[..1].to_vec(), kind.to_vec()]);
    let clients = clients.iter().flat_map(|client| [vec![*client], vec![*client; 2]]);
    let most = [vec![], vec![kinds.clone().next().unwrap_or_default().first().copied().unwrap_or(0); MOST]];
    kinds.chain(clients).chain(most).collect()
}

/// Waits where there is no room. Whether it went.
fn send(sender: RawFd, record: &[u8], fds: &[RawFd], end: Instant) -> bool {
    loop {
        if send_message(sender, record, fds) >= 0 {
            return true;
        }
        let error = std::io::Error::last_os_error().raw_os_error();
        if !matches!(error, Some(libc::EAGAIN | libc::ETOOMANYREFS)) || Instant::now() > end {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
