//! Clients whose machines have vanished: nothing arrives from them any more, not even the end of the connection.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use crate::support::sockets::{count_tcp_sockets, ESTABLISHED};
use crate::support::{example, skip, until, Server};
use nix::sys::signal::{killpg, Signal};
use nix::unistd::Pid;

/// A machine beside this one: a network namespace at the other end of a cable.
struct Machine {
    namespace: String,
    /// This machine's address at the cable.
    here: String,
}

impl Machine {
    /// Makes one; prints why and returns `None` if this machine does not allow it.
    fn new() -> Option<Machine> {
        let pid = std::process::id();
        // A network of its own for each process, since several runs of the tests may share this machine.
        let network = format!("10.213.{}", pid / 64 % 256);
        let [here, there] = [1, 2].map(|host| format!("{network}.{}", pid % 64 * 4 + host));
        let machine = Machine { namespace: format!("forkpool-vanished-{pid}"), here };
        let (name, here) = (&machine.namespace, &machine.here);
        let cable = format!("cable{pid}");
        let steps = [
            format!("netns add {name}"),
            format!("link add {cable} type veth peer name eth0 netns {name}"),
            format!("address add {here}/30 dev {cable}"),
            format!("link set {cable} up"),
            format!("-n {name} address add {there}/30 dev eth0"),
            format!("-n {name} link set eth0 up"),
        ];
        match steps.iter().all(|step| ip(step)) {
            true => Some(machine),
            false => {
                skip("a network namespace cannot be made here");
                None
            }
        }
    }

    /// Disconnects it, as if its cable was pulled out.
    fn vanish(&self) {
        assert!(ip(&format!("-n {} link set eth0 down", self.namespace)));
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // The cable ends with it.
        ip(&format!("netns delete {}", self.namespace));
    }
}

fn ip(arguments: &str) -> bool {
    let output = Command::new("ip").args(arguments.split(' ')).output();
    output.is_ok_and(|output| output.status.success())
}

/// A process on that machine.
struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.0.id() as i32), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

#[test]
fn a_stream_to_a_vanished_machine_is_ended() {
    use std::os::unix::process::CommandExt;
    if Command::new("curl").arg("--version").output().is_err() {
        return skip("there is no curl");
    }
    let Some(machine) = Machine::new() else { return };
    let mut command = example("events");
    command.env("FORKPOOL_WORKERS", "1").env("FORKPOOL_WRITE_TIMEOUT", "2s");
    // So that it is not what ends the connection.
    command.env("FORKPOOL_TCP_KEEPALIVE", "0").env("FORKPOOL_LISTEN", format!("{}:0", machine.here));
    let mut server = Server::start_silent(command);
    let port = server.port();
    let mut client = Command::new("ip");
    client.args(["netns", "exec", &machine.namespace, "curl", "-sN", &format!("http://{}:{port}/", machine.here)]);
    let mut guest = Guest(client.stdout(Stdio::piped()).process_group(0).spawn().expect("ip(8) has just run"));
    let mut events = BufReader::new(guest.0.stdout.take().expect("it is piped"));
    let mut line = String::new();
    assert!(events.read_line(&mut line).expect("a pipe") > 0, "curl gets the stream");
    let worker = server.workers()[0];
    assert_eq!(count_tcp_sockets(worker, port, ESTABLISHED), 1);
    machine.vanish();
    until("the connection has ended", || (count_tcp_sockets(worker, port, ESTABLISHED) == 0).then_some(()));
    drop(guest);
}
