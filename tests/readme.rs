//! The commands of README.md and scripts/README.md, as they stand there: only paths, ports and the user are those of
//! the test.
//!
//! Those that measure for minutes are asked for their help, or are there; the two commands at its top are what runs all
//! of this.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use nix::sys::signal::Signal;
use support::{binary, fresh_path, is_there, skip, Server};

const README: &str = include_str!("../README.md");
const SCRIPTS: &str = include_str!("../scripts/README.md");

/// Its lines that are commands, without what is said about them.
fn commands(readme: &'static str) -> Vec<&'static str> {
    let is_command = |line: &&str| ["forkpool", "scripts/", "cargo", "export"].iter().any(|it| line.starts_with(it));
    let lines = readme.lines().filter_map(|line| line.strip_prefix("    ")).filter(is_command);
    lines.filter(|line| !line.contains("::")).map(|line| line.split("  ").next().unwrap_or(line)).map(trimmed).collect()
}

fn trimmed(line: &'static str) -> &'static str {
    line.split(" #").next().unwrap_or(line).trim()
}

/// A directory for what the commands name.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = fresh_path(name);
        fs::create_dir_all(path.join("www")).expect("a writable directory");
        fs::write(path.join("www/index.html"), "front\n").expect("a writable directory");
        fs::write(
            path.join("app.js"),
            "const server = require('http').createServer((_, response) => response.end('hello\\n'));\n\
             process.on('SIGTERM', () => server.close());\nserver.listen({ fd: 3 });\n",
        )
        .expect("a writable directory");
        for (name, certificate) in [("fullchain.pem", "a.pem"), ("privkey.pem", "a.key")] {
            let certificates = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/certificates");
            fs::copy(certificates.join(certificate), path.join(name)).expect("a writable directory");
        }
        Place(path)
    }

    /// The command, with what is here in the place of what is there.
    fn command(&self, line: &str) -> Command {
        let here = self.0.display().to_string();
        let user = nix::unistd::User::from_uid(nix::unistd::getuid()).ok().flatten().map(|user| user.name);
        let line = line
            .replace("/srv/www", &format!("{here}/www"))
            .replace("/run/", &format!("{here}/"))
            .replace("--listen :80 ", "--listen 127.0.0.1:0 ")
            .replace("--listen :8000", "--listen 127.0.0.1:0")
            .replace("--tls-listen :443 ", "--tls-listen 127.0.0.1:0 ")
            .replace("--user www-data ", &user.map(|user| format!("--user {user} ")).unwrap_or_default());
        let mut command = binary();
        command.args(line.split(' ').skip(1)).current_dir(&self.0).env("FORKPOOL_LISTEN", "127.0.0.1:0");
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn finished(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("it runs");
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

#[test]
fn the_commands_that_serve() {
    let place = Place::new("readme-serve");
    let serving: Vec<_> = commands(README).into_iter().filter(|line| line.starts_with("forkpool -")).collect();
    assert!(serving.len() >= 3, "{serving:?}");
    for line in serving {
        if line.contains("--tls-") && !cfg!(feature = "tls") {
            skip("the feature tls is off");
            continue;
        }
        let mut server = Server::start(place.command(line));
        let status = if line.contains("--https-redirect") { 308 } else { 200 };
        assert_eq!(server.get("/").status, status, "{line}");
        server.signal(Signal::SIGTERM);
        assert_eq!(server.wait().code(), Some(0), "{line}");
    }
}

#[test]
fn the_command_that_executes_a_program() {
    let place = Place::new("readme-exec");
    let line = commands(README).into_iter().find(|line| line.starts_with("forkpool exec ")).expect("it is shown");
    if Command::new("node").arg("--version").output().is_err() {
        return skip("there is no node");
    }
    let mut server = Server::start(place.command(line));
    assert_eq!(server.get("/").text(), "hello\n");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_verbs_one_after_the_other() {
    let place = Place::new("readme-verbs");
    let lines = commands(README);
    let start = lines.iter().position(|line| line.starts_with("forkpool --admin ")).expect("it is shown");
    let mut server = Server::start(place.command(lines[start]));
    let address = lines[start + 1].strip_prefix("export FORKPOOL_ADMIN=").expect("the variable comes next");
    let address = address.replace("/run/", &format!("{}/", place.0.display()));
    support::until_known(|| {
        let status = finished(binary().args(["status", "--json", "--admin", &address]));
        String::from_utf8(status.stdout).expect("text")
    });
    let verbs: Vec<_> = lines[start + 2..].iter().take_while(|line| line.starts_with("forkpool ")).collect();
    assert_eq!(verbs.len(), 7, "{verbs:?}");
    for line in verbs {
        match *line {
            // Without an end, unless its reader goes away.
            "forkpool top" => {
                let mut command = Command::new("sh");
                command.args(["-c", "\"$0\" top | head -n 3", env!("CARGO_BIN_EXE_forkpool")]);
                let top = finished(command.env("FORKPOOL_ADMIN", &address));
                assert_eq!(String::from_utf8_lossy(&top.stdout).lines().count(), 3, "{top:?}");
            }
            line => _ = finished(place.command(line).env("FORKPOOL_ADMIN", &address)),
        }
    }
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn the_commands_that_measure() {
    if !is_there("python3", &["--version"]) {
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for line in [commands(README), commands(SCRIPTS)].concat() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            [script, ref words @ ..] if script.starts_with("scripts/") => {
                let mut command = Command::new(root.join(script));
                if script == "scripts/bench" {
                    command.arg(words.first().expect("a subcommand"));
                }
                let help = finished(command.arg("--help"));
                let help = String::from_utf8_lossy(&help.stdout).into_owned();
                for flag in words.iter().filter(|word| word.starts_with("--")) {
                    assert!(help.contains(flag), "{line}: there is no {flag}");
                }
            }
            ["cargo", "run", "--release", "--example", name, ..] => {
                let files = [format!("examples/{name}.rs"), format!("tests/tools/{name}.rs")];
                assert!(files.iter().any(|file| root.join(file).exists()), "{line}");
            }
            ["cargo", "install", "--path", ".", "--profile", "dist"]
            | ["cargo", "build", "--release", "--examples"]
            | ["cargo", "run", "--release"]
            | ["cargo", "test"] => {}
            ["forkpool" | "export", ..] => {}
            _ => panic!("{line} is run by no test"),
        }
    }
}

#[test]
fn every_file_that_is_named_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for place in ["", "scripts", "examples", "examples/deploy"] {
        let readme = fs::read_to_string(root.join(place).join("README.md")).expect("each has one");
        let targets = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.starts_with("http")) {
            let target = target.split('#').next().unwrap_or(target);
            assert!(root.join(place).join(target).exists(), "{place}: {target}");
        }
        for name in readme.split('`').skip(1).step_by(2).filter(|it| it.starts_with("scripts/")) {
            let script = name.split(' ').next().unwrap_or(name);
            assert!(root.join(script).exists(), "{place}: {name}");
        }
    }
}

#[test]
fn every_example_is_named() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let readme = fs::read_to_string(root.join("README.md")).expect("it has one");
    for entry in fs::read_dir(root).expect("the examples") {
        let name = entry.expect("an example").file_name().into_string().expect("text");
        if let Some(name) = name.strip_suffix(".rs") {
            assert!(readme.contains(&format!("`{name}`")), "{name}");
        }
    }
}
