//! Kept connections outlive the worker that serves them: none is closed by a restart, an upgrade or scaling.

mod support;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use support::{example, is_gone, until, Server};

/// Waits until all of these have exited, which a worker does as soon as it has no connections left.
#[track_caller]
fn until_gone(workers: &[Pid]) {
    until("the old workers are gone", || workers.iter().all(|worker| is_gone(*worker)).then_some(()));
}

/// A server of one's own, over restarts, scaling and an upgrade.
#[test]
fn a_server_of_ones_own_can_pass_them_on() {
    let mut command = example("handover");
    command.env("FORKPOOL_WORKERS", "2").env("FORKPOOL_REBALANCE", "off");
    let mut server = Server::start_silent(command);
    let mut clients: Vec<_> = (0..20).map(|_| server.connect()).collect();
    let mut ask = |wanted: &dyn Fn(&str) -> bool| {
        for client in &mut clients {
            let answer = client.get("/");
            assert!(wanted(answer.text()), "{answer:?}");
        }
    };
    ask(&|worker| worker.ends_with(" generation 1\n"));
    let old = server.workers();
    server.signal(Signal::SIGHUP);
    until_gone(&old);
    ask(&|worker| worker.ends_with(" generation 2\n"));
    server.signal(Signal::SIGTTOU);
    until("one has left", || (server.workers().len() == 1).then_some(()));
    ask(&|worker| worker == "worker 0 generation 2\n");
    let old = server.workers();
    server.signal(Signal::SIGUSR2);
    until_gone(&old);
    ask(&|worker| worker.ends_with(" generation 1\n"));
}
