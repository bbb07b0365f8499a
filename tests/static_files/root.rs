//! No request reaches what is outside of the root, hidden, or no file.

use std::fs;
use std::os::unix::fs::symlink;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::stat::Mode;

use super::{statuses, Site, SECRET};

#[test]
fn no_path_leaves_the_root() {
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
fn renaming_during_a_request_does_not_leave_the_root() {
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
fn hidden_and_special_files_are_not_found() {
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
