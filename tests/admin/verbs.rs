//! The verbs of the command line, with real pools: what each prints, what it waits for, and its exit code.

#[path = "verbs/manual.rs"]
mod manual;
#[path = "verbs/others.rs"]
mod others;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::sockets::closed_port;
use crate::support::{
    self, binary, connect_unix, example, fresh_path, is_gone, skip, testbed, until, Load, Said, Server,
};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

/// A testbed whose admin process has a Unix socket, and that address.
fn pool(name: &str, variables: &[(&str, &str)]) -> (Server, String) {
    let socket = fresh_path(name);
    let address = format!("unix:{}", socket.display());
    let server = testbed(&[variables, &[("FORKPOOL_ADMIN", &address)]].concat());
    support::until_known(|| connect_unix(&socket).get("/status.json").text().to_owned());
    (server, address)
}

/// Runs a verb, which says at most a line of what is wrong.
#[track_caller]
fn run(command: &mut Command) -> Said {
    let said = support::run(command);
    assert!(said.problem.lines().count() <= 1, "{said:?}");
    said
}

#[track_caller]
fn forkpool(address: &str, arguments: &[&str]) -> Said {
    run(binary().args(arguments).args(["--admin", address]))
}

#[test]
fn the_status_is_a_table_or_an_object() {
    let (_server, address) = pool("status.admin", &[]);
    let said = forkpool(&address, &["status"]);
    assert_eq!((said.code, said.problem.as_str()), (0, ""));
    assert!(said.out.contains("2 of 2 workers serve") && said.out.contains("\nWORKER "), "{said:?}");
    assert!(said.out.ends_with('\n') && !said.out.ends_with("\n\n"), "{said:?}");
    let said = run(binary().args(["status", "--json"]).env("FORKPOOL_ADMIN", &address));
    assert!(said.code == 0 && said.out.starts_with("{\"pool\":{") && said.out.ends_with("}\n"), "{said:?}");
}

#[test]
fn where_no_pool_answers_it_says_so() {
    let nowhere = format!("unix:{}", fresh_path("nowhere.admin").display());
    let (_kept, closed) = closed_port();
    let closed = closed.to_string();
    for verb in [&["status"][..], &["top"], &["restart"], &["scale", "2"], &["stop"], &["upgrade"]] {
        for address in [&nowhere, &closed] {
            let said = forkpool(address, verb);
            let problem = format!("forkpool: no pool answers at {address}: is it running with --admin? (");
            assert!(said.code == 1 && said.out.is_empty() && said.problem.starts_with(&problem), "{said:?}");
        }
    }
}

#[test]
fn whether_it_is_ready_is_an_exit_code() {
    let marker = fresh_path("verbs.ready");
    let fixture = format!("fail-while:{}", marker.display());
    let (mut server, address) = pool("ready.admin", &[("TESTBED", &fixture), ("FORKPOOL_LAME_DUCK", "600s")]);
    let said = forkpool(&address, &["status", "--ready"]);
    assert_eq!((said.code, said.out.as_str(), said.problem.as_str()), (0, "ready\n", ""));
    server.signal(Signal::SIGTERM);
    server.wait_for("lame duck");
    let said = until("it knows", || Some(forkpool(&address, &["status", "--ready"])).filter(|said| said.code != 0));
    assert_eq!((said.code, said.problem.as_str()), (1, ""), "{said:?}");
    assert!(said.out.contains("lame duck"), "{said:?}");
    assert_eq!(forkpool(&address, &["status"]).code, 0, "it answers");
    let said = forkpool(&address, &["status", "--ready", "--json"]);
    assert!(said.code == 2 && said.problem.contains("leave one out"), "{said:?}");
}

#[test]
fn a_restart_is_shown_slot_by_slot() {
    let (mut server, address) = pool("restart.admin", &[]);
    let said = forkpool(&address, &["restart"]);
    assert_eq!((said.code, said.problem.as_str()), (0, ""), "{said:?}");
    let mut lines = said.out.lines();
    for part in ["rolling restart begun", "worker=0 gen=2 ", "worker=1 gen=2 ", "rolling restart done"] {
        assert!(lines.any(|line| line.contains(part)), "{part}: {said:?}");
    }
    assert_eq!(lines.next(), None);
    let said = forkpool(&address, &["restart", "--no-wait"]);
    assert_eq!((said.code, said.out.as_str()), (0, ""));
    server.wait_for("rolling restart done");
    server.wait_for("rolling restart done");
}

#[test]
fn a_restart_that_is_aborted_exits_with_4() {
    let marker = fresh_path("verbs.fail");
    let (fixture, socket) = (format!("fail-while:{}", marker.display()), fresh_path("verbs.socket"));
    let listen = format!("127.0.0.1:0,unix:{}", socket.display());
    let (mut server, address) = pool("aborted.admin", &[("TESTBED", &fixture), ("FORKPOOL_LISTEN", &listen)]);
    fs::write(&marker, "").expect("a writable directory");
    let said = forkpool(&address, &["restart"]);
    assert_eq!((said.code, said.problem.as_str()), (4, ""), "{said:?}");
    let last = said.out.lines().last().expect("it says why");
    assert!(last.starts_with("rolling restart aborted, the other workers stay; worker=0 "), "{last}");
    // The whole pool that would take over fails, too.
    let said = forkpool(&address, &["upgrade"]);
    assert_eq!((said.code, said.problem.as_str()), (4, ""), "{said:?}");
    assert!(
        said.out.lines().last().is_some_and(|line| line.starts_with("upgrade failed, this pool stays")),
        "{said:?}"
    );
    assert_eq!(server.get("/").status, 200);
    // Its end has not removed the files of sockets that are still listened on.
    assert_eq!(connect_unix(&socket).get("/").status, 200);
    fs::remove_file(&marker).expect("it is there");
    assert_eq!(forkpool(&address, &["restart"]).code, 0);
}

#[test]
fn a_verb_waits_across_a_restart_of_the_admin_process() {
    let marker = fresh_path("verbs.wait");
    let (server, address) = pool("killed.admin", &[("TESTBED", &format!("hang-while:{}", marker.display()))]);
    let admin = support::admin_process(&server, || forkpool(&address, &["status", "--json"]).out);
    fs::write(&marker, "").expect("a writable directory");
    let mut scale = binary();
    scale.args(["scale", "3", "--admin", &address]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut scale = scale.spawn().expect("the binary runs");
    let mut lines = BufReader::new(scale.stdout.take().expect("piped")).lines().map_while(Result::ok);
    // The third worker does not get ready.
    assert!(lines.any(|line| line.contains("scaled from 2 to 3 workers")));
    kill(admin, Signal::SIGKILL).expect("it runs");
    assert!(lines.any(|line| line.contains(&format!("admin pid={admin} killed by SIGKILL"))));
    server.signal(Signal::SIGKILL);
    let output = scale.wait_with_output().expect("it ends");
    let problem = String::from_utf8(output.stderr).expect("text");
    assert_eq!((output.status.code(), problem), (Some(1), format!("forkpool: the pool at {address} has ended\n")));
    fs::remove_file(marker).expect("it is there");
}

#[test]
fn scaling_waits_until_so_many_serve() {
    let (_server, address) = pool("scale.admin", &[]);
    for (workers, line, why) in [
        ("4", "scaled from 2 to 4 workers", "4 workers: as scaled;"),
        ("4", "", "4 workers: as scaled;"),
        ("1", "scaled from 4 to 1 workers", "1 worker: as scaled;"),
        ("2", "scaled from 1 to 2 workers", "2 workers: as configured;"),
    ] {
        let said = forkpool(&address, &["scale", workers]);
        assert_eq!((said.code, said.problem.as_str()), (0, ""), "{said:?}");
        assert_eq!(said.out.lines().next().unwrap_or_default(), line, "{said:?}");
        let status = forkpool(&address, &["status"]);
        assert!(status.out.contains(&format!("{workers} of {workers} workers serve")), "{status:?}");
        assert!(status.out.contains(why), "{status:?}");
    }
    let said = forkpool(&address, &["scale", "1025"]);
    let problem =
        format!("forkpool: the pool at {address} refuses: workers must be 1 to 1024, as in /scale?workers=4\n");
    assert_eq!((said.code, said.problem), (1, problem));
}

#[test]
fn scaling_ends_when_the_new_workers_fail() {
    let marker = fresh_path("verbs.scale");
    let fixture = format!("fail-while:{}", marker.display());
    let (_server, address) = pool("scale-fails.admin", &[("TESTBED", &fixture)]);
    fs::write(&marker, "").expect("a writable directory");
    let said = forkpool(&address, &["scale", "4"]);
    assert_eq!((said.code, said.problem.as_str()), (4, ""), "{said:?}");
    let last = said.out.lines().last().unwrap_or_default();
    // Either of the new workers may fail first.
    let expected = [2, 3].map(|worker| {
        format!(
            "scaling failed, still trying for 4 workers; worker={worker} exited with code 1: the testbed was told to fail"
        )
    });
    assert!(expected.iter().any(|expected| expected == last), "{said:?}");
    // What is wanted is wanted still; and who asks again is told again.
    assert!(forkpool(&address, &["status"]).out.contains("2 of 4 workers serve"));
    assert_eq!(forkpool(&address, &["scale", "4"]).code, 4);
    fs::remove_file(&marker).expect("it is there");
    assert_eq!(forkpool(&address, &["scale", "4"]).code, 0);
}

#[test]
fn scaling_ends_when_a_program_ends_as_soon_as_it_runs() {
    let socket = fresh_path("scale-program.admin");
    let address = format!("unix:{}", socket.display());
    let marker = fresh_path("scale-program.marker");
    let script = format!("if [ -e {} ]; then exit 1; fi; exec sleep 60", marker.display());
    let mut command = binary();
    command.args(["exec", "--ready", "listen", "--workers", "1", "--admin", &address, "--", "sh", "-c", &script]);
    let _server = Server::start(command);
    until("it answers", || (forkpool(&address, &["status"]).code == 0).then_some(()));
    fs::write(&marker, "").expect("a writable directory");
    let said = forkpool(&address, &["scale", "3"]);
    assert_eq!((said.code, said.problem.as_str()), (4, ""), "{said:?}");
    assert!(said.out.contains("scaling failed, still trying for 3 workers; worker="), "{said:?}");
    fs::remove_file(&marker).expect("it is there");
}

#[test]
fn stopping_waits_until_the_pool_has_ended() {
    let (mut server, address) = pool("stop.admin", &[]);
    let port = server.port();
    let said = forkpool(&address, &["stop"]);
    assert_eq!((said.code, said.problem.as_str()), (0, ""), "{said:?}");
    assert!(said.out.starts_with("draining: ") && said.out.contains("\nstopped after "), "{said:?}");
    TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn an_upgrade_waits_until_the_new_pool_serves() {
    let pid_file = fresh_path("verbs.pid");
    let (mut server, address) = pool("upgrade.admin", &[("FORKPOOL_PID_FILE", pid_file.to_str().expect("UTF-8"))]);
    let said = forkpool(&address, &["upgrade"]);
    let new: i32 = fs::read_to_string(&pid_file).expect("it is there").trim().parse().expect("a pid");
    assert_eq!((said.code, said.problem.as_str()), (0, ""), "{said:?}");
    assert_eq!(said.out.lines().last(), Some(format!("upgrade done: pid={new} serves").as_str()), "{said:?}");
    assert_eq!(server.wait().code(), Some(0));
    assert!(forkpool(&address, &["status"]).out.contains(&format!("pid {new},")));
    assert_eq!(forkpool(&address, &["stop"]).code, 0);
    until("it is gone", || is_gone(Pid::from_raw(new)).then_some(()));
}

#[test]
fn over_tcp_commands_need_the_token() {
    let token = |name: &str, content: &str| -> PathBuf {
        let path = fresh_path(name);
        fs::write(&path, content).expect("a writable directory");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("it is ours");
        path
    };
    let (right, wrong) = (token("verbs.token", "let-me-in\n"), token("verbs.wrong", "let-me-out\n"));
    let broken = token("verbs.broken", "let me in\r\nHost: a\n");
    let mut command = example("testbed");
    command.env("FORKPOOL_WORKERS", "2").env("FORKPOOL_ADMIN", "127.0.0.1:0");
    command.env("FORKPOOL_ADMIN_TOKEN_FILE", &right);
    let mut server = Server::spawn(command);
    let line = server.wait_for("admin on http://127.0.0.1:");
    server.wait_for("listening on ");
    // As it is in the log.
    let address = line.split(' ').next_back().expect("the address");
    assert_eq!(forkpool(address, &["status"]).code, 0);
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    for (arguments, problem) in [
        (vec!["restart".to_owned()], "refuses: the field Authorization: Bearer TOKEN is missing or wrong\n"),
        (vec!["stop".to_owned(), "--token-file".to_owned(), text(&wrong)], "is missing or wrong\n"),
        (vec!["scale".to_owned(), "1".to_owned(), format!("--token-file={}", text(&broken))], "must hold one word"),
        (vec!["upgrade".to_owned(), "--token-file=/nowhere/x".to_owned()], "cannot read the token in /nowhere/x: "),
    ] {
        let said = forkpool(address, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(said.code == 1 && said.out.is_empty() && said.problem.contains(problem), "{said:?}");
    }
    let said = forkpool(address, &["scale", "1", "--token-file", &text(&right)]);
    assert_eq!((said.code, said.problem.as_str()), (0, ""), "{said:?}");
    let said = run(binary().args(["stop", "--admin", address]).env("FORKPOOL_ADMIN_TOKEN_FILE", &right));
    assert_eq!((said.code, said.problem.as_str()), (0, ""), "{said:?}");
    assert_eq!(server.wait().code(), Some(0));
    [right, wrong, broken].iter().for_each(|path| fs::remove_file(path).expect("it is there"));
}

#[test]
fn without_a_terminal_top_is_plain_text() {
    let (mut server, address) = pool("top.admin", &[]);
    let load = Load::begin(server.port(), &["--connections", "4"]);
    let mut top = binary();
    top.args(["top", "--interval", "100ms", "--admin", &address]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut top = top.spawn().expect("the binary runs");
    let mut lines = BufReader::new(top.stdout.take().expect("piped")).lines().map_while(Result::ok);
    let mut next = |is_wanted: &dyn Fn(&str) -> bool| {
        let line =
            lines.by_ref().inspect(|line| assert!(!line.contains('\x1b'), "{line}")).find(|line| is_wanted(line));
        line.expect("it goes on")
    };
    assert!(next(&|line| line.contains("REQ/S")).starts_with("WORKER "));
    // Nothing is known of before.
    let rate = |line: &str| line.split_whitespace().nth(4).map(str::to_owned);
    assert_eq!(rate(&next(&|line| line.contains("  ready  "))).as_deref(), Some("-"));
    for _ in 0..2 {
        next(&|line| line.starts_with("forkpool "));
        next(&|line| {
            let is_ready = line.contains("  ready  ");
            is_ready && rate(line).is_some_and(|rate| rate.parse::<f64>().is_ok_and(|rate| rate > 0.0))
        });
    }
    load.finish();
    server.signal(Signal::SIGKILL);
    let status = until("it ends with the pool", || {
        // What it prints meanwhile must go somewhere.
        top.try_wait().expect("a child")
    });
    let mut problem = String::new();
    top.stderr.take().expect("piped").read_to_string(&mut problem).expect("text");
    assert!(status.code() == Some(1) && problem.lines().count() == 1, "{problem}");
}

#[test]
fn on_a_terminal_top_ends_with_a_key_and_leaves_it_as_it_was() {
    if Command::new("script").arg("--version").output().is_err() {
        return skip("there is no script(1)");
    }
    let (_server, address) = pool("terminal.admin", &[]);
    for key in ["q", "\x03"] {
        let inner = format!("{} top --interval 100ms --admin {address}; stty -a", env!("CARGO_BIN_EXE_forkpool"));
        let mut script = Command::new("script");
        script.args(["-q", "-e", "-c", &inner, "/dev/null"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = script.spawn().expect("it runs");
        let mut screen = script.stdout.take().expect("piped");
        let mut shown = String::new();
        let mut read_until = |part: &str| {
            let mut bytes = [0; 4096];
            while !shown.contains(part) {
                let len = screen.read(&mut bytes).expect("a pipe");
                assert!(len > 0, "no {part:?} in {shown}");
                shown.push_str(&String::from_utf8_lossy(&bytes[..len]));
            }
            std::mem::take(&mut shown)
        };
        let first = read_until("\x1b[J");
        assert!(first.contains("\x1b[?1049h") && first.contains("WORKER"), "{first:?}");
        let mut keys = script.stdin.take().expect("piped");
        keys.write_all(key.as_bytes()).expect("it reads");
        let rest = read_until(" echo ");
        assert!(rest.contains("\x1b[?25h") && rest.contains("\x1b[?1049l"), "{rest:?}");
        for flag in ["isig", "icanon"] {
            assert!(rest.contains(flag) && !rest.contains(&format!("-{flag}")), "{rest:?}");
        }
        drop(keys);
        until("it ends", || script.try_wait().expect("a child"));
    }
}
