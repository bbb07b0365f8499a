//! Connections that pass from one server to another.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use super::{until_queued, Bed};
use crate::server::answer::response::Response;
use crate::shared::handover::plan::Selection;
use crate::shared::handover::record::RECORD_MAX;
use crate::shared::handover::{Pair, Receiver, Record, Sender, Sent, Taken};
use crate::sys::{clock, fds};

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n";

fn listener() -> TcpListener {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    listener
}

fn connect(listener: &TcpListener, says: &[u8]) -> TcpStream {
    let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    client.write_all(says).expect("sent");
    client.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
    client
}

/// Both sides of a connection.
fn pair_of(listener: &TcpListener, says: &[u8]) -> (TcpStream, TcpStream) {
    let client = connect(listener, says);
    loop {
        if let Ok((accepted, _)) = listener.accept() {
            return (client, accepted);
        }
    }
}

/// One response without a body.
fn head_of(client: &mut TcpStream) -> String {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).expect("a response");
        head.extend(byte);
    }
    String::from_utf8(head).expect("ASCII")
}

fn sender(pair: &Pair) -> Sender {
    pair.sender().try_clone_to_owned().expect("a descriptor").into()
}

fn receiver(pair: &Pair) -> Receiver {
    pair.receiver().try_clone_to_owned().expect("a descriptor").into()
}

fn send(pair: &Pair, record: &[u8], socket: impl AsFd) {
    assert_eq!(sender(pair).send(record, socket.as_fd()), Sent::Done);
}

fn record(requests: u32, unread: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert!(Record { requests, is_new: requests == 0, unread, ..Record::default() }.encode(&mut bytes));
    bytes
}

/// What is in the queue.
fn passed(pair: &Pair) -> Vec<(u32, OwnedFd)> {
    let (receiver, mut bytes) = (receiver(pair), vec![0; RECORD_MAX]);
    std::iter::from_fn(|| match receiver.take(&mut bytes) {
        Taken::Record(len, socket) => Some((Record::decode(&bytes[..len]).expect("a record").requests, socket)),
        _ => None,
    })
    .collect()
}

#[test]
fn a_server_that_leaves_passes_all_on_and_the_next_one_serves_them() {
    let (listener, pair) = (listener(), Pair::new().expect("a pair"));
    let mut asking = connect(&listener, REQUEST);
    let mut halfway = connect(&listener, b"GET /b HTTP/1.1\r\nHo");
    let mut silent = connect(&listener, b"");
    until_queued(&listener, 3);
    let bed = Bed::new();
    bed.serve(vec![listener.try_clone().expect("a descriptor")], |_| {
        bed.parent.hand_over(0, pair.sender()).expect("there is room");
        bed.parent.close();
        Response::new(204)
    });
    let head = head_of(&mut asking);
    assert!(head.starts_with("HTTP/1.1 204 ") && !head.contains("Connection"), "{head}");
    let counters = bed.board.row(1).counters(clock::now());
    assert_eq!((counters.handed, counters.closed, counters.open()), (3, 0, 0));

    halfway.write_all(b"st: x\r\n\r\n").expect("sent");
    silent.write_all(REQUEST).expect("sent");
    asking.write_all(REQUEST).expect("sent");
    let bed = Bed::new();
    *bed.handover.borrow_mut() = Some(receiver(&pair));
    let mut paths = Vec::new();
    bed.serve(vec![listener], |request| {
        paths.push(request.path().to_owned());
        if paths.len() == 3 {
            bed.parent.close();
        }
        Response::new(204)
    });
    paths.sort_unstable();
    assert_eq!(paths, ["/a", "/a", "/b"]);
    let heads = [&mut asking, &mut halfway, &mut silent].map(head_of);
    assert!(heads.iter().all(|head| head.starts_with("HTTP/1.1 204 ") && !head.contains("Connection")), "{heads:?}");
    let counters = bed.board.row(1).counters(clock::now());
    assert_eq!((counters.taken, counters.accepted, counters.open()), (3, 0, 0));
}

#[test]
fn unread_bytes_and_the_number_of_requests_go_along() {
    let (listener, pair) = (listener(), Pair::new().expect("a pair"));
    let mut bed = Bed::new();
    bed.config.server.limits.requests = 5;
    let (mut client, accepted) = pair_of(&listener, b"st: x\r\n\r\n");
    send(&pair, &record(3, b"GET /half HTTP/1.1\r\nHo"), &accepted);
    drop(accepted);
    *bed.handover.borrow_mut() = Some(receiver(&pair));
    bed.serve(vec![listener], |request| {
        match request.path() {
            // The fourth.
            "/half" => client.write_all(REQUEST).expect("sent"),
            // The fifth is the last one.
            _ => bed.parent.close(),
        }
        Response::new(204)
    });
    let mut answers = String::new();
    client.read_to_string(&mut answers).expect("the server closes");
    assert_eq!((answers.matches("HTTP/1.1 204 ").count(), answers.matches("Connection: close").count()), (2, 1));
}

#[test]
fn junk_is_dropped_and_harms_nobody() {
    let (listener, pair) = (listener(), Pair::new().expect("a pair"));
    let (mut client, accepted) = pair_of(&listener, b"");
    let strangers = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (_stranger, strange) = pair_of(&strangers, REQUEST);
    let (unix, _other) = UnixStream::pair().expect("a socket pair");
    let good = record(1, REQUEST);
    let mut unknown = good.clone();
    unknown[0] = 77;
    send(&pair, &good, &listener);
    send(&pair, &good, &strange);
    send(&pair, &good, &unix);
    send(&pair, &good, std::io::stdin());
    send(&pair, &unknown, &accepted);
    send(&pair, b"?", &accepted);
    send(&pair, &good, &accepted);
    drop(accepted);
    let bed = Bed::new();
    *bed.handover.borrow_mut() = Some(receiver(&pair));
    let mut count = 0;
    bed.serve(vec![listener], |_| {
        count += 1;
        bed.parent.close();
        Response::new(204)
    });
    assert!(count == 1 && head_of(&mut client).starts_with("HTTP/1.1 204 "));
    let counters = bed.board.row(1).counters(clock::now());
    assert_eq!((counters.discarded, counters.taken, counters.open()), (6, 1, 0));
}

/// As when the new workers of an upgrade are at their limit.
#[test]
fn a_server_without_room_gives_those_that_have_asked_a_last_response() {
    let (listener, pair) = (listener(), Pair::new().expect("a pair"));
    let mut bed = Bed::new();
    bed.config.server.capacity.max_connections = 1;
    let (mut idle, first) = pair_of(&listener, b"");
    let (mut asking, second) = pair_of(&listener, b"st: x\r\n\r\n");
    send(&pair, &record(1, b""), &first);
    send(&pair, &record(1, b"GET /half HTTP/1.1\r\nHo"), &second);
    drop((first, second));
    let mut kept = connect(&listener, REQUEST);
    until_queued(&listener, 1);
    *bed.handover.borrow_mut() = Some(receiver(&pair));
    bed.serve(vec![listener], |request| {
        if request.path() == "/half" {
            bed.parent.close();
        }
        Response::new(204)
    });
    assert!(head_of(&mut asking).contains("Connection: close\r\n"));
    assert!(!head_of(&mut kept).contains("Connection"), "it stays");
    assert_eq!(idle.read(&mut [0]).expect("it was closed"), 0);
    let counters = bed.board.row(1).counters(clock::now());
    assert_eq!((counters.taken, counters.accepted, counters.open()), (1, 1, 0));
}

/// The sender keeps a copy of the socket, and makes it blocking after it was checked.
#[test]
fn no_call_on_a_connection_that_was_passed_on_blocks() {
    let path = std::env::temp_dir().join(format!("forkpool-taken-{}", std::process::id()));
    std::fs::write(&path, vec![b'f'; 16 << 20]).expect("a file");
    for is_file in [false, true] {
        let (listener, pair) = (listener(), Pair::new().expect("a pair"));
        let (mut client, copy) = pair_of(&listener, b"");
        send(&pair, &record(1, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"), &copy);
        fds::set_nonblocking(&copy, false).expect("a socket");
        let bed = Bed::new();
        *bed.handover.borrow_mut() = Some(receiver(&pair));
        let mut other = bed.client();
        let (go, may_read) = mpsc::channel();
        let reader = thread::spawn(move || {
            may_read.recv().expect("the other request was answered");
            let mut all = Vec::new();
            client.read_to_end(&mut all).expect("the server closes");
            all.len()
        });
        bed.serve(vec![listener], |request| {
            if request.path() == "/large" {
                // Its client reads nothing until this one is served.
                other.write_all(REQUEST).expect("sent");
                return match is_file {
                    true => Response::file(request, &path).expect("a file"),
                    false => Response::bytes("text/plain", vec![b'b'; 16 << 20]),
                };
            }
            go.send(()).expect("it waits");
            bed.parent.close();
            // The end of this copy ends the connection.
            copy.shutdown(std::net::Shutdown::Read).expect("a socket");
            Response::new(204)
        });
        drop(copy);
        assert!(reader.join().expect("it has read") > 16 << 20, "{is_file}");
    }
    std::fs::remove_file(path).expect("it is there");
}

#[test]
fn a_receiver_that_takes_nothing_delays_the_end_by_less_than_the_drain() {
    let (listener, pair) = (listener(), Pair::new().expect("a pair"));
    socket2::SockRef::from(&pair.sender()).set_send_buffer_size(1).expect("a socket");
    let clients: Vec<TcpStream> = (0..40).map(|_| connect(&listener, b"")).collect();
    until_queued(&listener, 40);
    let bed = Bed::new();
    bed.parent.hand_over(0, pair.sender()).expect("there is room");
    bed.parent.close();
    bed.serve(vec![listener], |_| Response::new(204));
    let counters = bed.board.row(1).counters(clock::now());
    let queued = passed(&pair);
    assert!(!queued.is_empty() && counters.handed == queued.len() as u64, "{counters:?}");
    assert_eq!((counters.handed + counters.closed, counters.open()), (40, 0));
    drop(queued);
    for mut client in clients {
        assert_eq!(client.read(&mut [0]).expect("each has ended"), 0);
    }
}

/// Serves a client that always has a request in progress, and is ordered meanwhile to move `part` of the connections.
fn serve_and_move(bed: &Bed, listener: TcpListener, part: Selection, to: &Pair) {
    let mut asking = bed.client();
    asking.write_all(REQUEST).expect("sent");
    let mut requests = 0;
    bed.serve(vec![listener], |_| {
        requests += 1;
        match requests {
            5 => bed.parent.move_some(3, part, to.sender()).expect("there is room"),
            // The order was obeyed in an earlier turn.
            10 => bed.parent.close(),
            _ => {}
        }
        asking.write_all(REQUEST).expect("sent");
        Response::new(204)
    });
}

#[test]
fn a_server_moves_as_many_as_it_is_asked_to() {
    let (listener, pair) = (listener(), Pair::new().expect("a pair"));
    let clients: Vec<TcpStream> = (0..8).map(|_| connect(&listener, b"")).collect();
    until_queued(&listener, 8);
    let bed = Bed::new();
    serve_and_move(&bed, listener, Selection::Any(5), &pair);
    assert_eq!(passed(&pair).len(), 5);
    let counters = bed.board.row(1).counters(clock::now());
    assert_eq!((counters.handed, counters.open()), (5, 0));
    drop(clients);
}

/// Six connections have waited for long, and four and the client's have not.
#[test]
fn a_server_moves_a_part_of_its_busy_connections() {
    let (listener, own, other) = (listener(), Pair::new().expect("a pair"), Pair::new().expect("a pair"));
    let mut clients = Vec::new();
    for seconds in [60, 0, 60, 60, 0, 0, 60, 60, 0, 60] {
        let (client, accepted) = pair_of(&listener, b"");
        let mut bytes = Vec::new();
        let waited = Duration::from_secs(seconds);
        assert!(Record { requests: 1 + seconds as u32, waited, ..Record::default() }.encode(&mut bytes));
        send(&own, &bytes, &accepted);
        clients.push(client);
    }
    let mut bed = Bed::new();
    bed.config.server.timeouts.idle = Duration::ZERO;
    *bed.handover.borrow_mut() = Some(receiver(&own));
    serve_and_move(&bed, listener, Selection::Busy(400), &other);
    let requests: Vec<u32> = passed(&other).into_iter().map(|(requests, _)| requests).collect();
    assert_eq!(requests, [1, 1]);
}
