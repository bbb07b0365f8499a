//! Files and sockets in directories where other users may write, too: links are not followed, and names cannot be
//! guessed.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{chown, symlink, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{after, binary, fresh_path, pass_variables, skip, until, Server};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::Signal;
use nix::unistd::geteuid;

/// A directory for one test, and a file in it that nobody is to touch.
fn directory(name: &str) -> (PathBuf, PathBuf) {
    let directory = fresh_path(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("writable");
    let precious = directory.join("precious");
    fs::write(&precious, "precious").expect("writable");
    fs::set_permissions(&precious, fs::Permissions::from_mode(0o600)).expect("ours");
    (directory, precious)
}

#[track_caller]
fn is_untouched(precious: &Path) {
    assert_eq!(fs::read_to_string(precious).expect("it is there"), "precious");
    assert_eq!(mode(precious), 0o600);
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).expect("it is there").permissions().mode() & 0o7777
}

#[test]
fn the_pid_file_s_draft_follows_no_link_and_its_mode_no_umask() {
    let (directory, precious) = directory("pid-links");
    let path = directory.join("app.pid");
    // Every name that was a process id's, in the hope of the right one.
    let first = std::process::id();
    for pid in first..first + 4000 {
        symlink(&precious, directory.join(format!("app.pid.{pid}"))).expect("writable");
    }
    let mut command = binary();
    command.arg("--pid-file").arg(&path);
    let mut server = Server::start(after("umask 0", &command));
    is_untouched(&precious);
    assert_eq!(fs::read_to_string(&path).expect("it is there"), format!("{}\n", server.pid()));
    assert_eq!(mode(&path), 0o644);
    assert!(fs::symlink_metadata(&path).expect("it is there").is_file());
    server.signal(Signal::SIGTERM);
    server.wait();
    assert!(!path.exists());
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn at_the_end_only_the_own_pid_file_is_removed_and_nobody_waited_for() {
    let (directory, _) = directory("pid-exchanged");
    let path = directory.join("app.pid");
    let mut command = binary();
    command.arg("--pid-file").arg(&path);
    let mut server = Server::start(command);
    fs::remove_file(&path).expect("it is there");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("writable");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
    assert!(fs::symlink_metadata(&path).expect("it is there").file_type().is_fifo());
    fs::remove_dir_all(&directory).expect("ours");
}

/// A command in a mount namespace of its own, where `mount` has been run.
fn apart(mount: &str, command: &Command) -> Command {
    let shell = after(mount, command);
    let mut apart = Command::new("unshare");
    apart.arg("-m").arg(shell.get_program()).args(shell.get_args());
    pass_variables(&shell, &mut apart);
    apart
}

#[test]
fn a_pool_starts_on_a_full_disk_and_writes_the_pid_file_when_there_is_room() {
    let (directory, _) = directory("pid-first");
    let path = directory.join("app.pid");
    let mount = format!("mount -t tmpfs -o size=4k none {0} && echo x > {0}/full", directory.display());
    let probe = Command::new("unshare").args(["-m", "sh", "-c", &mount]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return skip("unshare(1) cannot mount a file system here");
    }
    let mut command = binary();
    command.arg("--pid-file").arg(&path);
    let mut server = Server::spawn(apart(&mount, &command));
    server.wait_for(&format!(
        "cannot write the pid file {}: No space left on device (os error 28); retrying every 5 s",
        path.display()
    ));
    server.wait_for("listening on ");
    let inside = PathBuf::from(format!("/proc/{}/root{}", server.pid(), directory.display()));
    fs::remove_file(inside.join("full")).expect("it is there");
    server.wait_for("pid file written");
    assert_eq!(fs::read_to_string(inside.join("app.pid")).expect("it is there"), format!("{}\n", server.pid()));
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn an_upgrade_keeps_the_pid_file_on_a_full_disk() {
    let (directory, _) = directory("pid-full");
    let path = directory.join("app.pid");
    let mount = format!("mount -t tmpfs -o size=4k none {}", directory.display());
    let probe = Command::new("unshare").args(["-m", "sh", "-c", &mount]).output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return skip("unshare(1) cannot mount a file system here");
    }
    let mut command = binary();
    command.arg("--pid-file").arg(&path);
    let mut server = Server::start(apart(&mount, &command));
    // Open, since what /proc says of the old pool ends with it.
    let inside = File::open(format!("/proc/{}/root{}", server.pid(), directory.display())).expect("it runs");
    let seen = PathBuf::from(format!("/proc/self/fd/{}/app.pid", inside.as_raw_fd()));
    assert_eq!(fs::read_to_string(&seen).expect("it is there"), format!("{}\n", server.pid()));
    // It is as large as the file system, so nothing else can be written.
    let full = File::create(seen.with_file_name("other")).and_then(|mut file| file.write_all(b"x"));
    assert_eq!(full.expect_err("it is full").raw_os_error(), Some(libc::ENOSPC));
    fs::remove_file(seen.with_file_name("other")).expect("ours");
    let line_of = |server: &mut Server| server.wait_for("listening on ");
    server.signal(Signal::SIGUSR2);
    line_of(&mut server);
    let before = server.pid().to_string();
    let text = until("the pid file names another process", || {
        let text = fs::read_to_string(&seen).ok()?;
        (text.trim() != before).then_some(text)
    });
    assert_ne!(text.trim(), "", "never empty");
    server.wait_for("another pool has taken over");
    let next = PathBuf::from(format!("/proc/{}/root{}", text.trim(), path.display()));
    assert_eq!(fs::read_to_string(next).expect("it stays"), text);
}

#[test]
fn a_unix_socket_has_its_mode_from_the_start_and_whatever_the_umask() {
    let (directory, _) = directory("socket-mode");
    let path = directory.join("app.sock");
    for umask in ["0", "077"] {
        // chmod(2) would be told: in that moment the owner of the directory can have put a link there.
        let changes = Inotify::init(InitFlags::IN_NONBLOCK).expect("a descriptor");
        changes.add_watch(&directory, AddWatchFlags::IN_ATTRIB).expect("it is there");
        let mut command = binary();
        command.args(["--listen", &format!("unix:{}", path.display()), "--unix-mode", "0660"]);
        let mut server = Server::start(after(&format!("umask {umask}"), &command));
        assert_eq!(mode(&path), 0o660);
        assert_eq!(changes.read_events().expect_err("no mode was changed"), Errno::EAGAIN);
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().code(), Some(0));
    }
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn an_access_log_is_no_link_at_the_start_nor_later() {
    let (directory, precious) = directory("log-links");
    let path = directory.join("access.log");
    let mut command = binary();
    command.arg("--access-log").arg(&path);
    let mut server = Server::start(command);
    server.get("/");
    fs::remove_file(&path).expect("it is there");
    symlink(&precious, &path).expect("writable");
    server.signal(Signal::SIGUSR1);
    server.wait_for("it is a symbolic link");
    server.get("/");
    drop(server);
    let mut command = binary();
    command.arg("--access-log").arg(&path);
    let (status, log) = Server::spawn(command).finish();
    assert_eq!(status.code(), Some(1));
    assert!(log.iter().any(|line| line.contains("it is a symbolic link")), "{log:?}");
    is_untouched(&precious);
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn the_access_log_goes_to_a_standard_stream_by_its_name() {
    for name in ["/dev/stdout", "/dev/stderr"] {
        let mut command = binary();
        command.args(["--access-log", name]);
        let mut server = Server::start(command);
        server.get("/of-a-stream");
        server.wait_for("GET /of-a-stream HTTP/1.1");
    }
}

#[test]
fn root_opens_no_access_log_where_its_workers_could_put_a_link() {
    if !geteuid().is_root() {
        return skip("only root can run workers as somebody else");
    }
    let (directory, _) = directory("log-of-nobody");
    let path = directory.join("access.log");
    for (owner, mode, problem) in [
        (65534, 0o755, Some("give the directory to root")),
        (0, 0o777, Some("prevent that, for example by chmod o-w")),
        (0, 0o1777, None),
        (0, 0o755, None),
    ] {
        chown(&directory, Some(owner), None).expect("root may");
        fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).expect("root may");
        let mut command = binary();
        command.args(["--user", "nobody", "--access-log"]).arg(&path);
        match problem {
            Some(problem) => {
                let (status, log) = Server::spawn(command).finish();
                assert_eq!(status.code(), Some(1), "{owner} {mode:o}");
                assert!(log.iter().any(|line| line.contains(problem)), "{log:?}");
            }
            None => assert_eq!(Server::start(command).get("/").status, 200, "{owner} {mode:o}"),
        }
    }
    fs::remove_dir_all(&directory).expect("ours");
}
