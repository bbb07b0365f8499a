//! `forkpool --root`: what a directory of files answers, and what it never does.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

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
        ("/", "text/html; charset=utf-8", "front"),
        ("/?query", "text/html; charset=utf-8", "front"),
        ("/index.html", "text/html; charset=utf-8", "front"),
        ("/a.txt", "text/plain; charset=utf-8", "text"),
        ("/%61.txt?x=/../y", "text/plain; charset=utf-8", "text"),
        ("http://elsewhere/a.txt", "text/plain; charset=utf-8", "text"),
        ("/with%20space%25.html", "text/html; charset=utf-8", "named"),
        ("/directory/", "text/html; charset=utf-8", "inner"),
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
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "get"] {
        client.send(format!("{method} /a.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD")), "{method}");
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
        ("/a%20b", "/a%20b/"),
        ("/%61%20b?x=1&y=%2f", "/a%20b/?x=1&y=%2f"),
        ("/a%20b?", "/a%20b/?"),
        ("/a%20b/\\evil.test", "/a%20b/%5Cevil.test/"),
        ("/bare", "/bare/"),
    ] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.field("location")), (308, Some(location)), "{target}");
    }
    statuses(
        &mut server,
        &[("/", 404), ("/bare/", 404), ("/odd/", 404), ("/bare/file/", 404), ("/bare/file/x", 404), ("/none/", 404)],
    );
}

#[test]
fn no_path_leads_out_of_the_root() {
    let site = Site::new("out");
    site.write("a/b.txt", "inside");
    site.write("%2e%2e/x", "inside");
    let absolute = site.0.join("outside/secret.txt");
    symlink(&absolute, site.path("absolute")).expect("a link");
    symlink("../outside/secret.txt", site.path("relative")).expect("a link");
    symlink("../outside", site.path("directory")).expect("a link");
    symlink("../www/a/b.txt", site.path("out-and-in")).expect("a link");
    symlink(site.path("a/b.txt"), site.path("absolute-in")).expect("a link");
    symlink("loop", site.path("loop")).expect("a link");
    symlink("/proc/self/root/etc/passwd", site.path("proc")).expect("a link");
    symlink("/proc/self/fd/0", site.path("magic")).expect("a link");
    symlink("nothing", site.path("dangling")).expect("a link");
    symlink("a/b.txt", site.path("link")).expect("a link");
    symlink("../link", site.path("a/up")).expect("a link");
    symlink("a", site.path("to-directory")).expect("a link");
    let outside = [
        ("/absolute", 404),
        ("/relative", 404),
        ("/directory", 404),
        ("/directory/", 404),
        ("/directory/secret.txt", 404),
        ("/out-and-in", 404),
        ("/absolute-in", 404),
        ("/loop", 404),
        ("/loop/", 404),
        ("/proc", 404),
        ("/magic", 404),
        ("/dangling", 404),
    ];
    let paths = [
        ("/../outside/secret.txt", 400),
        ("/a/../../outside/secret.txt", 400),
        ("/%2e%2e/outside/secret.txt", 400),
        ("/%2E./outside/secret.txt", 400),
        ("/a/..%2f..%2foutside/secret.txt", 400),
        ("/..%5coutside%5csecret.txt", 404),
        ("/%252e%252e/x", 200),
        ("/..", 400),
        ("/a/.", 400),
        ("/./a/b.txt", 400),
        ("/%00", 400),
        ("/a/b.txt%00.html", 400),
        ("/%", 400),
        ("/%zz", 400),
        ("//", 404),
        ("//a/b.txt", 404),
        ("/a//b.txt", 404),
        ("//etc/passwd", 404),
        ("/etc/passwd", 404),
        ("http://host", 404),
        ("http://host/../x", 400),
    ];
    let inside = [("/link", 200), ("/a/up", 200), ("/to-directory/b.txt", 200), ("/to-directory", 308)];
    let long = [format!("/{}", "a".repeat(300)), format!("/{}", "a/".repeat(3000))];
    let long = long.each_ref().map(|path| (path.as_str(), 404));
    let mut server = site.serve(&["--dotfiles", "yes"]);
    for expected in [&outside[..], &paths, &inside, &long] {
        statuses(&mut server, expected);
    }
    drop(server);

    let mut server = site.serve(&["--symlinks", "none"]);
    statuses(&mut server, &outside);
    statuses(&mut server, &inside.map(|(path, _)| (path, 404)));
    drop(server);

    let mut server = site.serve(&["--symlinks", "anywhere"]);
    for target in ["/absolute", "/relative", "/directory/secret.txt"] {
        assert_eq!(server.get(target).text(), SECRET, "{target}");
    }
    statuses(&mut server, &[("/absolute-in", 200), ("/out-and-in", 200), ("/loop", 404), ("/magic", 404)]);
    statuses(&mut server, &[("/../outside/secret.txt", 400), ("/directory/%2e%2e/outside/secret.txt", 400)]);
}

/// A path is resolved while what it leads through is exchanged.
#[test]
fn renaming_under_a_request_does_not_lead_out() {
    let site = Site::new("race");
    site.write("inside/secret.txt", "inside");
    symlink("../outside", site.path("outside")).expect("a link");
    symlink("inside/../inside/secret.txt", site.path("link")).expect("a link");
    let mut server = site.serve(&[]);
    let (one, other, kept) = (site.path("inside"), site.path("outside"), site.path("kept"));
    let is_done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_done.load(Ordering::Relaxed) {
                for (from, to) in [(&one, &kept), (&other, &one), (&one, &other), (&kept, &one)] {
                    fs::rename(from, to).expect("both are in the root");
                }
            }
        });
        let mut client = server.connect();
        for _ in 0..1000 {
            for target in ["/inside/secret.txt", "/link", "/outside/secret.txt"] {
                let answer = client.get(target);
                match answer.status {
                    200 => assert_eq!(answer.text(), "inside", "{target}"),
                    status => assert!(matches!(status, 404 | 503), "{target}: {status}"),
                }
            }
        }
        is_done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn what_is_hidden_or_no_file_is_not_there() {
    let site = Site::new("hidden");
    site.write(".env", SECRET);
    site.write(".git/config", SECRET);
    site.write("a/.b/c", SECRET);
    site.write(".well-known/security.txt", "contact");
    nix::unistd::mkfifo(&site.path("fifo"), Mode::from_bits_truncate(0o644)).expect("a FIFO");
    let _socket = std::os::unix::net::UnixListener::bind(site.path("socket")).ok();
    let mut server = site.serve(&["--spa", "yes", "--listing", "yes"]);
    statuses(
        &mut server,
        &[
            ("/.env", 404),
            ("/%2eenv", 404),
            ("/.git/", 404),
            ("/.git/config", 404),
            ("/a/.b/c", 404),
            ("/.well-known/security.txt", 200),
            ("/fifo", 404),
            ("/socket", 404),
        ],
    );
    let list = server.get("/");
    assert!(list.text().contains("./a/") && !list.text().contains("env") && !list.text().contains("fifo"));
    drop(server);
    let mut server = site.serve(&["--dotfiles", "yes"]);
    for target in ["/.env", "/.git/config", "/a/.b/c"] {
        assert_eq!(server.get(target).text(), SECRET, "{target}");
    }
}

#[test]
fn an_application_s_pages_are_all_its_index() {
    let site = Site::new("spa");
    site.write("index.html", "app");
    site.write("app.js", "script");
    site.write("assets/x.css", "style");
    let mut server = site.serve(&["--spa", "yes"]);
    for (target, status, body) in [
        ("/", 200, "app"),
        ("/users", 200, "app"),
        ("/users/7/edit?x=1.5", 200, "app"),
        ("/v1.2/users", 200, "app"),
        ("/assets/", 200, "app"),
        ("/app.js/deeper", 200, "app"),
        ("/app.js", 200, "script"),
        ("/missing.js", 404, "not found\n"),
        ("/assets/missing.css", 404, "not found\n"),
        ("/.hidden", 404, "not found\n"),
        ("/..", 400, "the path is malformed\n"),
    ] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.text()), (status, body), "{target}");
    }
}

#[test]
fn a_directory_is_listed_when_that_is_asked_for() {
    let site = Site::new("listing");
    site.write("directory/<b>&\"'.txt", "12345");
    site.write("directory/b c.txt", "");
    site.write("directory/z/x", "");
    site.write("indexed/index.html", "front");
    symlink("../../outside/secret.txt", site.path("directory/out")).expect("a link");
    symlink("b c.txt", site.path("directory/in")).expect("a link");
    let mut server = site.serve(&["--listing", "yes"]);
    assert_eq!(server.get("/directory").status, 308);
    assert_eq!(server.get("/indexed/").text(), "front");
    assert_eq!(server.get("/none/").status, 404);
    let list = server.get("/directory/");
    assert_eq!(list.field("content-type"), Some("text/html; charset=utf-8"));
    let hrefs = list.text().split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
    let hrefs: Vec<&str> = hrefs.collect();
    assert_eq!(hrefs, ["../", "./z/", "./%3Cb%3E%26%22%27.txt", "./b%20c.txt", "./in"]);
    assert!(list.text().contains("&lt;b&gt;&amp;&quot;&#39;.txt</a><td>5<td>"), "{}", list.text());
    let mut client = server.connect();
    for href in &hrefs[1..] {
        assert_eq!(client.get(&format!("/directory{}", &href[1..])).status, 200, "{href}");
    }
}

/// Sets when a file was last written, in seconds since 1970.
fn date(path: &Path, second: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
    fs::File::options().append(true).open(path).and_then(|file| file.set_modified(time)).expect("the file is ours");
}

#[test]
fn precompressed_siblings_are_negotiated() {
    let site = Site::new("coding");
    for (name, second) in [
        ("a.js", 1000),
        ("a.js.br", 1000),
        ("a.js.zst", 2000),
        ("a.js.gz", 1000),
        ("b.js", 2000),
        ("b.js.br", 1999),
        ("b.js.gz", 2000),
        ("c.png", 1000),
        ("c.png.gz", 1000),
        ("d.js", 1000),
    ] {
        date(&site.write(name, name), second);
    }
    fs::create_dir(site.path("d.js.br")).expect("a directory");
    symlink("../outside/secret.txt", site.path("d.js.gz")).expect("a link");
    let mut server = site.serve(&[]);
    let mut client = server.connect();
    let all = "gzip, deflate, br, zstd";
    for (target, accepted, coding, body) in [
        ("/a.js", "", None, "a.js"),
        ("/a.js", "identity", None, "a.js"),
        ("/a.js", "gzip", Some("gzip"), "a.js.gz"),
        ("/a.js", all, Some("br"), "a.js.br"),
        ("/a.js", "gzip;q=1, br;q=0.5", Some("gzip"), "a.js.gz"),
        ("/a.js", "br;q=0, *", Some("zstd"), "a.js.zst"),
        ("/a.js", "*;q=0", None, "a.js"),
        ("/a.js", "identity, br;q=0.9", None, "a.js"),
        // Out of date, and not there.
        ("/b.js", all, Some("gzip"), "b.js.gz"),
        ("/b.js", "br, zstd", None, "b.js"),
        ("/c.png", all, None, "c.png"),
        // A directory, and a link that leads out.
        ("/d.js", all, None, "d.js"),
    ] {
        let fields = if accepted.is_empty() { String::new() } else { format!("Accept-Encoding: {accepted}\r\n") };
        let answer = ask(&mut client, target, &fields);
        assert_eq!((answer.status, answer.text()), (200, body), "{target} {accepted}");
        assert_eq!(answer.field("content-encoding"), coding, "{target} {accepted}");
        let vary = (target != "/c.png").then_some("Accept-Encoding");
        assert_eq!(answer.field("vary"), vary, "{target} {accepted}");
        let content_type = if target == "/c.png" { "image/png" } else { "text/javascript; charset=utf-8" };
        assert_eq!(answer.field("content-type"), Some(content_type), "{target} {accepted}");
    }

    let plain = ask(&mut client, "/a.js", "");
    let encoded = ask(&mut client, "/a.js", "Accept-Encoding: br\r\n");
    let (plain, encoded) = (plain.field("etag").expect("a tag"), encoded.field("etag").expect("a tag"));
    assert_ne!(plain, encoded);
    for (fields, status, coding, body) in [
        ("Range: bytes=2-\r\n".to_owned(), 206, Some("br"), "js.br"),
        // Several parts would not be one encoded body.
        ("Range: bytes=0-0,5-6\r\n".to_owned(), 200, Some("br"), "a.js.br"),
        (format!("Range: bytes=0-0\r\nIf-Range: {plain}\r\n"), 200, Some("br"), "a.js.br"),
        (format!("Range: bytes=0-0\r\nIf-Range: {encoded}\r\n"), 206, Some("br"), "a"),
        (format!("If-None-Match: {encoded}\r\n"), 304, None, ""),
        (format!("If-None-Match: {plain}\r\n"), 200, Some("br"), "a.js.br"),
    ] {
        let answer = ask(&mut client, "/a.js", &format!("Accept-Encoding: br\r\n{fields}"));
        assert_eq!(
            (answer.status, answer.field("content-encoding"), answer.text()),
            (status, coding, body),
            "{fields}"
        );
        assert_eq!(answer.field("vary"), Some("Accept-Encoding"), "{fields}");
    }
    drop(server);

    let mut server = site.serve(&["--precompressed", "no"]);
    let answer = ask(&mut server.connect(), "/a.js", "Accept-Encoding: br\r\n");
    assert_eq!((answer.text(), answer.field("vary")), ("a.js", None));
}

#[test]
fn ranges_and_conditions_hold_at_every_size() {
    let site = Site::new("ranges");
    // Read behind the head, sent by the kernel together with it, and sent behind it.
    for len in [1000, 16_384, 16_385, 65_536, 65_537, 3_000_000] {
        let bytes: Vec<u8> = (0..len).map(|n| b'a' + (n % 26) as u8).collect();
        site.write(&format!("{len}.txt"), &bytes);
        let target = format!("/{len}.txt");
        let mut server = site.serve(&["--cache-control", "no-cache"]);
        let mut client = server.connect();
        let whole = ask(&mut client, &target, "");
        assert!(whole.status == 200 && whole.body == bytes, "{len}");
        let part = ask(&mut client, &target, "Range: bytes=-7\r\n");
        assert!(part.status == 206 && part.body == bytes[len - 7..], "{len}");
        let several = ask(&mut client, &target, &format!("Range: bytes=0-1,500-{}\r\n", len - 1));
        assert_eq!((several.status, several.body.len() > len - 498), (206, true), "{len}");
        assert_eq!(ask(&mut client, &target, &format!("Range: bytes={len}-\r\n")).status, 416);
        let tag = whole.field("etag").expect("a tag");
        let same = ask(&mut client, &target, &format!("If-None-Match: {tag}\r\n"));
        assert_eq!((same.status, same.field("etag"), same.field("vary")), (304, Some(tag), Some("Accept-Encoding")));
        assert_eq!(same.field("cache-control"), Some("no-cache"));
        assert_eq!(ask(&mut client, &target, "If-Match: \"other\"\r\n").status, 412);
        client.send(format!("HEAD {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
        assert_eq!(client.answer_to_head().field("content-length"), Some(len.to_string().as_str()));
        assert_eq!(ask(&mut client, &target, "").body.len(), len);
    }
}

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
        fs::write(&file, contents).expect("writable");
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
            assert!(line.starts_with(&format!("forkpool: root: {} {remedy}", path.display())), "{line}");
        }
    }
}
