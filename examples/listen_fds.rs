//! cargo run -- exec -- target/debug/examples/listen_fds: a program that takes its socket as described in
//! sd_listen_fds(3).
#![allow(unsafe_code)]

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::os::{fd::AsFd, fd::FromRawFd, unix::net::UnixStream};
use std::{env, process, thread, time::Duration};

use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

fn main() -> io::Result<()> {
    // SAFETY: the process that started this program has opened the socket for it, and nothing else here takes it.
    let listener = unsafe { TcpListener::from_raw_fd(3) };
    listener.set_nonblocking(true)?;
    let (told, tell) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(libc::SIGTERM, tell)?;
    sd_notify::notify(&[sd_notify::NotifyState::Ready])?;
    loop {
        let mut wait = [&listener.as_fd(), &told.as_fd()].map(|fd| PollFd::new(*fd, PollFlags::POLLIN));
        let is_over = poll(&mut wait, PollTimeout::NONE).is_ok() && wait[1].any() == Some(true);
        // Accept the queued connections before stopping.
        match listener.accept() {
            Ok((stream, _)) => answer(&stream).unwrap_or_else(|error| eprintln!("not answered: {error}")),
            Err(error) if error.kind() == ErrorKind::WouldBlock && is_over => return Ok(()),
            Err(_) => {}
        }
    }
}

/// Answers one request.
fn answer(mut stream: &TcpStream) -> io::Result<()> {
    let head: Vec<_> = BufReader::new(stream).lines().map_while(Result::ok).take_while(|it| !it.is_empty()).collect();
    match head.first().and_then(|line| line.split(' ').nth(1)) {
        Some("/crash") => process::abort(),
        Some("/slow") => thread::sleep(Duration::from_millis(300)),
        _ => {}
    }
    let (pid, worker) = (process::id(), env::var("FORKPOOL_WORKER_ID").unwrap_or_default());
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 12\r\nX-Pid: {pid}\r\nX-Worker: {worker}\r\n");
    stream.write_all((head + "Connection: close\r\n\r\nhello world\n").as_bytes())
}
