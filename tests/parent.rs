//! The parent as a process among others: it is killed, it is PID 1, it has an embedder's children beside its own.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{kill, Signal};
use support::{binary, children, example, is_gone, skip, testbed, until, Server};

#[test]
fn workers_end_with_a_killed_parent_and_free_the_port() {
    // Not one that the kernel chooses, which could be another test's as soon as it is free.
    let port = support::sockets::unused_port();
    let mut server = testbed(&[("FORKPOOL_LISTEN", &format!("127.0.0.1:{port}"))]);
    let workers = server.workers();
    server.signal(Signal::SIGKILL);
    server.wait();
    until("the workers are gone", || workers.iter().all(|pid| is_gone(*pid)).then_some(()));
    TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
}

#[test]
fn workers_of_a_killed_parent_finish_what_they_have() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1")]);
    let port = server.port();
    let mut client = server.connect();
    client.send("POST /slow?ms=1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
    assert_eq!(client.answer().status, 100);
    server.signal(Signal::SIGKILL);
    support::until_closed(port);
    client.send("x");
    let answer = client.answer();
    assert_eq!((answer.status, answer.closes()), (200, true));
    until("the worker is gone", || is_gone(answer.worker()).then_some(()));
}

#[test]
fn workers_of_a_killed_parent_do_not_outlive_the_drain() {
    support::ends_with_its_parent_in_time(Server::spawn(support::with_a_short_drain()));
}

#[test]
fn a_connection_is_served_whose_wake_up_a_killed_worker_has_taken_along() {
    let path = support::fresh_path("exclusive.sock");
    let mut command = example("exclusive");
    command.env("FORKPOOL_LISTEN", format!("unix:{}", path.display()));
    command.env("FORKPOOL_WORKERS", "2").env("FORKPOOL_BOOT_TIMEOUT", "0");
    let _server = Server::start(command);
    let mut client = UnixStream::connect(&path).expect("it listens");
    client.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("the other worker serves");
    assert!(answer.ends_with("served\n"), "{answer}");
}

#[test]
fn an_embedders_child_is_left_to_it() {
    let mut server = testbed(&[("TESTBED", "child")]);
    // Not the first of its children, which may be the other one.
    let worker = server.get("/").worker();
    kill(worker, Signal::SIGKILL).expect("it runs");
    server.wait_for(" gen=2 ");
    server.signal(Signal::SIGTERM);
    let (status, log) = server.finish();
    assert_eq!(status.code(), Some(0));
    assert!(log.iter().any(|line| line == "own child: exit status: 0"), "{log:?}");
}

#[test]
fn a_second_thread_is_refused() {
    let mut command = example("testbed");
    command.env("TESTBED", "thread");
    let (status, log) = Server::spawn(command).finish();
    assert_eq!(status.code(), Some(1));
    assert!(log.last().is_some_and(|line| line.contains("cannot fork: the process has 2 threads")), "{log:?}");
}

#[test]
fn as_pid_1_it_reaps_orphans_and_its_workers() {
    let privileged = Command::new("unshare").args(["--pid", "--fork", "--mount-proc", "true"]).output();
    if !privileged.is_ok_and(|output| output.status.success()) {
        return skip("no privilege, or no unshare(1), for a new PID namespace");
    }
    let program = example("testbed");
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(program.get_program());
    command.envs([("FORKPOOL_LISTEN", "127.0.0.1:0"), ("FORKPOOL_WORKERS", "1"), ("RUST_LOG", "debug")]);
    let mut server = Server::start(command);
    let first = children(server.pid())[0];
    // A shell in the namespace that leaves an orphan behind, whose new parent is PID 1. How one ends does not matter:
    // the first of these signals has a name, and the other, a real-time one, has none.
    let target = first.to_string();
    for end in ["exec true", "kill -9 $$", "kill -40 $$"] {
        let orphan = Command::new("nsenter")
            .args(["--target", &target, "--pid", "sh", "-c", &format!("sh -c '{end}' & exit 0")])
            .status()
            .expect("nsenter comes with unshare");
        assert!(orphan.success());
        server.wait_for("reaped orphan");
    }
    // Its own workers are told apart from them.
    let worker = children(first)[0];
    kill(worker, Signal::SIGKILL).expect("it runs");
    server.wait_for("killed by SIGKILL");
    server.wait_for(" gen=2 ");
    assert_eq!(server.get("/").status, 200);
    kill(first, Signal::SIGTERM).expect("it runs");
    server.wait_for("stopped");
}

#[test]
fn the_number_of_workers_follows_the_affinity() {
    let mut command = Command::new("taskset");
    command.args(["-c", "0"]).arg(binary().get_program());
    command.envs(binary().get_envs().filter_map(|(name, value)| Some((name, value?))));
    if Command::new("taskset").arg("-V").output().is_err() {
        return skip("no taskset(1)");
    }
    let mut server = Server::spawn(command);
    server.wait_for("with 1 worker: 1 CPU by affinity");
    assert_eq!(server.workers().len(), 1);
}

/// For how many milliseconds a process waits in its loop at most (epoll_wait(2) is number 232 here); `None` while it
/// does something else.
#[cfg(target_arch = "x86_64")]
fn wait_of(pid: nix::unistd::Pid) -> Option<u32> {
    let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).ok()?;
    let timeout = call.strip_prefix("232 ")?.split(' ').nth(3)?;
    Some(u64::from_str_radix(timeout.trim_start_matches("0x"), 16).ok()? as u32)
}

#[test]
#[cfg(target_arch = "x86_64")]
fn it_sleeps_while_a_server_of_ones_own_drains() {
    let hour = ("FORKPOOL_DRAIN_TIMEOUT", "1h");
    let mut server = testbed(&[("TESTBED", "plain"), ("FORKPOOL_WORKERS", "1"), hour]);
    // One is waited for, the others wait in the queue, at which the parent looks every few milliseconds.
    let clients = [server.connect(), server.connect(), server.connect()];
    until("it looks at the queue", || wait_of(server.pid()).filter(|wait| *wait <= 5));
    server.signal(Signal::SIGTERM);
    server.wait_for("draining: SIGTERM");
    until("it sleeps", || wait_of(server.pid()).filter(|wait| *wait > 5));
    drop(clients);
    assert_eq!(server.wait().code(), Some(0));
}

/// A control group, removed at the end.
struct ControlGroup(std::path::PathBuf);

impl ControlGroup {
    /// With so many thousandths of a CPU. `None` where control groups cannot be made.
    fn with_quota(name: &str, thousandths: u32) -> Option<ControlGroup> {
        let quota = (thousandths * 100).to_string();
        let both = format!("{quota} 100000");
        ControlGroup::new(name, "cpu", &[("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", &quota)])
            .or_else(|| ControlGroup::new(name, "", &[("cpu.max", &both)]))
    }

    /// With this CPU alone. `None` where control groups cannot be made.
    fn with_cpu(name: &str, cpu: usize) -> Option<ControlGroup> {
        let cpu = cpu.to_string();
        ControlGroup::new(name, "cpuset", &[("cpuset.cpus", &cpu), ("cpuset.mems", "0")])
            .or_else(|| ControlGroup::new(name, "", &[("cpuset.cpus", &cpu)]))
    }

    /// Version 1 has a hierarchy for each controller, version 2 one for all of them.
    fn new(name: &str, controller: &str, files: &[(&str, &str)]) -> Option<ControlGroup> {
        let name = format!("forkpool-test-{}-{name}", std::process::id());
        let directory = std::path::Path::new("/sys/fs/cgroup").join(controller).join(name);
        std::fs::create_dir(&directory).ok()?;
        let group = ControlGroup(directory);
        files.iter().all(|(file, value)| std::fs::write(group.0.join(file), value).is_ok()).then_some(group)
    }

    fn take(&self, pid: nix::unistd::Pid) {
        std::fs::write(self.0.join("cgroup.procs"), pid.to_string()).expect("the group takes it");
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let removed =
            || std::fs::remove_dir(&self.0).map_or_else(|e| e.kind() == std::io::ErrorKind::NotFound, |()| true);
        until("the group is empty", || removed().then_some(()));
    }
}

#[test]
fn the_number_of_workers_follows_the_quota() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        return skip("one CPU has no quota to show");
    }
    let Some(group) = ControlGroup::with_quota("count", 1000) else {
        return skip("no privilege to make a control group with a CPU quota");
    };
    let program = binary();
    let mut command = Command::new("sh");
    let join = format!("echo $$ >{}/cgroup.procs && exec \"$0\" --check", group.0.display());
    command.args(["-c", &join]).arg(program.get_program());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let (status, log) = Server::spawn(command).finish();
    assert_eq!(status.code(), Some(0), "{log:?}");
    let line = log.last().expect("a line");
    assert!(line.contains("1 worker: ") && line.ends_with("limited to 1 by the cgroup's CPU quota"), "{line}");
}

/// Three times as long as a worker may hang, but with a hundredth of a CPU: nothing is wrong with it.
#[test]
fn a_starved_worker_does_not_hang() {
    let Some(group) = ControlGroup::with_quota("starve", 10) else {
        return skip("no privilege to make a control group with a CPU quota");
    };
    let mut server = testbed(&[("FORKPOOL_WORKERS", "1"), ("FORKPOOL_STALL_TIMEOUT", "500ms")]);
    let worker = server.workers()[0];
    group.take(worker);
    assert_eq!(server.get("/burn?ms=1500").worker(), worker);
    assert_eq!(server.count("stall-timeout"), 0);
    server.signal(Signal::SIGKILL);
    kill(worker, Signal::SIGKILL).expect("it runs");
    until("it is gone", || is_gone(worker).then_some(()));
}

/// As when a container's CPUs are changed while it runs.
#[test]
fn a_worker_whose_cpu_has_gone_serves_on_another() {
    let cpus = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).expect("a set of CPUs");
    let mut cpus = (0..nix::sched::CpuSet::count()).filter(|cpu| cpus.is_set(*cpu).unwrap_or_default());
    let (Some(first), Some(_)) = (cpus.next(), cpus.next()) else { return skip("there is one CPU") };
    let Some(group) = ControlGroup::with_cpu("gone", first) else {
        return skip("no privilege to make a control group with a set of CPUs");
    };
    let mut server = testbed(&[("FORKPOOL_PIN", "yes"), ("FORKPOOL_WORKERS", "2")]);
    group.take(server.pid());
    // In the order of their slots.
    kill(server.workers()[1], Signal::SIGKILL).expect("it runs");
    server.wait_for(" is not pinned to CPU ");
    server.wait_for("worker=1 gen=2 ");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_pid_file_is_there_while_the_pool_is() {
    let path = support::fresh_path("parent.pid");
    let mut server = testbed(&[("FORKPOOL_PID_FILE", path.to_str().expect("UTF-8"))]);
    let written = std::fs::read_to_string(&path).expect("it is written");
    assert_eq!(written, format!("{}\n", server.pid()));
    // A worker's death must not remove it.
    kill(server.workers()[0], Signal::SIGTERM).expect("it runs");
    server.wait_for(" gen=2 ");
    assert!(path.exists());
    server.signal(Signal::SIGTERM);
    server.wait();
    assert!(!path.exists());
}

#[test]
fn workers_run_as_who_they_are_told_to() {
    if !nix::unistd::Uid::effective().is_root() {
        return skip("not root");
    }
    let mut server = testbed(&[("FORKPOOL_USER", "nobody"), ("FORKPOOL_WORKERS", "1")]);
    let owner = |pid: nix::unistd::Pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let ids = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).expect("a line of it");
            line.split_whitespace().skip(1).map(str::to_owned).collect::<Vec<_>>()
        };
        (ids("Uid:"), ids("Gid:"), ids("Groups:"))
    };
    let nobody = nix::unistd::User::from_name("nobody").expect("a user database").expect("nobody");
    for generation in 1..=2 {
        let worker = server.workers()[0];
        let (uids, gids, groups) = owner(worker);
        assert!(uids.iter().all(|uid| *uid == nobody.uid.to_string()), "{uids:?}");
        assert!(gids.iter().all(|gid| *gid == nobody.gid.to_string()), "{gids:?}");
        assert_eq!(groups, [nobody.gid.to_string()]);
        assert_eq!(server.get("/").status, 200);
        // Its successor inherits the socket that root bound.
        kill(worker, Signal::SIGKILL).expect("it runs");
        server.wait_for(&format!(" gen={} ", generation + 1));
    }
}

/// The command line of a process, with its zeros as blanks, and its short name.
fn shown(pid: nix::unistd::Pid) -> (String, String) {
    let read = |name: &str| std::fs::read(format!("/proc/{pid}/{name}")).expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text").trim_end_matches(['\0', '\n']).to_owned();
    (text(read("cmdline")).replace('\0', " "), text(read("comm")))
}

#[test]
fn processes_have_titles_while_the_pool_runs() {
    let mut server = testbed(&[("TESTBED", "goes-on"), ("FORKPOOL_WORKERS", "2")]);
    let (parent, comm) = shown(server.pid());
    assert_eq!(comm, "testbed", "whoever looks for the parent by its name still finds it, and it alone");
    let mut workers: Vec<_> = server.workers().into_iter().map(shown).collect();
    workers.sort();
    if workers[0].0 == parent {
        return skip("a kernel without CONFIG_CHECKPOINT_RESTORE, on which a command line stays as it is");
    }
    assert!(parent.starts_with("testbed: parent, ") && parent.ends_with("/testbed"), "{parent}");
    let expected = |slot: usize| (format!("testbed: worker {slot} gen 1"), format!("testbed:{slot}"));
    assert_eq!(workers, [expected(0), expected(1)]);
    server.signal(Signal::SIGTERM);
    server.wait_for("the pool is over, and the process goes on");
    let (after, _) = shown(server.pid());
    assert!(after.ends_with("/testbed") && !after.contains("parent"), "{after}");
    server.signal(Signal::SIGKILL);
    server.wait();
}

#[test]
fn the_heap_of_a_process_that_goes_on_is_as_the_pool_has_left_it() {
    let mut server = testbed(&[("TESTBED", "heap")]);
    server.signal(Signal::SIGTERM);
    server.wait_for("the heap is sound");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn processes_keep_their_command_line_without_titles() {
    let server = testbed(&[("FORKPOOL_PROCESS_TITLES", "no")]);
    let parent = shown(server.pid());
    assert!(parent.0.ends_with("/testbed") && server.workers().into_iter().all(|worker| shown(worker) == parent));
}
