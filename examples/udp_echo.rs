//! cargo run --example udp_echo, then echo hello | nc -u 127.0.0.1 8000: each worker answers the datagrams on its own
//! socket.

use std::error::Error;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::{env, process};

use forkpool::{Pool, Worker};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

fn main() -> forkpool::Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let address = env::var("UDP_ECHO").unwrap_or_else(|_| "127.0.0.1:8000".to_owned());
    Pool::bind_udp(address).env().run(echo)
}

fn echo(worker: &Worker) -> Result<(), Box<dyn Error>> {
    let (socket, shutdown) = (worker.take_udp_socket()?, worker.shutdown_signal()?);
    let mut datagram = [0; 65_536];
    worker.ready()?;
    loop {
        let readable = |fd| PollFd::new(fd, PollFlags::POLLIN);
        let mut either = [readable(shutdown.as_fd()), readable(socket.as_fd())];
        poll(&mut either, PollTimeout::NONE)?;
        // The next worker reads the waiting datagrams.
        if either[0].any() == Some(true) {
            return Ok(());
        }
        match socket.recv_from(&mut datagram) {
            Ok((len, client)) => {
                let answer = [format!("{} ", process::id()).as_bytes(), &datagram[..len]].concat();
                socket.send_to(&answer, client)?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}
