//! The real binary's command line: help, version, check, and every bad input that needs no running server.
//!
//! Everything but help and version is asked with `--check`, so that a test which fails leaves no server behind.

use std::ffi::OsStr;
use std::fs::File;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use forkpool::Setting;
use nix::unistd::Uid;

/// The binary, without any variable that would configure it.
fn forkpool() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forkpool"));
    for (name, _) in std::env::vars_os() {
        let ours = name.as_bytes().starts_with(b"FORKPOOL_");
        if ours || ["PORT", "WEB_CONCURRENCY", "CLUSTER_WORKERS", "RUST_LOG"].iter().any(|other| name == *other) {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::null());
    command
}

fn output(command: &mut Command) -> Output {
    command.output().expect("the binary runs")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the binary prints UTF-8")
}

/// Runs `--check` with what is given and expects it to be valid.
#[track_caller]
fn valid(arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let output = output(forkpool().arg("--check").args(arguments).envs(variables.iter().copied()));
    assert_eq!(text(&output.stderr), "", "{arguments:?} {variables:?}");
    assert_eq!(output.status.code(), Some(0), "{arguments:?} {variables:?}");
    let line = text(&output.stdout).strip_prefix("configuration is valid: ").expect("it says so");
    assert_eq!(line.lines().count(), 1, "{line}");
    line.trim_end().to_owned()
}

/// Runs `--check` with what is given and expects one line on stderr and this exit code.
#[track_caller]
fn invalid(code: i32, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    refused(code, forkpool().arg("--check").args(arguments).envs(variables.iter().copied()))
}

#[track_caller]
fn refused(code: i32, command: &mut Command) -> String {
    let output = output(command);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(stdout, "", "{command:?}");
    let line = stderr.strip_prefix("forkpool: ").unwrap_or_else(|| panic!("{command:?}: {stderr}"));
    assert!(line.ends_with('\n') && line.lines().count() == 1, "{command:?}: {stderr}");
    assert_eq!(output.status.code(), Some(code), "{command:?}: {stderr}");
    line.trim_end().to_owned()
}

#[test]
fn help_lists_every_setting() {
    let long = output(forkpool().arg("--help"));
    assert_eq!((long.status.code(), text(&long.stderr)), (Some(0), ""));
    let short = output(forkpool().arg("-h")).stdout;
    let short = text(&short);
    assert!(short.lines().count() < 40 && short.contains("forkpool --help"), "{short}");
    assert_eq!(output(forkpool().arg("help")).stdout, long.stdout);

    let help = text(&long.stdout);
    let mut rest = help;
    for heading in [
        "forkpool ",
        "Usage: forkpool [OPTIONS]",
        "Examples:",
        "Listening:",
        "Workers:",
        "HTTP limits:",
        "HTTP timeouts:",
        "Static files:",
        "Access log:",
        "Process:",
        "Output:",
        "Values:",
        "Signals",
        "Exit codes:",
    ] {
        let (_, after) = rest.split_once(heading).unwrap_or_else(|| panic!("no {heading:?}, or not in its place"));
        rest = after;
    }
    for setting in forkpool::settings().filter(|setting| setting.concerns_server()) {
        let aliases = setting.aliases().map(String::from);
        let default = setting.default().map(|default| format!("[default: {default}]"));
        let words = [format!("--{} <{}>", setting.name(), setting.value_name()), setting.variable()];
        for word in words.into_iter().chain(aliases).chain(default) {
            assert!(help.contains(&word), "{word} is missing");
        }
    }
    let longest = help.lines().max_by_key(|line| line.chars().count()).expect("it has lines");
    assert!(longest.chars().count() <= 120, "{longest}");
}

#[test]
fn the_version_is_the_package_s() {
    for flag in ["--version", "-V"] {
        let output = output(forkpool().arg(flag));
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
        assert_eq!(text(&output.stdout), concat!("forkpool ", env!("CARGO_PKG_VERSION"), "\n"));
    }
}

#[test]
fn output_to_a_closed_pipe_is_no_error() {
    let mut child =
        forkpool().arg("--help").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the binary runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    for arguments in [&["--help"][..], &["--version"], &["--check"], &["man"], &["completions", "bash"]] {
        let full = File::options().write(true).open("/dev/full").expect("Linux has it");
        let output = output(forkpool().args(arguments).stdout(full));
        let problem = "forkpool: cannot write to standard output: No space left on device (os error 28)\n";
        assert_eq!((output.status.code(), text(&output.stderr)), (Some(1), problem), "{arguments:?}");
    }
}

#[test]
fn the_check_says_what_would_be_served() {
    for (arguments, variables, line) in [
        (&["--workers", "2"][..], &[][..], "listens on 127.0.0.1:8000, 2 workers: as configured"),
        (
            &["--workers", "1", "--listen", ":80", "--listen", "unix:x"],
            &[],
            "listens on :80, unix:x, 1 worker: as configured",
        ),
        (&["--workers", "1", "--listen", ":80,[::1]:81"], &[], "listens on :80, [::1]:81, 1 worker: as configured"),
        (&["--workers", "1"], &[("PORT", "81")], "listens on :81, 1 worker: as configured"),
        (
            &["--workers", "1", "--listen", "localhost:80"],
            &[("PORT", "81")],
            "listens on 127.0.0.1:80, 1 worker: as configured",
        ),
        (
            &[],
            &[("CLUSTER_WORKERS", "3"), ("WEB_CONCURRENCY", "4")],
            "listens on 127.0.0.1:8000, 3 workers: as configured",
        ),
        (&[], &[("WEB_CONCURRENCY", "4")], "listens on 127.0.0.1:8000, 4 workers: as configured"),
        (&["--workers=5"], &[("WEB_CONCURRENCY", "4")], "listens on 127.0.0.1:8000, 5 workers: as configured"),
    ] {
        assert_eq!(valid(arguments, variables), line);
    }
    assert!(valid(&["--workers", "auto"], &[]).contains("CPU"));
}

#[test]
fn the_check_touches_nothing() {
    let directory = Scratch::new("check");
    let (socket, pid_file) = (directory.path("socket"), directory.path("pid"));
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = held.local_addr().expect("it is bound").to_string();
    valid(&["--listen", &address, "--listen", &format!("unix:{socket}"), "--pid-file", &pid_file], &[]);
    assert_eq!(directory.names(), [""; 0]);
}

/// Flag, then variable, then default: whichever decides is the one that is found to be wrong.
#[test]
fn a_flag_wins_over_its_variable_and_that_over_the_default() {
    for setting in forkpool::settings() {
        if ["user", "group"].contains(&setting.name()) && !Uid::effective().is_root() {
            eprintln!("skipped {}: only root may change it", setting.name());
            continue;
        }
        let needs_others = ["admin-token-file", "admin-host", "env-file", "https-redirect"].contains(&setting.name());
        if needs_others || setting.name().starts_with("tls-") {
            // They are only allowed beside another setting or with a file: tests of the admin process, reload.rs and
            // tls.rs have them.
            continue;
        }
        let (flag, variable) = (format!("--{}", setting.name()), setting.variable());
        let (good, by_flag, by_variable) = values(setting);
        let (exec, program) = match setting.concerns_server() {
            true => (&[][..], &[][..]),
            false => (&["exec"][..], &["true"][..]),
        };
        let arguments = |flags: &[&'static str]| [exec, flags, program].concat();
        let flag: &'static str = flag.leak();
        valid(&arguments(&[flag, good]), &[(&variable, by_variable)]);
        valid(&arguments(&[]), &[(&variable, good)]);
        valid(&arguments(&[]), &[(&variable, "")]);
        for (flags, variables, wrong) in [
            (&[flag, by_flag][..], &[(variable.as_str(), good)][..], by_flag),
            (&[flag, by_flag], &[(&variable, by_variable)], by_flag),
            (&[], &[(&variable, by_variable)], by_variable),
        ] {
            let code = if setting.value_name() == "PATH" { 1 } else { 2 };
            let line = invalid(code, &arguments(flags), variables);
            assert!(line.contains(wrong), "{line}");
        }
    }
}

/// A valid value, and two wrong ones that can be told apart.
fn values(setting: &Setting) -> (&'static str, &'static str, &'static str) {
    match setting.value_name() {
        "ADDR" => ("127.0.0.1:1", "wrong-flag", "wrong-variable"),
        "DIR" => ("/", "/nowhere-flag", "/nowhere-variable"),
        "PATTERN" => ("src/**", "/nowhere-flag", "/nowhere-variable"),
        "VALUE" => ("no-store", "\u{e9}-flag", "\u{e9}-variable"),
        "WHICH" => ("none", "wrong-flag", "wrong-variable"),
        "NAME" => ("root", "no-such-flag", "no-such-variable"),
        "PATH" => ("x.pid", "/nowhere-flag/x", "/nowhere-variable/x"),
        "DURATION" => ("7s", "wrong-flag", "wrong-variable"),
        "answer|exit" => ("exit", "wrong-flag", "wrong-variable"),
        "kill|abort" => ("abort", "wrong-flag", "wrong-variable"),
        "auto|off" => ("off", "wrong-flag", "wrong-variable"),
        "auto|off|strict" => ("strict", "wrong-flag", "wrong-variable"),
        "yes|no" => ("yes", "wrong-flag", "wrong-variable"),
        "FORMAT" => ("json", "wrong-flag", "wrong-variable"),
        "FIELD" => ("/a X-A: b, c", "wrong-flag", "wrong-variable"),
        "EXT=TYPE" => ("a=b/c; d=e", "wrong-flag", "wrong-variable"),
        "CIDR" => ("10.0.0.0/8", "wrong-flag", "wrong-variable"),
        "HEADER" => ("forwarded", "wrong-flag", "wrong-variable"),
        "auto|off|require" => ("require", "wrong-flag", "wrong-variable"),
        "SIGNAL" => ("QUIT", "wrong-flag", "wrong-variable"),
        ready if ready.starts_with("auto|notify") => ("delay:1s", "wrong-flag", "wrong-variable"),
        "METHOD" => ("random", "wrong-flag", "wrong-variable"),
        // Room for the longest default target.
        "BYTES" if setting.name() == "max-head" => ("9k", "wrong-flag", "wrong-variable"),
        // Room for the longest default body.
        "BYTES" if setting.name() == "max-held" => ("2m", "wrong-flag", "wrong-variable"),
        "BYTES" => ("1k", "wrong-flag", "wrong-variable"),
        _ => ("7", "wrong-flag", "wrong-variable"),
    }
}

#[test]
fn a_wrong_command_line_is_refused_with_the_remedy() {
    let long = format!("unix:/{}", "x".repeat(107));
    for (arguments, remedy) in [
        (&["--lisen", "127.0.0.1:1"][..], "did you mean --listen? (try forkpool --help)"),
        (&["--frobnicate"], "--frobnicate is unknown (try forkpool --help)"),
        (&["serve"], "serve is unknown; forkpool without a verb starts a pool"),
        (&["--listen"], "--listen needs a value (try forkpool --help)"),
        (&["--quiet", "--verbose"], "leave one out"),
        (&["--workers", "1", "--workers", "2"], "leave one out"),
        (&["--listen", "8000"], "write :8000"),
        (&["--listen", "example.org:80"], "write 127.0.0.1:8000"),
        (&["--listen", "127.0.0.1:65536"], "from 0 (a free one) to 65535"),
        (&["--listen", "::1:80"], "as in [::1:80]:8000"),
        (&["--listen", "/run/x.sock"], "write unix:/run/x.sock"),
        (&["--listen", "unix:@x"], "give a path"),
        (&["--listen", &long], "choose a shorter one"),
        (&["--listen", ""], "as in 127.0.0.1:8000"),
        (&["--workers", "0"], "must be 1 to 1024, or auto"),
        (&["--workers", "100000"], "must be 1 to 1024, or auto"),
        (&["--workers", "-1"], "must be 1 to 1024, or auto"),
        (&["--workers", "many"], "must be 1 to 1024, or auto"),
        (&["--backlog", "0"], "must be 1 to"),
        (&["--unix-mode", "0999"], "as in 0660"),
        (&["--drain-timeout", "2 days"], "as in 500ms, 30s"),
        (&["--idle-timeout", "48h"], "1ms to 24h, or 0 for never"),
        (&["--stall-timeout", "1ms"], "100ms to 24h, or 0 for never"),
        (&["--max-body", "1XB"], "as in 8KiB, 1MiB"),
        (&["--max-fields", "129"], "must be 1 to 128"),
        (&["--max-head", "4k"], "lower max-target or raise max-head"),
        (&["--listen", ":1", "--listen", ":1"], "leave one out"),
        (&["--listen", ":1", "--listen", "127.0.0.1:1"], "leave one out"),
        (&["--listen", "unix:x", "--pid-file", "x"], "choose another"),
    ] {
        let line = invalid(2, arguments, &[]);
        assert!(line.contains(remedy), "{arguments:?}: {line}");
    }
    let line = refused(2, forkpool().arg("--check").arg("--user").arg(OsStr::from_bytes(b"\xe9")));
    assert!(line.contains("not valid UTF-8"), "{line}");
}

#[test]
fn a_wrong_variable_is_refused_by_its_name_and_value() {
    for (variable, value, remedy) in [
        ("FORKPOOL_LISTEN", "127.0.0.1:80,8000", "write :8000"),
        ("PORT", "http", "from 0 (a free one) to 65535"),
        ("PORT", "127.0.0.1:80", "has no IP address"),
        ("FORKPOOL_WORKERS", "0", "must be 1 to 1024, or auto"),
        ("CLUSTER_WORKERS", "many", "must be 1 to 1024, or auto"),
        ("WEB_CONCURRENCY", "100000", "must be 1 to 1024, or auto"),
        ("FORKPOOL_DRAIN_TIMEOUT", "soon", "as in 500ms, 30s"),
        ("FORKPOOL_MAX_BODY", "1XB", "as in 8KiB, 1MiB"),
        ("FORKPOOL_QUIET", "maybe", "must be 1 or 0"),
        ("FORKPOOL_VERBOSE", "much", "must be 1 for debug"),
        ("FORKPOOL_CHECK", "perhaps", "must be 1 or 0"),
    ] {
        // A flag --check would win over FORKPOOL_CHECK; that one is refused before anything runs.
        let mut command = forkpool();
        command.args((variable != "FORKPOOL_CHECK").then_some("--check")).env(variable, value);
        let line = refused(2, &mut command);
        assert!(line.starts_with(&format!("{variable}={value}: ")) && line.contains(remedy), "{line}");
    }
    let line = invalid(2, &[], &[("FORKPOOL_QUIET", "1"), ("FORKPOOL_VERBOSE", "1")]);
    assert!(line.contains("unset one"), "{line}");
}

#[test]
fn a_program_that_would_be_ready_too_late_is_refused() {
    assert_eq!(
        invalid(2, &["exec", "--ready", "delay:10m", "--boot-timeout", "1m", "--", "sh"], &[]),
        "--boot-timeout: 60s is over before the program is ready, 600s after it is executed; raise boot-timeout or \
         shorten the delay"
    );
    valid(&["exec", "--ready", "delay:10m", "--boot-timeout", "0", "--", "sh"], &[]);
}

#[test]
fn a_pid_file_that_cannot_be_written_is_refused() {
    let directory = Scratch::new("pid");
    let file = directory.path("file");
    std::fs::write(&file, "").expect("writable");
    let beneath = format!("{file}/x.pid");
    for (path, remedy) in [
        ("/nowhere/x.pid", "create it or choose another"),
        (directory.path("").as_str(), "add the file's name"),
        (beneath.as_str(), "is no directory; choose another"),
    ] {
        let line = invalid(1, &["--pid-file", path], &[]);
        assert!(line.starts_with("cannot write the pid file ") && line.contains(remedy), "{line}");
    }
}

#[test]
fn a_pid_file_s_directory_must_be_writable() {
    let mut command = forkpool();
    command.args(["--check", "--pid-file", "/x.pid"]);
    if Uid::effective().is_root() {
        const NOBODY: u32 = 65534;
        command.uid(NOBODY);
    }
    if let Err(error) = command.output() {
        eprintln!("skipped: nobody but root can run the binary here: {error}");
        return;
    }
    let line = refused(1, &mut command);
    assert!(line.contains("the directory / is not writable"), "{line}");
}

#[test]
fn a_unix_socket_s_directory_must_exist() {
    let line = invalid(1, &["--listen", "unix:/nowhere/x"], &[]);
    assert_eq!(
        line,
        "cannot listen on unix:/nowhere/x: the directory /nowhere does not exist; create it or choose another"
    );
}

#[test]
fn a_user_that_does_not_exist_is_refused() {
    let remedy = if Uid::effective().is_root() { "see getent passwd" } else { "start as root or leave it out" };
    let line = invalid(2, &["--user", "no-such-user"], &[]);
    assert!(line.contains(remedy), "{line}");
}

/// A directory for one test, removed at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).expect("the target directory is writable");
        Scratch(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("the target directory's path is UTF-8").to_owned()
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("it exists");
        entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn words_of_other_programs_are_understood() {
    assert_eq!(output(forkpool().arg("version")).stdout, output(forkpool().arg("--version")).stdout);
    for verb in ["exec", "restart", "reload"] {
        assert_eq!(output(forkpool().args(["help", verb])).stdout, output(forkpool().args([verb, "--help"])).stdout);
    }
    let unknown = output(forkpool().args(["help", "restrat"]));
    assert!(text(&unknown.stderr).contains("did you mean restart?"), "{unknown:?}");

    // A switch alone means yes; values as systemd takes them.
    for arguments in [
        &["--root", "/", "--listing"][..],
        &["--root", "/", "--listing", "no", "--spa"],
        &["--root", "/", "--listing=yes"],
        &["--drain-timeout", "1m30s", "--max-body", "1.5MB"],
    ] {
        valid(arguments, &[]);
    }
    let wrong = output(forkpool().args(["--root", "/", "--listing", "maybe", "--check"]));
    assert!(text(&wrong.stderr).contains("must be yes or no"), "{wrong:?}");

    let slip = output(forkpool().arg("--check").env("FORKPOOL_WORKRES", "3"));
    assert_eq!(slip.status.code(), Some(0));
    assert!(text(&slip.stderr).contains("did you mean FORKPOOL_WORKERS?"), "{slip:?}");
}
