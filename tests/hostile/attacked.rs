//! A pool that is attacked, and what is looked at meanwhile and afterwards.

use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::process::Command;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use socket2::{Domain, Socket, Type};

use super::{answer, in_tier, Siblings, Tier};
use crate::support::{is_gone, skip, until, Client, Server};

/// A pool of four hostile workers.
pub(super) struct Attacked {
    pub(super) server: Server,
    pub(super) admin: u16,
    /// A kept connection to each worker.
    pub(super) clients: Vec<(Pid, Client<TcpStream>)>,
    /// Clients that take nothing of what they have asked for.
    idle: Vec<Client<TcpStream>>,
    /// Clients that take little of it.
    slow: Vec<TcpStream>,
}

/// What the system says of the parent.
pub(super) struct Parent {
    descriptors: usize,
    /// On a processor.
    time: Duration,
}

impl Attacked {
    /// `None` where this machine has not got the tier.
    #[track_caller]
    pub(super) fn start(tier: Tier, hook: bool) -> Option<Attacked> {
        let mut command = in_tier(tier)?;
        if hook {
            command.env("HOSTILE_HOOK", "1");
        }
        Attacked::of(command)
    }

    /// `None` where this machine has not got the tier.
    #[track_caller]
    pub(super) fn of(command: Command) -> Option<Attacked> {
        let mut server = Server::spawn(command);
        let line = server.wait_for_any(&["admin on http://127.0.0.1:", "no worker could start"]);
        if line.contains("no worker could start") {
            skip("this kernel has not got all of the strict sandbox");
            return None;
        }
        let admin = line.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
        server.wait_for("listening on http://");
        let mut pool = Attacked { server, admin, clients: Vec::new(), idle: Vec::new(), slow: Vec::new() };
        until("each worker has a client", || {
            let mut client = pool.server.connect();
            let worker = client.get("/").worker();
            if pool.clients.iter().all(|(pid, _)| *pid != worker) {
                pool.clients.push((worker, client));
            }
            (pool.clients.len() == 4).then_some(())
        });
        Some(pool)
    }

    /// Lets two workers attack; returns who they are.
    #[track_caller]
    pub(super) fn attack(&mut self, what: &str) -> Vec<Pid> {
        let query = match what {
            "signal" | "everything" => {
                let pids = self.server.workers().into_iter().chain([self.server.pid()]);
                format!("{what}:{}", pids.map(|pid| pid.to_string()).collect::<Vec<_>>().join(","))
            }
            _ => what.to_owned(),
        };
        let attackers: Vec<Pid> = self.clients.iter().take(2).map(|(pid, _)| *pid).collect();
        if ["lingering", "everything"].contains(&what) {
            // Until each attacker has one.
            let mut wanted: BTreeSet<Pid> = attackers.iter().copied().collect();
            until("each attacker has a client that takes nothing", || {
                let mut client = self.server.connect();
                wanted.remove(&client.get("/").worker());
                client.send("GET /big HTTP/1.1\r\nHost: a\r\n\r\n");
                self.idle.push(client);
                wanted.is_empty().then_some(())
            });
        }
        for (_, client) in &mut self.clients[..2] {
            client.send(format!("GET /attack?{query} HTTP/1.1\r\nHost: a\r\n\r\n"));
        }
        for (pid, client) in &mut self.clients[..2] {
            // An attacker that harms itself does not answer.
            client.stream().set_nonblocking(true).expect("a socket");
            let waits = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
            let is_over = || !client.stream().peek(&mut [0]).is_err_and(waits) || is_gone(*pid);
            until("an attacker answers, closes or is gone", || is_over().then_some(()));
            client.stream().set_nonblocking(false).expect("a socket");
            client.stream().set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
            match client.try_answer(false) {
                Ok(answer) => eprintln!("{pid}: {}", answer.text().trim_end()),
                Err(error) => eprintln!("{pid}: {error}"),
            }
        }
        attackers
    }

    /// Each worker that does not attack closes a connection on which it has something to send still.
    #[track_caller]
    pub(super) fn others_close_connections(&mut self, attackers: &[Pid]) {
        let mut others: BTreeSet<Pid> = self.clients.iter().map(|(pid, _)| *pid).collect();
        others.retain(|pid| !attackers.contains(pid));
        let port = self.server.port();
        until("each of them has closed one", || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
            // The least that there is: what is sent waits with the worker.
            socket.set_recv_buffer_size(1).expect("a socket");
            socket.connect(&std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()).expect("it listens");
            let mut stream = TcpStream::from(socket);
            std::io::Write::write_all(&mut stream, b"GET /some HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                .expect("it is open");
            stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a socket");
            let mut head = [0; 400];
            if stream.read_exact(&mut head).is_ok() {
                // The worker need not wait for more requests, and closes it.
                stream.shutdown(std::net::Shutdown::Write).expect("it is open");
                let head = String::from_utf8_lossy(&head);
                let worker = head.lines().find_map(|line| line.strip_prefix("X-Pid: ")).expect("it says who it is");
                others.remove(&Pid::from_raw(worker.parse().expect("a pid")));
                self.slow.push(stream);
            }
            others.is_empty().then_some(())
        });
    }

    /// Workers that do not attack answer whom they have, and so does the admin process.
    #[track_caller]
    pub(super) fn others_answer(&mut self, attackers: &[Pid], siblings: Siblings) {
        match siblings {
            Siblings::GoOn => {
                for (pid, client) in &mut self.clients[2..] {
                    for _ in 0..3 {
                        let answerer = client.try_get("/").map(|answer| answer.worker());
                        if answerer.as_ref().is_ok_and(|answerer| answerer == pid) {
                            continue;
                        }
                        // The pool replaces who shares what was shut down, and that one passes on what is idle.
                        let what = format!("{pid} is replaced; {answerer:?} answers, of the attackers {attackers:?}");
                        let is_replaced = "recycled: it cannot accept on one of its sockets";
                        until(&what, || (self.server.count(is_replaced) > 0).then_some(()));
                        assert!(answerer.is_ok_and(|answerer| !attackers.contains(&answerer)), "{what}");
                        break;
                    }
                }
            }
            Siblings::AreReplaced => {
                let port = self.server.port();
                let mut workers = BTreeSet::new();
                until("two workers that do not attack answer new clients", || {
                    let worker = worker_of(port).filter(|pid| !attackers.contains(pid));
                    workers.extend(worker);
                    (workers.len() >= 2).then_some(())
                });
            }
            Siblings::AreCutOff => {}
        }
        for path in ["/status.json", "/metrics", "/healthz"] {
            // It may have been replaced as well, where signals reach it.
            let answer = until("the admin process answers", || ask(self.admin, path));
            assert_eq!(answer, 200, "{path}");
        }
    }

    #[track_caller]
    pub(super) fn parent_is_well(&mut self, before: &Parent) {
        assert!(self.parent().time >= before.time);
        // What has just happened may have given it something to do; for ever it may not.
        until("the parent takes less than 5 % of a processor", || {
            let earlier = self.parent();
            thread::sleep(Duration::from_millis(200));
            (self.parent().time - earlier.time <= Duration::from_millis(10)).then_some(())
        });
        let bytes: usize = self.server.log().iter().map(|line| line.len() + 1).sum();
        assert!(bytes < 1 << 20, "the log has {bytes} bytes");
        let text = "stops accepting until a descriptor is free";
        assert_eq!(self.server.count(text), 0, "one listener's error is no lack of descriptors");
    }

    /// Once the attackers are killed and a rolling restart is done, all four slots serve whoever comes.
    #[track_caller]
    pub(super) fn is_repaired(&mut self, attackers: &[Pid]) {
        for pid in attackers {
            // It may be dead, and its place taken by a worker that is as good as any.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        self.clients.clear();
        self.idle.clear();
        self.slow.clear();
        self.server.log();
        self.server.signal(Signal::SIGHUP);
        self.server.wait_for("rolling restart done");
        let (mut slots, mut kept) = (BTreeSet::new(), Vec::new());
        // Which one gets a connection is the kernel's choice, and a neighbour may take it; so there is no number of
        // them after which each must have had one. But each must come to it.
        until("all four slots serve", || {
            let mut client = self.server.connect();
            let answer = client.get("/");
            assert_eq!(answer.status, 200);
            slots.insert(answer.field("x-slot").expect("it says its slot").to_owned());
            kept.push(client);
            (kept.len() >= 100 && slots.len() == 4).then_some(())
        });
    }

    /// As many descriptors as before, once what is replaced is gone.
    #[track_caller]
    pub(super) fn holds_nothing_more(&self, before: &Parent) {
        let what = format!("the parent holds at most {} descriptors, as before", before.descriptors);
        until(&what, || (self.parent().descriptors <= before.descriptors).then_some(()));
    }

    #[track_caller]
    pub(super) fn ends(mut self) {
        self.server.signal(Signal::SIGTERM);
        assert_eq!(self.server.wait().code(), Some(0));
    }

    #[track_caller]
    pub(super) fn parent(&self) -> Parent {
        let pid = self.server.pid();
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("the parent lives");
        let fields: Vec<&str> = stat.rsplit(") ").next().expect("a state").split(' ').collect();
        assert_ne!(fields[0], "Z", "the parent lives");
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).expect("the parent lives").count();
        // In nanoseconds (proc(5), schedstat), where there is just one thread.
        let schedule = fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("the parent lives");
        let time = schedule.split(' ').next().and_then(|time| time.parse().ok()).expect("a number");
        Parent { descriptors, time: Duration::from_nanos(time) }
    }
}

/// The status of a page of the admin process; `None` without any.
fn ask(port: u16, path: &str) -> Option<u16> {
    answer(port, path)?.split(' ').nth(1)?.parse().ok()
}

/// The worker that answers a new client, if one does.
fn worker_of(port: u16) -> Option<Pid> {
    let answer = answer(port, "/")?;
    let pid = answer.lines().find_map(|line| line.strip_prefix("X-Pid: "))?;
    pid.parse().ok().map(Pid::from_raw)
}
