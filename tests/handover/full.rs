//! An upgrade to a pool that has room for fewer connections than are kept.

use std::collections::BTreeMap;
use std::net::TcpStream;

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use crate::support::{children, is_gone, testbed, until, Client};
use crate::until_gone;

/// How many connections each worker has, and how many each worker of the new pool may have.
const KEPT: usize = 4;
const ROOM: usize = 2;

/// What there is room for moves. The rest gets a last response, or is closed when it is idle, and nobody holds a copy.
#[test]
fn an_upgrade_whose_workers_get_more_than_they_may_have_keeps_what_there_is_room_for() {
    let mut server = testbed(&[("TESTBED", "small-successor"), ("FORKPOOL_REBALANCE", "off")]);
    let mut kept: BTreeMap<Pid, Vec<Client<TcpStream>>> = BTreeMap::new();
    until("both have as many", || {
        let mut client = server.connect();
        let clients = kept.entry(client.get("/").worker()).or_default();
        clients.push(client);
        clients.truncate(KEPT);
        (kept.len() == 2 && kept.values().all(|clients| clients.len() == KEPT)).then_some(())
    });
    let (pool, old) = (server.pid(), server.workers());
    server.signal(Signal::SIGUSR2);
    let line = server.wait_for("upgrade done: pid=");
    until_gone(&old);
    until("the old pool has ended", || is_gone(pool).then_some(()));
    let new = line.split("pid=").nth(1).and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    let new = Pid::from_raw(new.expect("a pid"));
    let workers = children(new);
    let mut stays = 0;
    for client in kept.values_mut().flatten() {
        match client.try_get("/") {
            Ok(answer) => {
                assert!(answer.status == 200 && workers.contains(&answer.worker()), "{answer:?}");
                stays += usize::from(!answer.closes());
            }
            Err(error) => assert_ne!(error.raw_os_error(), Some(libc::EAGAIN), "it is open, and nobody serves it"),
        }
    }
    assert_eq!(stays, 2 * ROOM);
    kill(new, Signal::SIGTERM).expect("it runs");
    until("it is gone", || is_gone(new).then_some(()));
}
