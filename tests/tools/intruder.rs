//! A pool whose keeper tries what it needs for nothing, as one would that its program has taken over: in its logger,
//! which runs in it, when the program binds its address. For tests/adopt/harm.rs. Its arguments are the program's.

use std::fs;
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use forkpool::Pool;
use nix::sys::signal::kill;
use nix::unistd::getppid;

fn main() -> forkpool::Result<()> {
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Info)
        .format(|line, record| {
            let message = record.args().to_string();
            writeln!(line, "{} {message}", record.level())?;
            if message.contains(" gets the pool's socket, ") {
                for (name, result) in attempts() {
                    writeln!(
                        line,
                        "tried: {name}: {}",
                        result.map_or_else(|error| error.to_string(), |()| "done".to_owned())
                    )?;
                }
            }
            Ok(())
        })
        .init();
    Pool::bind("127.0.0.1:0").env().run(|worker| {
        let mut words = std::env::args().skip(1);
        Err(worker.exec(Command::new(words.next().expect("a program")).args(words)))
    })
}

fn attempts() -> [(&'static str, io::Result<()>); 6] {
    let path = std::env::temp_dir().join(format!("forkpool-intruder-{}", std::process::id()));
    [
        ("start", Command::new("true").status().map(drop)),
        ("write", fs::write(&path, "").and_then(|()| fs::remove_file(&path))),
        ("connect", TcpStream::connect("127.0.0.1:1").map(drop)),
        ("listen", TcpListener::bind("127.0.0.1:0").map(drop)),
        ("signal", kill(getppid(), None).map_err(io::Error::from)),
        ("read", fs::read("/proc/self/status").map(drop)),
    ]
}
