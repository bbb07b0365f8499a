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
        ("//a/b.txt", 200),
        ("/a//b.txt", 200),
        ("//..//outside/secret.txt", 400),
        ("/a//../b", 400),
        ("//etc/passwd", 404),
        ("/etc/passwd", 404),
        ("http://host", 404),
        ("http://host/../x", 400),
    ];
    let inside = [("/link", 200), ("/a/up", 200), ("/to-directory/b.txt", 200), ("/to-directory", 302)];
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
    let page = "Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n";
    let data = "Accept: application/json\r\n";
    let mut client = server.connect();
    for (target, accept, status, body) in [
        ("/", "", 200, "app"),
        ("/users", "", 200, "app"),
        ("/users/7/edit?x=1.5", "", 200, "app"),
        ("/v1.2/users", "", 200, "app"),
        ("/assets/", "", 200, "app"),
        ("/app.js/deeper", "", 200, "app"),
        ("/app.js", page, 200, "script"),
        ("/users/john.doe", page, 200, "app"),
        ("/release/v1.2", page, 200, "app"),
        ("/users", "Accept: */*\r\n", 200, "app"),
        ("/users", data, 404, "not found\n"),
        ("/users/john.doe", "", 404, "not found\n"),
        ("/users/john.doe", data, 404, "not found\n"),
        ("/missing.js", "Accept: */*\r\n", 404, "not found\n"),
        ("/assets/missing.css", "Accept: text/css,*/*;q=0.1\r\n", 404, "not found\n"),
        ("/.hidden", page, 404, "not found\n"),
        ("/..", page, 400, "the path is malformed\n"),
    ] {
        let answer = ask(&mut client, target, accept);
        assert_eq!((answer.status, answer.text()), (status, body), "{target} {accept}");
        let is_chosen = !["/", "/app.js", "/.hidden", "/.."].contains(&target);
        assert_eq!(answer.field("vary") == Some("Accept"), is_chosen, "{target}: {answer:?}");
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
    assert_eq!(server.get("/directory").status, 302);
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

#[test]
fn a_long_listing_has_pages() {
    let site = Site::new("pages");
    for n in 0..2001 {
        site.write(&format!("d/{n:04}"), "");
    }
    site.write("d/z/x", "");
    let mut server = site.serve(&["--listing", "yes"]);
    let mut client = server.connect();
    for (target, first, last, links) in [
        ("/d/", "./z/", "./0998", &["?page=2"][..]),
        ("/d/?page=2", "./0999", "./1998", &["?page=1", "?page=3"]),
        ("/d/?x=1&page=3", "./1999", "./2000", &["?page=2"]),
        ("/d/?page=1000", "./1999", "./2000", &["?page=2"]),
        ("/d/?page=0", "./z/", "./0998", &["?page=2"]),
        ("/d/?page=-1", "./z/", "./0998", &["?page=2"]),
    ] {
        let answer = client.get(target);
        let hrefs = answer.text().split("href=\"").skip(1).filter_map(|rest| rest.split('"').next());
        let (pages, names): (Vec<&str>, Vec<&str>) = hrefs.skip(1).partition(|href| href.starts_with('?'));
        assert_eq!((names.first(), names.last()), (Some(&first), Some(&last)), "{target}");
        assert_eq!(pages, links, "{target}");
    }
}

#[test]
fn a_page_has_no_extension_in_its_url() {
    let site = Site::new("clean");
    site.write("index.html", "front");
    site.write("about.html", "about");
    site.write("about us.html", "us");
    site.write("blog.html", "blog");
    site.write("blog/post.html", "post");
    site.write("file", "file");
    site.write("file.html", "other");
    site.write("bare/x", "x");
    site.write(".secret.html", SECRET);
    fs::create_dir(site.path("odd.html")).expect("a directory");
    symlink("../outside/secret.txt", site.path("out.html")).expect("a link");
    let mut server = site.serve(&["--header", "/*.html Cache-Control: no-cache"]);
    for (target, body) in [
        ("/about", "about"),
        ("/about?x", "about"),
        ("/about%20us", "us"),
        ("/blog", "blog"),
        ("/blog/post", "post"),
        ("/about.html", "about"),
        ("/index", "front"),
    ] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.text()), (200, body), "{target}");
        assert_eq!(answer.field("content-type"), Some("text/html"), "{target}");
        assert_eq!(answer.field("cache-control"), Some("no-cache"), "{target}");
    }
    assert_eq!(server.get("/file").text(), "file");
    statuses(
        &mut server,
        &[("/about/", 404), ("/blog/", 404), ("/bare", 302), ("/odd", 404), ("/out", 404), ("/.secret", 404)],
    );
}

#[test]
fn what_is_not_there_is_said_by_a_page_of_the_site() {
    let site = Site::new("nothing");
    site.write("404.html", "nothing here");
    date(&site.path("404.html"), 1_700_000_000);
    date(&site.write("404.html.gz", "packed"), 1_700_000_000);
    let mut server = site.serve(&["--cache-control", "max-age=60", "--header", "X-A: b"]);
    let mut client = server.connect();
    for target in ["/none", "/none/", "/.hidden", "/none.js"] {
        let fields = "Range: bytes=0-1\r\nIf-None-Match: *\r\nIf-Match: \"x\"\r\n";
        let answer = ask(&mut client, target, fields);
        assert_eq!((answer.status, answer.text()), (404, "nothing here"), "{target}");
        assert_eq!((answer.field("content-type"), answer.field("x-a")), (Some("text/html"), Some("b")), "{target}");
        for field in ["etag", "last-modified", "accept-ranges", "cache-control"] {
            assert_eq!(answer.field(field), None, "{target}");
        }
    }
    let packed = ask(&mut client, "/none", "Accept-Encoding: gzip\r\n");
    assert_eq!((packed.status, packed.text(), packed.field("content-encoding")), (404, "packed", Some("gzip")));
    client.send("HEAD /none HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer_to_head().field("content-length"), Some("12"));
    assert_eq!(client.get("/404").status, 200);
}

#[test]
fn fields_are_added_by_path() {
    let site = Site::new("fields");
    site.write("index.html", "front");
    site.write("assets/a.js", "script");
    site.write("assets/b.woff2", "font");
    site.write("dir/x", "x");
    let mut server = site.serve(&[
        "--cache-control",
        "no-cache",
        "--header",
        "/assets/* Cache-Control: max-age=31536000, immutable",
        "--header",
        "Cross-Origin-Opener-Policy: same-origin",
        "--header",
        "/*.woff2 Access-Control-Allow-Origin: *",
        "--header",
        "/*.woff2 Cross-Origin-Opener-Policy:",
    ]);
    let mut client = server.connect();
    let (kept, asked) = (Some("max-age=31536000, immutable"), Some("no-cache"));
    let own = Some("same-origin");
    for (target, status, cache, opener, origin) in [
        ("/", 200, asked, own, None),
        ("/index", 200, asked, own, None),
        ("/assets/a.js", 200, kept, own, None),
        ("/assets//a.js?x", 200, kept, own, None),
        ("/assets/b.woff2", 200, kept, None, Some("*")),
        // What is no content of a file is not to be kept.
        ("/assets/none", 404, None, own, None),
        ("/assets/none.woff2", 404, None, None, Some("*")),
        ("/dir", 302, None, own, None),
        ("/%", 400, None, own, None),
    ] {
        let answer = client.get(target);
        assert_eq!(answer.status, status, "{target}");
        let found = ["cache-control", "cross-origin-opener-policy", "access-control-allow-origin"];
        assert_eq!(found.map(|field| answer.field(field)), [cache, opener, origin], "{target}");
    }
    let tag = client.get("/assets/a.js").field("etag").expect("a tag").to_owned();
    let same = ask(&mut client, "/assets/a.js", &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((same.status, same.field("cache-control")), (304, kept));

    let preflight = "Origin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n";
    for (target, fields, origin, methods, headers) in [
        ("/assets/b.woff2", preflight.to_owned(), Some("*"), Some("GET, HEAD"), None),
        (
            "/assets/b.woff2",
            format!("{preflight}Access-Control-Request-Headers: range, x-a\r\n"),
            Some("*"),
            Some("GET, HEAD"),
            Some("range, x-a"),
        ),
        ("/assets/a.js", preflight.to_owned(), None, None, None),
        ("/assets/b.woff2", String::new(), Some("*"), None, None),
        ("*", String::new(), None, None, None),
    ] {
        client.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        let answer = client.answer();
        assert_eq!((answer.status, answer.field("allow")), (204, Some("GET, HEAD, OPTIONS")), "{target}");
        let found = ["access-control-allow-origin", "access-control-allow-methods", "access-control-allow-headers"];
        assert_eq!(found.map(|field| answer.field(field)), [origin, methods, headers], "{target}");
    }
}

#[test]
fn types_are_known_and_can_be_said() {
    let site = Site::new("types");
    let own = ["a.ts", "a.mpd", "a.svgz", "README", "a.md", "a.xyz", "Notes", "a.html"];
    for name in own {
        site.write(name, name);
    }
    site.write(".well-known/apple-app-site-association", "{}");
    let mut server = site.serve(&[
        "--type",
        "html=text/html; charset=utf-8",
        "--type",
        "xyz=chemical/x-xyz",
        "--type",
        "notes=text/plain",
    ]);
    for (target, content_type) in [
        ("/a.ts", "video/mp2t"),
        ("/a.mpd", "application/dash+xml"),
        ("/a.svgz", "image/svg+xml"),
        ("/README", "text/plain; charset=utf-8"),
        ("/.well-known/apple-app-site-association", "application/json"),
        ("/a.md", "text/markdown; charset=utf-8"),
        ("/a.xyz", "chemical/x-xyz"),
        ("/Notes", "text/plain"),
        ("/a.html", "text/html; charset=utf-8"),
    ] {
        let answer = server.get(target);
        assert_eq!((answer.status, answer.field("content-type")), (200, Some(content_type)), "{target}");
        assert_eq!(answer.field("content-encoding").is_some(), target == "/a.svgz", "{target}");
    }
}

#[test]
fn copies_on_several_machines_are_one_and_a_time_that_says_nothing_is_no_time() {
    let site = Site::new("replicas");
    for name in ["a.txt", "b.txt"] {
        site.write(name, "same");
        date(&site.path(name), 1_700_000_000);
    }
    for name in ["c.txt", "d.txt"] {
        site.write(name, "same");
        date(&site.path(name), 1);
    }
    let mut server = site.serve(&[]);
    let mut client = server.connect();
    let [a, b, c, d] = ["/a.txt", "/b.txt", "/c.txt", "/d.txt"].map(|target| client.get(target));
    assert!(a.field("etag").is_some() && a.field("etag") == b.field("etag"));
    assert_eq!(a.field("last-modified"), Some("Tue, 14 Nov 2023 22:13:20 GMT"));
    assert!(c.field("etag").is_some() && c.field("etag") != d.field("etag"));
    assert_eq!((c.field("last-modified"), d.field("last-modified")), (None, None));
    // Both were packed by a tool that gives all files the same time.
    for since in
        ["If-Modified-Since: Thu, 01 Jan 1970 00:00:01 GMT", "If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT"]
    {
        assert_eq!(ask(&mut client, "/c.txt", &format!("{since}\r\n")).status, 200, "{since}");
    }
    let part = "Range: bytes=1-2\r\nIf-Range: Thu, 01 Jan 1970 00:00:01 GMT\r\n";
    assert_eq!(ask(&mut client, "/c.txt", part).status, 200);
    // Another content of the same length, and the same time again.
    fs::rename(site.write("new", "else"), site.path("c.txt")).expect("one directory");
    date(&site.path("c.txt"), 1);
    let tag = c.field("etag").expect("a tag");
    assert_eq!(ask(&mut client, "/c.txt", &format!("If-None-Match: {tag}\r\n")).text(), "else");
}

#[test]
fn all_of_nothing_is_no_range() {
    let site = Site::new("empty");
    site.write("empty.txt", "");
    let mut server = site.serve(&[]);
    let mut client = server.connect();
    for range in ["0-", "0-1048575", "-100", "0-0,5-"] {
        let answer = ask(&mut client, "/empty.txt", &format!("Range: bytes={range}\r\n"));
        assert_eq!((answer.status, answer.field("content-range"), answer.text()), (200, None, ""), "{range}");
    }
}

#[test]
fn a_sibling_of_before_within_the_same_second_is_out_of_date() {
    let site = Site::new("second");
    let second = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    for (name, original, sibling, is_current) in [
        ("older", 500_000_001, 499_000_001, false),
        ("same", 500_000_001, 500_000_001, true),
        ("newer", 500_000_001, 500_000_002, true),
        ("in-seconds", 500_000_001, 0, true),
        ("in-microseconds", 500_123_456, 500_123_000, true),
        ("in-100ns", 500_123_456, 500_123_400, true),
        ("older-by-microseconds", 500_123_456, 500_122_000, false),
    ] {
        for (path, nanos) in [(format!("{name}.js"), original), (format!("{name}.js.gz"), sibling)] {
            let path = site.write(&path, &path);
            let time = second + Duration::from_nanos(nanos);
            fs::File::options().append(true).open(path).and_then(|file| file.set_modified(time)).expect("it is ours");
        }
        let mut server = site.serve(&[]);
        let answer = ask(&mut server.connect(), &format!("/{name}.js"), "Accept-Encoding: gzip\r\n");
        assert_eq!(answer.field("content-encoding").is_some(), is_current, "{name}");
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
