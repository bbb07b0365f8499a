//! What a restart reads anew: the file of variables, and the directory that workers work in.

mod support;

#[path = "reload/watch.rs"]
mod watch;

use std::fs;
use std::os::unix::fs::{symlink, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{kill, Signal};
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo, Pid};
use support::{binary, example, fresh_path, run, skip, testbed_command, until, Answer, Said, Server};

/// A directory for one test.
fn directory(name: &str) -> PathBuf {
    let directory = fresh_path(name);
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).expect("writable");
    directory
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn write(path: &Path, content: &str) {
    fs::write(path, content).expect("writable");
}

/// Exchanges a link, as a deployment does: there is always one.
fn point(link: &Path, to: &Path) {
    let draft = link.with_extension("draft");
    symlink(to, &draft).expect("writable");
    fs::rename(&draft, link).expect("ours");
}

/// Asks for a rolling restart, and waits for what becomes of it.
#[track_caller]
fn restart(admin: &Path) -> Said {
    run(binary().args(["restart", "--admin"]).arg(format!("unix:{}", admin.display())))
}

#[track_caller]
fn restart_is_done(admin: &Path) {
    let said = restart(admin);
    assert_eq!((said.code, said.problem.as_str()), (0, ""), "{said:?}");
}

#[track_caller]
fn restart_is_aborted(admin: &Path, why: &str) {
    let said = restart(admin);
    assert!(said.code == 4 && said.out.contains("rolling restart aborted") && said.out.contains(why), "{said:?}");
}

/// The binary with an admin socket in a directory, and that socket.
fn pool(directory: &Path) -> (Command, PathBuf) {
    let admin = directory.join("admin");
    let mut command = binary();
    command.env("FORKPOOL_ADMIN", format!("unix:{}", admin.display()));
    (command, admin)
}

fn listen_fds() -> PathBuf {
    example("listen_fds").get_program().into()
}

/// The program that answered.
fn program(answer: &Answer) -> Pid {
    answer.worker()
}

/// The program that answers once those do no more: each may take a connection in while it finishes.
#[track_caller]
fn successor(server: &mut Server, old: &[Pid]) -> Pid {
    until("another one answers", || Some(program(&server.get("/"))).filter(|pid| !old.contains(pid)))
}

/// A variable of a process as it was executed.
fn variable(pid: Pid, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).expect("it runs");
    let mut variables = environment.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    variables.find_map(|it| it.split_once('=').filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()))
}

#[test]
fn a_program_gets_what_the_file_says_at_each_restart() {
    let directory = directory("env-program");
    let file = directory.join("app.env");
    write(&file, "# who\nGREETING= a \"b\" $HOME \nFORKPOOL_WORKERS=1\n");
    let (mut command, admin) = pool(&directory);
    command.env("INHERITED", "outside").env("GREETING", "outside").arg("exec").args(["--env-file", text(&file)]);
    command.args(["--ready", "notify", "--"]).arg(listen_fds());
    let mut server = Server::start(command);
    let first = program(&server.get("/"));
    assert_eq!(variable(first, "GREETING").as_deref(), Some(" a \"b\" $HOME "));
    assert_eq!(variable(first, "INHERITED").as_deref(), Some("outside"));
    write(&file, "INHERITED=inside\nFORKPOOL_WORKERS=1\n");
    restart_is_done(&admin);
    let second = successor(&mut server, &[first]);
    assert_eq!(variable(second, "INHERITED").as_deref(), Some("inside"));
    assert_eq!(variable(second, "GREETING").as_deref(), Some("outside"), "a line that is gone is gone");
    // A worker that is replaced for another reason is like the others, whatever is being edited.
    write(&file, "INHERITED=half an ed");
    kill(second, Signal::SIGKILL).expect("it runs");
    let third = successor(&mut server, &[first, second]);
    assert_eq!(variable(third, "INHERITED").as_deref(), Some("inside"));
    server.signal(Signal::SIGHUP);
    let fourth = successor(&mut server, &[first, second, third]);
    assert_eq!(variable(fourth, "INHERITED").as_deref(), Some("half an ed"));
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn a_restart_applies_how_programs_are_run() {
    let directory = directory("env-ready");
    let file = directory.join("app.env");
    write(&file, "FORKPOOL_READY=listen\n");
    let (mut command, admin) = pool(&directory);
    command.args(["exec", "--workers", "1", "--env-file", text(&file), "--"]).arg(listen_fds());
    let mut server = Server::start(command);
    let first = program(&server.get("/"));
    assert_eq!(variable(first, "NOTIFY_SOCKET"), None);
    write(&file, "FORKPOOL_READY=notify\n");
    restart_is_done(&admin);
    let second = successor(&mut server, &[first]);
    assert!(variable(second, "NOTIFY_SOCKET").is_some(), "it is waited for what it says");
    write(&file, "FORKPOOL_READY=soon\n");
    restart_is_aborted(&admin, "FORKPOOL_READY=soon: must be auto, listen, notify, http:PATH or delay:DURATION");
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn a_file_that_is_wrong_keeps_everything_as_it_was() {
    let directory = directory("env-wrong");
    let file = directory.join("app.env");
    write(&file, "A=1\n");
    let (mut command, admin) = pool(&directory);
    command.args(["exec", "--workers", "1", "--env-file", text(&file), "--ready", "notify", "--"]).arg(listen_fds());
    let mut server = Server::start(command);
    let first = program(&server.get("/"));
    let shown = file.display();
    for (content, why) in [
        ("A=2\nnonsense\n", format!("{shown}:2: has no =")),
        ("A=2\nFORKPOOL_WROKERS=2\n", format!("{shown}:2: FORKPOOL_WROKERS: there is no such setting")),
        ("A=2\nFORKPOOL_WORKERS=none\n", format!("{shown}:2: FORKPOOL_WORKERS=none: must be 1 to 1024")),
        (
            "FORKPOOL_MAX_BODY=1k\n",
            format!("{shown}:1: FORKPOOL_MAX_BODY is for forkpool's own server, not for a program; leave it out"),
        ),
        ("FORKPOOL_ENV_FILE=x\n", format!("{shown}:1: FORKPOOL_ENV_FILE: a file of variables cannot name another one")),
        ("\nFORKPOOL_CHDIR=/nowhere/at/all\n", format!("{shown}:2: chdir: /nowhere/at/all does not exist")),
        ("A=2\nA=3\n", format!("{shown}:2: A is set in line 1 already")),
    ] {
        write(&file, content);
        restart_is_aborted(&admin, &why);
        server.signal(Signal::SIGHUP);
        server.wait_for(&why);
        server.wait_for(&why);
    }
    fs::remove_file(&file).expect("it is there");
    restart_is_aborted(&admin, &format!("cannot read variables from {shown}: No such file"));
    // Nobody waits for who writes to it.
    mkfifo(&file, Mode::S_IRWXU).expect("writable");
    restart_is_aborted(&admin, "it must be a regular file");
    assert_eq!(program(&server.get("/")), first);
    let status = run(binary().args(["status", "--admin"]).arg(format!("unix:{}", admin.display())));
    assert!(status.out.contains("rolling restart aborted, no worker is replaced: "), "{status:?}");
    fs::remove_file(&file).expect("it is there");
    write(&file, "A=2\n");
    restart_is_done(&admin);
    let second = successor(&mut server, &[first]);
    assert_eq!(variable(second, "A").as_deref(), Some("2"));
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_environment() {
    let directory = directory("env-order");
    let file = directory.join("app.env");
    let workers = |flags: &[&str], line: &str, inherited: &str| {
        write(&file, line);
        let mut command = binary();
        command.args(["--check", "--env-file", text(&file)]).args(flags).env("FORKPOOL_WORKERS", inherited);
        run(&mut command)
    };
    for (flags, line, inherited, count) in [
        (&[][..], "", "5", 5),
        (&[], "FORKPOOL_WORKERS=6", "5", 6),
        (&[], "FORKPOOL_WORKERS=", "5", 5),
        (&[], "WEB_CONCURRENCY=6", "5", 5),
        (&["--workers", "7"], "FORKPOOL_WORKERS=6", "5", 7),
        (&["--workers", "7"], "FORKPOOL_WORKERS=6", "", 7),
        (&[], "FORKPOOL_WORKERS=6", "", 6),
    ] {
        let said = workers(flags, line, inherited);
        assert!(said.out.contains(&format!(", {count} workers: as configured")), "{line} {flags:?}: {said:?}");
    }
    let said = workers(&[], "FORKPOOL_MAX_BODY=100m\n\n", "5");
    assert_eq!((said.code, said.out.as_str()), (2, ""), "{said:?}");
    let problem = format!("forkpool: {}:1: max-body: 104857600 bytes do not fit in max-held", file.display());
    assert!(said.problem.starts_with(&problem), "{said:?}");
    let said = workers(&["--workers", "7"], "FORKPOOL_WORKERS=none", "5");
    assert!(said.code == 2 && said.problem.contains(":1: FORKPOOL_WORKERS=none: must be"), "{said:?}");
    write(&file, "FORKPOOL_BALANCE=auto");
    let said = run(binary().args(["exec", "--check", "--env-file", text(&file), "--", "true"]));
    assert!(said.code == 2 && said.problem.contains("balance=auto: a program's connections cannot be"), "{said:?}");
    let said = run(binary().args(["--env-file", "/nowhere/x.env"]));
    assert!(said.code == 1 && said.problem.contains("cannot read variables from /nowhere/x.env: No such"), "{said:?}");
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn a_restart_applies_what_it_can_and_says_what_it_cannot() {
    let directory = directory("env-applies");
    let (file, first, second) = (directory.join("app.env"), directory.join("first"), directory.join("second"));
    for root in [&first, &second] {
        fs::create_dir(root).expect("writable");
        write(&root.join("name.txt"), text(root));
    }
    write(&file, &format!("FORKPOOL_WORKERS=1\nFORKPOOL_ROOT={}\n", first.display()));
    let (mut command, admin) = pool(&directory);
    command.args(["--env-file", text(&file)]);
    let mut server = Server::start(command);
    assert_eq!(server.get("/name.txt").text(), text(&first));
    let other = "FORKPOOL_LISTEN=127.0.0.1:1\nFORKPOOL_BACKLOG=7\n";
    let settings = "FORKPOOL_WORKERS=2\nFORKPOOL_MAX_TARGET=20\nFORKPOOL_CACHE_CONTROL=no-store\n";
    write(&file, &format!("FORKPOOL_ROOT={}\n{settings}{other}", second.display()));
    restart_is_done(&admin);
    server.wait_for("changed, but a restart cannot apply it, only an upgrade (SIGUSR2): listen, backlog");
    let old = |answer: &Answer| answer.text() == text(&first);
    let answer = until("the new root is served", || Some(server.get("/name.txt")).filter(|it| !old(it)));
    assert_eq!((answer.text(), answer.field("cache-control")), (text(&second), Some("no-store")));
    until("the new limit holds", || (server.get(&format!("/{}", "x".repeat(30))).status == 414).then_some(()));
    until("there are two workers and the admin process", || (server.workers().len() == 3).then_some(()));
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn a_restart_that_fails_takes_the_settings_back() {
    let directory = directory("env-back");
    let file = directory.join("app.env");
    write(&file, "WORKS=yes\n");
    let (mut command, admin) = pool(&directory);
    command.args(["exec", "--workers", "1", "--env-file", text(&file), "--ready", "notify", "--", "sh", "-c"]);
    command.args(["test \"$WORKS\" = yes && exec \"$0\""]).arg(listen_fds());
    let mut server = Server::start(command);
    let first = program(&server.get("/"));
    write(&file, "WORKS=no\n");
    restart_is_aborted(&admin, "exited with code 1");
    server.wait_for("restored the settings from before the restart");
    kill(first, Signal::SIGKILL).expect("it runs");
    let second = successor(&mut server, &[first]);
    assert_eq!(variable(second, "WORKS").as_deref(), Some("yes"));
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn handlers_see_the_variables_and_the_directory() {
    let directory = fs::canonicalize(directory("env-handlers")).expect("it is there");
    let file = directory.join("app.env");
    write(&file, "GREETING=hello\n");
    let mut server = Server::start(testbed_command(&[
        ("FORKPOOL_ENV_FILE", text(&file)),
        ("FORKPOOL_CHDIR", text(&directory)),
        ("FORKPOOL_WORKERS", "1"),
    ]));
    assert_eq!(server.get("/var?GREETING").text(), "hello");
    assert_eq!(server.get("/cwd").text(), text(&directory));
    assert_ne!(fs::read_link(format!("/proc/{}/cwd", server.pid())).expect("it runs"), directory, "the parent stays");
    fs::remove_dir_all(&directory).expect("ours");
}

/// A program in one release, which says where it is by its working directory.
fn release(directory: &Path, name: &str) -> PathBuf {
    let release = directory.join(name);
    fs::create_dir(&release).expect("writable");
    symlink(listen_fds(), release.join("serve")).expect("writable");
    fs::canonicalize(release).expect("it is there")
}

fn cwd(pid: Pid) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/cwd")).expect("it runs")
}

#[test]
fn each_start_of_a_worker_follows_the_link() {
    let directory = directory("chdir-link");
    let (first, second) = (release(&directory, "1"), release(&directory, "2"));
    let current = directory.join("current");
    point(&current, &first);
    let (mut command, admin) = pool(&directory);
    command.args(["exec", "--workers", "1", "--chdir", text(&current), "--ready", "notify", "--", "./serve"]);
    let mut server = Server::start(command);
    let mut before = program(&server.get("/"));
    assert_eq!(cwd(before), first);
    point(&current, &second);
    restart_is_done(&admin);
    before = successor(&mut server, &[before]);
    assert_eq!(cwd(before), second);
    // It would answer too while it drains.
    server.wait_for("exited with code 0");
    point(&current, &first);
    kill(before, Signal::SIGKILL).expect("it runs");
    before = successor(&mut server, &[before]);
    assert_eq!(cwd(before), first);
    // What is no directory any more costs no worker.
    fs::remove_file(&current).expect("it is there");
    restart_is_aborted(&admin, &format!("cannot work in (--chdir) {}: No such file", current.display()));
    write(&current, "");
    restart_is_aborted(&admin, &format!("cannot work in (--chdir) {}: Not a directory", current.display()));
    assert_eq!(program(&server.get("/")), before);
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn a_relative_root_is_looked_up_from_there() {
    let directory = directory("chdir-root");
    let releases = ["1", "2"].map(|name| directory.join(name));
    for release in &releases {
        fs::create_dir_all(release.join("public")).expect("writable");
        write(&release.join("public/name.txt"), text(release));
    }
    let current = directory.join("current");
    point(&current, &releases[0]);
    let (mut command, admin) = pool(&directory);
    command.args(["--workers", "1", "--chdir", text(&current), "--root", "public"]);
    let mut server = Server::start(command);
    assert_eq!(server.get("/name.txt").text(), text(&releases[0]));
    point(&current, &releases[1]);
    restart_is_done(&admin);
    until("it is followed", || (server.get("/name.txt").text() == text(&releases[1])).then_some(()));
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn a_directory_that_cannot_be_is_said_at_the_start() {
    let directory = directory("chdir-start");
    let file = directory.join("file");
    write(&file, "");
    for (path, code, problem) in [
        ("/nowhere/at/all", 2, "chdir: /nowhere/at/all does not exist; create it or choose another"),
        (text(&file), 2, "file is no directory; choose another"),
        ("", 2, "--chdir \"\": must not be empty"),
    ] {
        let said = run(binary().args(["--chdir", path]));
        assert!(said.code == code && said.problem.contains(problem), "{said:?}");
    }
    if !geteuid().is_root() {
        return skip("only root can run workers as somebody else");
    }
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).expect("ours");
    let said = run(binary().args(["--user", "nobody", "--chdir", text(&directory)]));
    let problem = format!("cannot work in (--chdir) {}: Permission denied", directory.display());
    assert!(said.code == 1 && said.problem.contains(&problem), "{said:?}");
    fs::remove_dir_all(&directory).expect("ours");
}
