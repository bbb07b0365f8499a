//! Starts a program, reads what it says, and finds the address that it announces: for the tests and for `tests/tools`.

use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;

/// Starts it. The lines of its stdout and stderr arrive on the channel, which ends when both are closed. They are read
/// to the end, so the program never waits for its reader.
pub(crate) fn spawn(command: &mut Command) -> io::Result<(Child, Receiver<String>)> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (sender, lines) = mpsc::channel();
    let outputs: [Box<dyn Read + Send>; 2] = [
        Box::new(child.stderr.take().expect("stderr is piped")),
        Box::new(child.stdout.take().expect("stdout is piped")),
    ];
    for output in outputs {
        let sender = sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
    }
    Ok((child, lines))
}

/// The TCP address in the line that announces where a pool listens.
pub(crate) fn announced(line: &str) -> Option<SocketAddr> {
    let (_, address) = line.split_once("listening on http://")?;
    address.split(' ').next()?.parse().ok()
}
