//! What a pool follows by itself: a root that is exchanged, and watched files.

use std::fs;
use std::path::Path;

use nix::fcntl::{renameat2, RenameFlags, AT_FDCWD};

use super::{directory, listen_fds, point, pool, program, successor, text, write};
use crate::support::{binary, run, until, Server};

/// Answers come of a file with these words, sooner or later, and none is lost until then.
#[track_caller]
fn until_served(server: &mut Server, words: &str) {
    until("the directory is followed", || {
        let answer = server.get("/name.txt");
        assert!(answer.status == 200 || answer.status == 404, "{answer:?}");
        (answer.text() == words).then_some(())
    });
}

#[test]
fn a_root_that_was_exchanged_is_followed_without_a_signal() {
    let directory = directory("root-exchanged");
    let releases = ["1", "2"].map(|name| directory.join(name));
    for release in &releases {
        fs::create_dir(release).expect("writable");
        write(&release.join("name.txt"), text(release));
    }
    let current = directory.join("current");
    point(&current, &releases[0]);
    for sandbox in ["strict", "off"] {
        let (mut command, _) = pool(&directory);
        command.args(["--workers", "2", "--sandbox", sandbox, "--root", text(&current)]);
        let mut server = Server::start(command);
        until_served(&mut server, text(&releases[0]));
        // A link.
        point(&current, &releases[1]);
        until_served(&mut server, text(&releases[1]));
        server.wait_for("is now another directory (root): restarting");
        server.wait_for("rolling restart done");
        // Another directory of the same name, which is never missing.
        let old = directory.join("old");
        fs::create_dir(&old).expect("writable");
        write(&old.join("name.txt"), "built anew");
        renameat2(AT_FDCWD, &old, AT_FDCWD, &releases[1], RenameFlags::RENAME_EXCHANGE).expect("ours");
        until_served(&mut server, "built anew");
        server.wait_for("rolling restart done");
        // Nothing: what is open is served on, and that is said once.
        fs::remove_file(&current).expect("it is there");
        server.wait_for("is no longer a directory (root): workers go on serving what they have open");
        let told = server.count("is no longer a directory");
        assert_eq!(server.get("/name.txt").text(), "built anew");
        point(&current, &releases[0]);
        until_served(&mut server, text(&releases[0]));
        server.wait_for("rolling restart done");
        assert_eq!(server.count("is no longer a directory"), told);
        assert_eq!(server.count("rolling restart begun"), 3);
        fs::remove_dir_all(&releases[1]).expect("ours");
        fs::rename(&old, &releases[1]).expect("ours");
    }
    fs::remove_dir_all(&directory).expect("ours");
}

/// A change of watched files, told by the path of the first, and the restart that follows.
#[track_caller]
fn restarts_for(server: &mut Server, path: &Path, end: &str) {
    let path = text(path);
    loop {
        let line = server.wait_for("(watch): restarting");
        server.wait_for(end);
        // Several changes may be one: the path is the first one's.
        if line.contains(path) {
            return;
        }
    }
}

#[test]
fn files_that_change_are_followed() {
    let directory = directory("watch");
    let (source, other) = (directory.join("src"), directory.join("other.conf"));
    fs::create_dir_all(source.join("deep/.git")).expect("writable");
    fs::create_dir_all(source.join("node_modules")).expect("writable");
    write(&source.join("a.js"), "1");
    write(&other, "1");
    let (mut command, _) = pool(&directory);
    command.args(["--workers", "1", "--watch", &format!("{}/**/*.js", source.display()), "--watch", text(&other)]);
    let mut server = Server::start(command);
    let done = "rolling restart done";
    // In place, as a shell does; by another file of the name, as editors do; anew, in what is new itself; and away.
    write(&source.join("a.js"), "2");
    restarts_for(&mut server, &source.join("a.js"), done);
    write(&source.join("a.tmp"), "3");
    fs::rename(source.join("a.tmp"), source.join("a.js")).expect("ours");
    restarts_for(&mut server, &source.join("a.js"), done);
    fs::create_dir_all(source.join("new/er")).expect("writable");
    write(&source.join("new/er/b.js"), "1");
    restarts_for(&mut server, &source.join("new"), done);
    write(&source.join("new/er/b.js"), "2");
    restarts_for(&mut server, &source.join("new/er/b.js"), done);
    fs::remove_file(source.join("a.js")).expect("it is there");
    restarts_for(&mut server, &source.join("a.js"), done);
    write(&other.with_extension("draft"), "2");
    fs::rename(other.with_extension("draft"), &other).expect("ours");
    restarts_for(&mut server, &other, done);
    // What is not meant is not told, so what comes next is the next restart.
    for name in ["deep/.git/x.js", "deep/.x.js.swp", "node_modules/x.js", "x.txt", "deep/x.js~"] {
        write(&source.join(name), "1");
    }
    write(&source.join("deep/c.js"), "1");
    let line = server.wait_for("(watch): restarting");
    assert!(line.contains("deep/c.js has changed"), "{line}");
    server.wait_for(done);
    // The whole directory is made anew.
    fs::rename(&source, directory.join("old")).expect("ours");
    fs::create_dir(&source).expect("writable");
    restarts_for(&mut server, &source, done);
    write(&source.join("d.js"), "1");
    restarts_for(&mut server, &source.join("d.js"), done);
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn a_burst_of_changes_is_one_restart_or_few() {
    let directory = directory("watch-burst");
    let source = directory.join("src");
    fs::create_dir(&source).expect("writable");
    let (mut command, _) = pool(&directory);
    command.args(["--workers", "1", "--watch", text(&source)]);
    let mut server = Server::start(command);
    for number in 0..400 {
        write(&source.join(format!("{}.js", number % 20)), "1");
    }
    server.wait_for("the first of ");
    server.wait_for("rolling restart done");
    // On a machine on which this takes seconds there is one each two of them.
    let count = server.count("(watch): restarting");
    assert!(count < 40, "{count}");
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn a_change_that_breaks_the_program_keeps_the_old_one_until_the_next() {
    let directory = directory("watch-broken");
    let source = directory.join("app.conf");
    write(&source, "good");
    let (mut command, _) = pool(&directory);
    command.args(["exec", "--workers", "1", "--watch", text(&source), "--ready", "notify", "--", "sh", "-c"]);
    command.args(["test \"$(cat \"$0\")\" != bad && exec \"$1\"", text(&source)]).arg(listen_fds());
    let mut server = Server::start(command);
    let first = program(&server.get("/"));
    write(&source, "bad");
    restarts_for(&mut server, &source, "rolling restart aborted");
    assert_eq!(program(&server.get("/")), first);
    write(&source, "good again");
    restarts_for(&mut server, &source, "rolling restart done");
    successor(&mut server, &[first]);
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn what_cannot_be_watched_is_said_at_the_start() {
    let said = run(binary().args(["--watch", "/nowhere/*.js", "--check"]));
    let problem =
        "forkpool: --watch: /nowhere cannot be watched: No such file or directory (os error 2); choose another";
    assert_eq!((said.code, said.problem.trim_end()), (2, problem), "{said:?}");
}
