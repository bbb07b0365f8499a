//! Kills the process that passes connections on, or the one that takes them over, before each of its system calls, and
//! looks where the connections are.

use std::fs;
use std::net::TcpStream;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;

use crate::descriptors;
use crate::support::{is_gone, skip, testbed, until, Client, Server, DEADLINE};

/// How many connections the worker that leaves has.
const KEPT: usize = 4;

/// A move takes fewer system calls of either side, so these end within the next one.
const STEPS_OF_SENDER: usize = 7;
const STEPS_OF_RECEIVER: usize = 24;

#[test]
fn a_sender_that_dies_at_any_step_loses_only_what_it_has_not_passed_on() {
    let mut server = pool();
    let (before, mut most) = (all_descriptors(&server), 0);
    let receiver = first(&mut server);
    for step in 0..STEPS_OF_SENDER {
        let (sender, mut clients) = crowd(&mut server, receiver);
        let is_send = |call: &Call| call.number == libc::SYS_sendmsg;
        let Some(traced) = Traced::seize(sender) else { return };
        server.signal(Signal::SIGTTOU);
        let sent = traced.kill_at(step, is_send, is_send);
        let kept = answered(&mut clients, receiver);
        assert_eq!(kept, sent, "step {step}: of {KEPT}");
        most = most.max(sent);
        until("it is gone", || (server.workers() == [receiver]).then_some(()));
        server.signal(Signal::SIGTTIN);
    }
    assert!(most > 1, "no step was in the second move");
    until_as_before(&mut server, before);
}

#[test]
fn a_receiver_that_dies_at_any_step_loses_only_what_it_has_taken() {
    let mut server = pool();
    let (before, mut most) = (all_descriptors(&server), 0);
    let mut receiver = first(&mut server);
    for step in 0..STEPS_OF_RECEIVER {
        let (sender, mut clients) = crowd(&mut server, receiver);
        let Some(traced) = Traced::seize(receiver) else { return };
        server.signal(Signal::SIGTTOU);
        // One that looks at nothing is not followed by one that takes it.
        let takes = |call: &Call| call.number == libc::SYS_recvmsg && !call.peeks();
        let taken = traced.kill_at(step, Call::peeks, takes);
        receiver = until("its replacement is there, and the sender has left", || {
            server.workers().into_iter().find(|pid| *pid != receiver).filter(|_| is_gone(sender))
        });
        let kept = answered(&mut clients, receiver);
        assert_eq!(kept, KEPT - taken, "step {step}: of {KEPT}");
        most = most.max(taken);
        server.signal(Signal::SIGTTIN);
    }
    assert!(most > 1, "no step was in the second move");
    until_as_before(&mut server, before);
}

fn pool() -> Server {
    testbed(&[("FORKPOOL_REBALANCE", "off")])
}

/// The worker of the first slot, which is never removed.
fn first(server: &mut Server) -> Pid {
    let line = server.log().iter().find(|line| line.contains("worker=0 ") && line.ends_with(" ready"));
    let pid = line.and_then(|line| line.split_once("pid=")?.1.split(' ').next()?.parse().ok());
    Pid::from_raw(pid.expect("it was ready"))
}

/// Opens connections to the worker of the second slot, which will leave. The other one, which has served as well then,
/// keeps none.
fn crowd(server: &mut Server, stays: Pid) -> (Pid, Vec<Client<TcpStream>>) {
    let mut clients = Vec::new();
    let sender = until("the second worker has enough connections", || {
        let mut client = server.connect();
        let worker = client.get("/").worker();
        if worker != stays {
            clients.push(client);
        }
        (clients.len() == KEPT).then_some(worker)
    });
    (sender, clients)
}

/// Makes a request on each. Returns how many this worker answers; the others must have been closed, so that nobody has
/// a copy.
fn answered(clients: &mut [Client<TcpStream>], by: Pid) -> usize {
    let mut count = 0;
    for client in clients {
        match client.try_get("/") {
            Ok(answer) => {
                assert!(answer.status == 200 && !answer.closes() && answer.worker() == by, "{answer:?}");
                count += 1;
            }
            Err(error) => {
                let is_left_open = matches!(error.raw_os_error(), Some(libc::EAGAIN));
                assert!(!is_left_open, "nobody serves it, and nobody has closed it");
            }
        }
    }
    count
}

/// Those of the parent, and of its workers.
fn all_descriptors(server: &Server) -> (usize, usize) {
    (descriptors(server.pid()), server.workers().into_iter().map(descriptors).sum())
}

/// A descriptor that is left at each step would be more than what may have come after `before`: each worker gets a copy
/// of the other one's socket soon after it is ready.
fn until_as_before(server: &mut Server, before: (usize, usize)) {
    let most = (before.0 + 2, before.1 + 2);
    until(&format!("there are no more descriptors than {most:?}"), || {
        let now = all_descriptors(server);
        (server.workers().len() == 2 && now.0 <= most.0 && now.1 <= most.1).then_some(())
    });
}

/// A system call.
#[derive(Clone, Copy)]
struct Call {
    number: i64,
    descriptor: u64,
    /// Those of sendmsg(2) and recvmsg(2).
    flags: i32,
}

impl Call {
    /// Whether it looks at the next message of a queue, and leaves it there.
    fn peeks(&self) -> bool {
        self.number == libc::SYS_recvmsg && self.flags & libc::MSG_PEEK != 0
    }
}

/// A process whose system calls are traced.
struct Traced(Pid);

impl Traced {
    /// `None`, with the reason, if that is impossible here.
    fn seize(pid: Pid) -> Option<Traced> {
        if let Err(errno) = ptrace::seize(pid, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_EXITKILL) {
            skip(&format!("a process cannot be traced: {errno}"));
            return None;
        }
        ptrace::interrupt(pid).expect("it is traced");
        Some(Traced(pid))
    }

    /// Kills it before it makes its system call number `step` from the first one that `begins` on. Returns how many
    /// that `count` it has made until then, on the same descriptor.
    fn kill_at(self, step: usize, begins: impl Fn(&Call) -> bool, count: impl Fn(&Call) -> bool) -> usize {
        let mut made: Vec<Call> = Vec::new();
        loop {
            let mut signal = None;
            match self.wait() {
                WaitStatus::PtraceSyscall(_) => {
                    let call = self.call().filter(|call| !made.is_empty() || begins(call));
                    if made.len() == step && call.is_some() {
                        break;
                    }
                    made.extend(call);
                }
                WaitStatus::Stopped(_, it) => signal = Some(it),
                WaitStatus::PtraceEvent(..) => {}
                other => panic!("it was to be killed at step {step}: {other:?}"),
            }
            ptrace::syscall(self.0, signal).expect("it is stopped");
        }
        kill(self.0, Signal::SIGKILL).expect("it is stopped");
        while !matches!(self.wait(), WaitStatus::Signaled(..)) {}
        made.iter().filter(|call| call.descriptor == made[0].descriptor && count(call)).count()
    }

    /// The system call that it is about to make; `None` if it has made one.
    fn call(&self) -> Option<Call> {
        let info = ptrace::syscall_info(self.0).expect("it is at a system call");
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
            return None;
        }
        let line = fs::read_to_string(format!("/proc/{}/syscall", self.0)).expect("it is stopped");
        let mut words = line.split_whitespace();
        let number = words.next().and_then(|word| word.parse().ok()).expect("a number");
        let mut next = || words.next().and_then(|word| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok());
        let [Some(descriptor), Some(_), Some(flags)] = [next(), next(), next()] else { panic!("{line}") };
        Some(Call { number, descriptor, flags: flags as i32 })
    }

    /// Waits for what happens to it. Only this thread may.
    fn wait(&self) -> WaitStatus {
        let end = Instant::now() + DEADLINE;
        loop {
            match waitpid(self.0, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::EINTR) => {}
                status => return status.expect("it is traced"),
            }
            assert!(Instant::now() < end, "it makes no system call");
            std::thread::yield_now();
        }
    }
}
