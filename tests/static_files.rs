//! `forkpool --root`: what a directory of files answers, and what it never does.

mod support;

#[path = "static_files/changes.rs"]
mod changes;
#[path = "static_files/conditions.rs"]
mod conditions;
#[path = "static_files/fields.rs"]
mod fields;
#[path = "static_files/pages.rs"]
mod pages;
#[path = "static_files/root.rs"]
mod root;

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use support::{fresh_path, Answer, Client, Server};

/// A directory for one test with `www`, the root, and things beside it that no request may reach.
struct Site(PathBuf);

const SECRET: &str = "secret";

impl Site {
    fn new(name: &str) -> Site {
        let path = fresh_path(&format!("site-{name}"));
        let site = Site(path);
        for directory in ["www", "outside"] {
            fs::create_dir_all(site.0.join(directory)).expect("the target directory is writable");
        }
        fs::write(site.0.join("outside/secret.txt"), SECRET).expect("writable");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join("www").join(name)
    }

    /// Writes a file, and the directories above it.
    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("it is in a directory")).expect("writable");
        fs::write(&path, contents).expect("writable");
        path
    }

    /// Serves it with one worker.
    #[track_caller]
    fn serve(&self, arguments: &[&str]) -> Server {
        let mut command = support::binary();
        command.args(["--workers", "1", "--root"]).arg(self.path("")).args(arguments);
        Server::start(command)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Sends a request with further fields, each with its CRLF.
#[track_caller]
fn ask(client: &mut Client<TcpStream>, target: &str, fields: &str) -> Answer {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
    client.answer()
}

#[track_caller]
fn statuses(server: &mut Server, expected: &[(&str, u16)]) {
    let mut client = server.connect();
    for (target, status) in expected {
        let answer = ask(&mut client, target, "");
        assert_eq!(answer.status, *status, "{target}: {answer:?}");
        assert!(!answer.body.windows(SECRET.len()).any(|part| part == SECRET.as_bytes()), "{target}");
    }
}

#[test]
fn files_are_served_by_their_path() {
    let site = Site::new("paths");
    site.write("index.html", "front");
    site.write("a.txt", "text");
    site.write("with space%.html", "named");
    site.write("directory/index.html", "inner");
    site.write("directory/deep/x.js", "script");
    site.write("empty", "");
    let mut server = site.serve(&["--cache-control", "max-age=60"]);
    let mut client = server.connect();
    for (target, content_type, body) in [
        ("/", "text/html", "front"),
        ("/?query", "text/html", "front"),
        ("/index.html", "text/html", "front"),
        ("/a.txt", "text/plain; charset=utf-8", "text"),
        ("/%61.txt?x=/../y", "text/plain; charset=utf-8", "text"),
        ("http://elsewhere/a.txt", "text/plain; charset=utf-8", "text"),
        ("/with%20space%25.html", "text/html", "named"),
        ("/directory/", "text/html", "inner"),
        ("/directory/deep/x.js", "text/javascript; charset=utf-8", "script"),
        ("/empty", "application/octet-stream", ""),
    ] {
        let answer = client.get(target);
        assert_eq!((answer.status, answer.text()), (200, body), "{target}");
        assert_eq!(answer.field("content-type"), Some(content_type), "{target}");
        assert_eq!(answer.field("cache-control"), Some("max-age=60"), "{target}");
        assert!(answer.field("etag").is_some() && answer.field("last-modified").is_some(), "{target}");
    }
    client.send("HEAD /a.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = client.answer_to_head();
    assert_eq!((answer.status, answer.field("content-length")), (200, Some("4")));
    for method in ["POST", "PUT", "DELETE", "get"] {
        client.send(format!("{method} /a.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD, OPTIONS")), "{method}");
        assert_eq!(answer.field("cache-control"), None, "{method}");
    }
}

#[test]
fn a_directory_s_url_ends_in_a_slash() {
    let site = Site::new("slash");
    site.write("a b/index.html", "inner");
    site.write("a b/\\evil.test/index.html", "inner");
    site.write("bare/file", "x");
    site.write("odd/index.html/file", "x");
    let mut server = site.serve(&[]);
    for (target, location) in [
        ("/a%20b", "a%20b/"),
        ("/%61%20b?x=1&y=%2f", "a%20b/?x=1&y=%2f"),
        ("/a%20b?", "a%20b/?"),
        ("/a%20b/\\evil.test", "%5Cevil.test/"),
        ("/bare", "bare/"),
        ("//bare", "bare/"),
        ("http://elsewhere//bare", "bare/"),
    ] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.field("location")), (302, Some(location)), "{target}");
    }
    statuses(
        &mut server,
        &[("/", 404), ("/bare/", 404), ("/odd/", 404), ("/bare/file/", 404), ("/bare/file/x", 404), ("/none/", 404)],
    );
}

/// Sets when a file was last written, in seconds since 1970.
fn date(path: &Path, second: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    fs::File::options().append(true).open(path).and_then(|file| file.set_modified(time)).expect("the file is ours");
}

#[test]
fn a_root_that_cannot_be_is_refused() {
    let site = Site::new("refused");
    let file = site.write("file", "");
    for (path, remedy) in
        [(site.path("none"), "does not exist; create it or choose another"), (file, "is no directory; choose another")]
    {
        for check in [&["--check"][..], &[]] {
            let output = support::binary().arg("--root").arg(&path).args(check).output().expect("the binary runs");
            let line = String::from_utf8(output.stderr).expect("text");
            assert_eq!(output.status.code(), Some(2), "{line}");
            assert!(line.starts_with(&format!("forkpool: --root: {} {remedy}", path.display())), "{line}");
        }
    }
}

#[test]
fn idle_connections_make_room_for_files_when_descriptors_run_out() {
    let site = Site::new("descriptors");
    site.write("small.txt", "small\n");
    site.write("large.bin", vec![b'x'; 32 << 20]);
    let mut command = support::binary();
    command.args(["--workers", "1", "--root"]).arg(site.path(""));
    let mut server = Server::start(support::after("ulimit -n 64", &command));
    // More than there are descriptors: those that came first make room.
    let mut clients = Vec::new();
    for _ in 0..80 {
        let mut client = server.connect();
        assert_eq!(client.get("/small.txt").status, 200);
        clients.push(client);
    }
    let idle_since = std::time::Instant::now();
    support::until("they have been idle for a moment", || {
        (idle_since.elapsed() > Duration::from_millis(50)).then_some(())
    });
    // Each holds a file, and takes nothing of it for now.
    let mut taking: Vec<_> = clients.split_off(66);
    for client in &mut taking {
        client.send("GET /large.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let mut status = [0; 12];
        client.read(&mut status);
        assert_eq!(&status, b"HTTP/1.1 200");
    }
    for mut client in taking {
        assert!(client.rest().len() > 32 << 20);
    }
}
