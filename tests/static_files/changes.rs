//! Files that change, before a request and under its answer.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;

use nix::sys::signal::Signal;

use super::{ask, Site};
use crate::support::{self, Client, Server};

/// Large enough not to fit into the sockets' buffers.
const LARGE: usize = 64 << 20;

#[test]
fn an_answer_that_has_begun_is_of_the_file_that_was_there() {
    let site = Site::new("replaced");
    let path = site.write("large", vec![b'a'; LARGE]);
    let mut server = site.serve(&[]);
    let mut client = server.connect();
    client.send("GET /large HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut begin = [0; 15];
    client.read(&mut begin);
    assert_eq!(&begin, b"HTTP/1.1 200 OK");
    fs::rename(site.write("new", "b"), &path).expect("one directory");
    let rest = {
        client.send("GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        client.rest()
    };
    let body = rest.windows(4).position(|part| part == b"\r\n\r\n").expect("the head ends") + 4;
    assert!(rest[body..body + LARGE].iter().all(|byte| *byte == b'a'));
    let second = std::str::from_utf8(&rest[body + LARGE..]).expect("text");
    assert!(second.starts_with("HTTP/1.1 200 OK\r\n") && second.ends_with("\r\n\r\nb"), "{second}");
}

#[test]
fn a_file_truncated_under_its_answer_ends_the_connection() {
    let site = Site::new("truncated");
    let path = site.write("large", vec![b'a'; LARGE]);
    let mut server = site.serve(&[]);
    let mut stream = server.connect().into_stream();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\nGET /other HTTP/1.1\r\nHost: a\r\n\r\n").expect("taken");
    stream.read_exact(&mut [0; 15]).expect("it has begun");
    fs::File::options().write(true).open(&path).and_then(|file| file.set_len(1 << 20)).expect("the file is ours");
    let mut rest = Vec::new();
    // A reset is an end as well.
    let _ = stream.read_to_end(&mut rest);
    let body = rest.windows(4).position(|part| part == b"\r\n\r\n").expect("the head ends") + 4;
    // The kernel sends from its cache, where what is truncated may become zeros before it is on its way.
    assert!(rest.len() - body < LARGE && rest[body..].iter().all(|byte| matches!(byte, b'a' | 0)));
    // The worker lives on, and serves what there is now.
    assert_eq!(server.get("/large").body.len(), 1 << 20);
}

/// What the kernel shows below /sys says that it is as long as a page, and mostly is shorter: as a file that is
/// truncated between being looked at and being read.
#[test]
fn a_small_file_that_has_become_shorter_is_an_error() {
    if fs::metadata("/sys/kernel/uevent_seqnum").map_or(true, |metadata| metadata.len() != 4096) {
        return support::skip("/sys is not as usual");
    }
    let mut command = support::binary();
    command.args(["--workers", "1", "--root", "/sys/kernel"]);
    let mut server = Server::start(command);
    let answer = server.get("/uevent_seqnum");
    assert_eq!((answer.status, answer.body.len(), answer.closes()), (500, 0, true));
    let mut client = server.connect();
    client.send("HEAD /uevent_seqnum HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to_head().field("content-length"), Some("4096"));
}

/// Often enough that a worker holds the file open.
#[track_caller]
fn ask_often(client: &mut Client<TcpStream>, target: &str, expected: &str) {
    for _ in 0..4 {
        let answer = ask(client, target, "");
        assert_eq!((answer.status, answer.text()), (200, expected), "{target}");
    }
}

#[test]
fn a_file_that_is_asked_for_often_is_what_its_name_means() {
    let site = Site::new("often");
    let (file, directory) = (site.write("a/b/file", "one"), site.path("a"));
    let outside = site.0.join("outside");
    let mut server = site.serve(&[]);
    let mut client = server.connect();
    let target = "/a/b/file";
    ask_often(&mut client, target, "one");
    let tag = ask(&mut client, target, "").field("etag").expect("a tag").to_owned();
    // Written in place: as long as before, shorter, longer.
    for contents in ["two", "3", "four and more"] {
        // The kernel's clock for that may stand still for up to ten milliseconds.
        let written = || fs::metadata(&file).and_then(|it| it.modified()).expect("it is there");
        let before = written();
        support::until("it is written at another time", || {
            fs::write(&file, contents).expect("writable");
            (written() != before).then_some(())
        });
        ask_often(&mut client, target, contents);
        let answer = ask(&mut client, target, &format!("If-None-Match: {tag}\r\n"));
        assert_eq!((answer.status, answer.text()), (200, contents));
    }
    // Replaced, removed, made anew.
    fs::rename(site.write("new", "five"), &file).expect("one file system");
    ask_often(&mut client, target, "five");
    fs::remove_file(&file).expect("it is there");
    assert_eq!(ask(&mut client, target, "").status, 404);
    fs::write(&file, "six").expect("writable");
    ask_often(&mut client, target, "six");
    // A directory on the way is replaced.
    site.write("other/b/file", "seven");
    fs::rename(&directory, outside.join("a")).expect("one file system");
    assert_eq!(ask(&mut client, target, "").status, 404);
    fs::rename(site.path("other"), &directory).expect("one file system");
    ask_often(&mut client, target, "seven");
    // It, or the file, becomes a link to itself outside of the root.
    fs::rename(&directory, outside.join("seven")).expect("one file system");
    symlink(outside.join("seven"), &directory).expect("a link");
    assert_eq!(ask(&mut client, target, "").status, 404);
    fs::remove_file(&directory).expect("a link");
    fs::rename(outside.join("seven"), &directory).expect("one file system");
    ask_often(&mut client, target, "seven");
    fs::rename(&file, outside.join("file")).expect("one file system");
    symlink(outside.join("file"), &file).expect("a link");
    assert_eq!(ask(&mut client, target, "").status, 404);
    // A link inside is followed to what it means at the time.
    site.write("a/x", "x");
    site.write("a/y", "y");
    for name in ["x", "y"] {
        symlink(format!("../{name}"), site.path("link")).expect("a link");
        fs::rename(site.path("link"), &file).expect("one file system");
        ask_often(&mut client, target, name);
    }
}

#[test]
fn a_rolling_restart_serves_what_the_path_means_by_then() {
    let site = Site::new("deploy");
    site.write("one/index.html", "one");
    site.write("two/index.html", "two");
    let current = site.path("current");
    symlink("one", &current).expect("a link");
    let mut command = support::binary();
    command.args(["--workers", "1", "--root"]).arg(&current);
    let mut server = Server::start(command);
    assert_eq!(server.get("/").text(), "one");
    symlink("two", site.path("new")).expect("a link");
    fs::rename(site.path("new"), &current).expect("one directory");
    server.signal(Signal::SIGHUP);
    support::until("the new worker serves", || (server.get("/").text() == "two").then_some(()));
}
