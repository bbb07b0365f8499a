//! A program under `forkpool exec --ready notify` that turns against its pool: it knows nothing but what any such
//! program is told.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::{env, mem, process};

use crate::descriptors::{linger, send_message, MOST};

pub(crate) fn run() {
    let listener = unsafe { TcpListener::from_raw_fd(3) };
    listener.set_nonblocking(false).expect("it is a socket");
    let notify = connect(&env::var("NOTIFY_SOCKET").expect("it is told"));
    send_message(notify, b"READY=1", &[]);
    let mut idle = Vec::new();
    loop {
        let Ok((mut client, _)) = listener.accept() else { continue };
        let mut head = [0; 1024];
        let len = client.read(&mut head).unwrap_or(0);
        let head = String::from_utf8_lossy(&head[..len]).into_owned();
        match head.split(' ').nth(1) {
            Some("/big") => {
                fill(&mut client);
                idle.push(client);
            }
            Some("/stay") => answer(client, &notify_too_much(notify, mem::take(&mut idle))),
            Some("/exit") => {
                answer(client, &notify_too_much(notify, mem::take(&mut idle)));
                process::exit(0);
            }
            _ => answer(client, &process::id().to_string()),
        }
    }
}

/// More than a parent with 1024 descriptors can open, and at last clients that take nothing, so that whoever closes
/// them last waits for ten minutes.
fn notify_too_much(notify: RawFd, clients: Vec<TcpStream>) -> String {
    let clients: Vec<RawFd> = clients.into_iter().map(std::os::fd::IntoRawFd::into_raw_fd).collect();
    clients.iter().for_each(|client| linger(*client));
    let mut messages = vec![vec![3; MOST]; 4];
    messages.push([&vec![3; MOST - clients.len()], &clients[..]].concat());
    let sent = messages.iter().filter(|fds| send_message(notify, b"FDSTORE=1", fds) >= 0).count();
    for client in &clients {
        unsafe { libc::close(*client) };
    }
    format!("sent {sent} notifications and {} clients", clients.len())
}

/// As much as it takes.
fn fill(client: &mut TcpStream) {
    client.set_nonblocking(true).expect("it is a socket");
    let _ = client.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n");
    while client.write(&[b'x'; 65536]).is_ok() {}
}

fn answer(mut client: TcpStream, text: &str) {
    let len = text.len();
    let _ = write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {len}\r\nConnection: close\r\n\r\n{text}");
}

/// std has no connecting to abstract names by their text.
fn connect(name: &str) -> RawFd {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    };
    let socket = UnixDatagram::unbound().expect("a socket");
    socket.connect_addr(&address.expect("a name")).expect("the parent listens");
    let fd = socket.as_raw_fd();
    mem::forget(socket);
    fd
}
