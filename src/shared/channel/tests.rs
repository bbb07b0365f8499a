//! Both ends in one process.

use super::*;

fn both(addresses: usize, makes_sockets: bool) -> (ParentEnd, WorkerEnd) {
    channel(addresses, makes_sockets).expect("descriptors are free")
}

#[test]
fn made_sockets_come_up_once_and_with_their_addresses() {
    let (mut parent, worker) = both(3, true);
    let (one, other) = UnixDatagram::pair().expect("descriptors are free");
    worker.listening(&[(0, one.as_fd()), (2, other.as_fd())]).expect("the parent is there");
    assert_eq!(parent.read_reports(Time::default()).records, [Record::Listening]);
    let made = parent.take_made().expect("as agreed");
    assert_eq!(made.iter().map(|(address, _)| *address).collect::<Vec<_>>(), [0, 2]);
    assert!(parent.take_made().expect("there is no socket any more").is_empty());
}

#[test]
fn sockets_that_are_handed_over_wrongly_are_refused() {
    let (socket, _other) = UnixDatagram::pair().expect("descriptors are free");
    let socket = socket.as_fd();
    for (messages, problem) in [
        (&[][..], "as agreed"),
        (&[(&[0, 0, 1, 0][..], 1)][..], "as agreed"),
        (&[(&[0][..], 1)], "as agreed"),
        (&[(&[0, 0][..], 1), (&[1, 0], 1)], "as agreed"),
        (&[(&[1, 0, 0, 0][..], 2)], "does not have"),
        (&[(&[0, 0, 2, 0][..], 2)], "does not have"),
    ] {
        let (mut parent, worker) = both(2, true);
        let birth = worker.birth.take().expect("it was asked for");
        for (bytes, count) in messages {
            send(&birth, bytes, &vec![socket; *count]).expect("the parent is there");
        }
        let (said, fds) = parent.take_made().expect_err("it is wrong");
        assert!(said.contains(problem), "{messages:?}: {said}");
        assert_eq!(fds.len(), messages.iter().map(|(_, count)| count).sum::<usize>(), "all come back");
    }
}

#[test]
fn nothing_else_carries_a_descriptor_up() {
    let (parent, worker) = both(2, false);
    let (socket, _other) = UnixDatagram::pair().expect("descriptors are free");
    assert_eq!(send(&worker.stream, b"x", &[socket.as_fd()]).map_err(|error| error.kind()), Err(ErrorKind::BrokenPipe));
    assert_eq!(send(&worker.orders, b"x", &[socket.as_fd()]).map_err(|error| error.kind()), Err(ErrorKind::BrokenPipe));
    assert!(worker.birth.take().is_none());
    drop(parent);
}

#[test]
fn the_lifeline_is_readable_when_it_ends_and_not_before() {
    let (parent, worker) = both(1, false);
    let ready = |stream: &UnixStream| {
        let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).expect("a descriptor") > 0
    };
    worker.ready().expect("there is room");
    assert!(!ready(&worker.stream));
    parent.close();
    assert!(ready(&worker.stream));
    assert_eq!((&*worker.stream).read(&mut [0]).expect("the end"), 0);
    worker.released();
    assert!(!parent.ends_within(Duration::ZERO), "it still has something to say");
    drop(worker);
    assert!(parent.ends_within(Duration::from_secs(10)));
}

#[test]
fn a_flood_breaks_the_protocol_once_and_makes_nobody_wait() {
    let (mut parent, worker) = both(0, false);
    while worker.say(&[b'-'; 4096]).is_ok() {}
    let reports = parent.read_reports(Time::default());
    assert_eq!((reports.records, reports.violation), (vec![], Some(Violation::Unknown(b'-'))));
    while worker.say(&[b'-'; 4096]).is_ok() {}
    for _ in 0..3 {
        let reports = parent.read_reports(Time::default());
        assert_eq!((reports.records, reports.violation), (vec![], None));
    }
}

#[test]
fn an_order_whose_sockets_find_no_place_is_lost_alone() {
    let (parent, worker) = both(2, false);
    let (socket, _other) = UnixDatagram::pair().expect("descriptors are free");
    parent.watch(3, &[socket.as_fd()]).expect("there is room");
    assert!(matches!(worker.order(), Some(Order::Watch { slot: 3, sockets }) if sockets.len() == 1));
    assert!(worker.order().is_none());
}
