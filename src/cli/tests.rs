//! Tests that need no process; `tests/cli.rs` runs real ones.

use std::ffi::OsString;

use super::log::{LogFormat, Verbosity};
use super::*;

fn invocation(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Invocation, String> {
    let arguments = ["forkpool"].iter().chain(arguments).map(OsString::from);
    parse(arguments, &|name| variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.into()))
}

fn options(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Box<Options>, String> {
    match invocation(arguments, variables)? {
        Invocation::Run(options) => Ok(options),
        other => panic!("{other:?}"),
    }
}

#[test]
fn flags_decide_over_variables_about_the_log() {
    use Verbosity::{Quiet, Unsaid, Verbose};
    for (arguments, variables, verbosity) in [
        (&[][..], &[][..], Ok(Unsaid)),
        (&["-q"], &[], Ok(Quiet)),
        (&["--quiet"], &[], Ok(Quiet)),
        (&["-v"], &[], Ok(Verbose(1))),
        (&["-vv"], &[], Ok(Verbose(2))),
        (&["-v", "--verbose"], &[], Ok(Verbose(2))),
        (&[], &[("FORKPOOL_QUIET", "1")], Ok(Quiet)),
        (&[], &[("FORKPOOL_QUIET", "0")], Ok(Unsaid)),
        (&[], &[("FORKPOOL_QUIET", "")], Ok(Unsaid)),
        (&[], &[("FORKPOOL_VERBOSE", "2")], Ok(Verbose(2))),
        (&[], &[("FORKPOOL_VERBOSE", "0")], Ok(Unsaid)),
        (&["-q"], &[("FORKPOOL_VERBOSE", "2")], Ok(Quiet)),
        (&["-v"], &[("FORKPOOL_QUIET", "1")], Ok(Verbose(1))),
        (&[], &[("FORKPOOL_QUIET", "0"), ("FORKPOOL_VERBOSE", "1")], Ok(Verbose(1))),
        (&["-q", "-v"], &[], Err("contradict each other")),
        (&[], &[("FORKPOOL_QUIET", "1"), ("FORKPOOL_VERBOSE", "1")], Err("contradict each other")),
        (&[], &[("FORKPOOL_QUIET", "maybe")], Err("FORKPOOL_QUIET=maybe: must be 1 or 0")),
        (&[], &[("FORKPOOL_VERBOSE", "much")], Err("FORKPOOL_VERBOSE=much: must be")),
    ] {
        let found = options(arguments, variables).map(|options| options.verbosity);
        match verbosity {
            Ok(verbosity) => assert_eq!(found, Ok(verbosity), "{arguments:?} {variables:?}"),
            Err(problem) => assert!(found.clone().is_err_and(|found| found.contains(problem)), "{found:?}"),
        }
    }
}

#[test]
fn the_format_of_the_log_can_be_said_by_flag_and_by_variable() {
    for (arguments, variables, format) in [
        (&[][..], &[][..], LogFormat::Text),
        (&["--log-format", "json"], &[], LogFormat::Json),
        (&["--log-format", "text"], &[("FORKPOOL_LOG_FORMAT", "json")], LogFormat::Text),
        (&[], &[("FORKPOOL_LOG_FORMAT", "json")], LogFormat::Json),
        (&[], &[("FORKPOOL_LOG_FORMAT", "")], LogFormat::Text),
    ] {
        let found = options(arguments, variables).expect("valid").log_format;
        assert_eq!(found, format, "{arguments:?} {variables:?}");
    }
    let problem = options(&[], &[("FORKPOOL_LOG_FORMAT", "xml")]).expect_err("no format");
    assert!(problem.starts_with("FORKPOOL_LOG_FORMAT=xml: must be text or json"), "{problem}");
}

#[test]
fn checking_can_be_asked_for_by_flag_and_by_variable() {
    for (arguments, variables, check) in [
        (&[][..], &[][..], false),
        (&["--check"], &[], true),
        (&["--check"], &[("FORKPOOL_CHECK", "0")], true),
        (&[], &[("FORKPOOL_CHECK", "1")], true),
        (&[], &[("FORKPOOL_CHECK", "yes")], true),
        (&[], &[("FORKPOOL_CHECK", "no")], false),
    ] {
        let found = options(arguments, variables).expect("valid").check;
        assert_eq!(found, check, "{arguments:?} {variables:?}");
    }
}

#[test]
fn a_wrong_command_line_is_one_line_that_names_the_argument() {
    for (arguments, problem) in [
        (&["--lisen", "x"][..], "--lisen is unknown; did you mean --listen? (try forkpool --help)"),
        (&["--frobnicate"], "--frobnicate is unknown (try forkpool --help)"),
        (&["-x"], "-x is unknown (try forkpool --help)"),
        (&["restrat"], "restrat is unknown; did you mean restart? (try forkpool --help)"),
        (&["check"], "check is unknown; write --check (try forkpool --help)"),
        (&["ps"], "ps is unknown; write status (try forkpool --help)"),
        (&["--port", "80"], "--port is unknown; write --listen, as in --listen :8000 (try forkpool --help)"),
        (&["-w", "2"], "-w is unknown; write --workers (try forkpool --help)"),
        (&["exec", "-w", "2"], "-w is unknown; write --workers (try forkpool exec --help)"),
        (&["/srv"], "/srv is unknown; to serve the files of a directory, write --root /srv (try forkpool --help)"),
        (&["--quiet", "stop"], "stop must come before its options (try forkpool --help)"),
        (
            &["status"],
            "which pool? Set --admin or FORKPOOL_ADMIN to the admin address of the pool (try forkpool status --help)",
        ),
        (&["status", "--jsn"], "--jsn is unknown; did you mean --json? (try forkpool status --help)"),
        (&["status", "--json", "--json"], "--json is given twice; leave one out (try forkpool status --help)"),
        (&["status", "--json=1"], "--json takes no value (try forkpool status --help)"),
        (&["status", "all"], "all is unknown (try forkpool status --help)"),
        (&["stop", "--admin"], "--admin needs a value (try forkpool stop --help)"),
        (
            &["scale", "0", "--admin", "x"],
            "scale needs a number of workers, as in forkpool scale 4 (try forkpool scale --help)",
        ),
        (&["scale", "1", "2"], "2 is unknown (try forkpool scale --help)"),
        (
            &["top", "--interval", "1ms", "--admin", "x"],
            "--interval 1ms: must be 100ms to 1h, as in 500ms or 2s (try forkpool top --help)",
        ),
        (
            &["top", "--sort", "pid", "--admin", "x"],
            "--sort pid: must be one of worker, requests, cpu, open, p99, memory (try forkpool top --help)",
        ),
        (&["completions", "csh"], "completions needs bash|zsh|fish (try forkpool completions --help)"),
        (&["help", "restrat"], "restrat is unknown; did you mean restart? (try forkpool --help)"),
        (&["help", "top", "stop"], "stop is unknown (try forkpool help --help)"),
        (&["version", "1"], "1 is unknown (try forkpool version --help)"),
        (
            &["reload"],
            "which pool? Set --admin or FORKPOOL_ADMIN to the admin address of the pool (try forkpool reload --help)",
        ),
        (&["a\nb"], "a\\nb is unknown (try forkpool --help)"),
        (&["--listen"], "--listen needs a value (try forkpool --help)"),
        (&["a.js"], "a.js is unknown (try forkpool --help)"),
        (&["--ready", "listen"], "--ready is for forkpool exec (try forkpool exec --help)"),
        (&["--prefix", "yes"], "--prefix is for forkpool exec (try forkpool exec --help)"),
        (&["exec"], "exec needs a program, as in forkpool exec -- node app.js (try forkpool exec --help)"),
        (&["exec", "--"], "exec needs a program, as in forkpool exec -- node app.js (try forkpool exec --help)"),
        (&["exec", "--ready"], "--ready needs a value (try forkpool exec --help)"),
        (&["exec", "--raedy", "x"], "--raedy is unknown; did you mean --ready? (try forkpool exec --help)"),
        (&["exec", "--prefix=yes", "--prefix=no"], "--prefix is given twice; leave one out (try forkpool exec --help)"),
        (&["exec", "--log-format", "xml", "x"], "--log-format xml: must be text or json (try forkpool exec --help)"),
        (
            &["exec", "--balance", "auto", "x"],
            "--balance auto: a program's connections cannot be counted; choose random, hash, cpu or client (try \
             forkpool exec --help)",
        ),
        (
            &["exec", "--root", "/", "x"],
            "--root serves files and exec a program; leave one out (try forkpool exec --help)",
        ),
        (
            &["exec", "--access-log", "-", "x"],
            "--access-log logs what forkpool itself answers, not a program; leave it out (try forkpool exec --help)",
        ),
        (
            &["exec", "--idle-timeout", "9", "x"],
            "--idle-timeout is for forkpool's own server, not for a program; leave it out (try forkpool exec --help)",
        ),
        (
            &["exec", "--spa=yes", "x"],
            "--spa is for forkpool's own server, not for a program; leave it out (try forkpool exec --help)",
        ),
        (&["--log-format", "xml"], "--log-format xml: must be text or json (try forkpool --help)"),
        (
            &["--log-format", "json", "--log-format", "json"],
            "--log-format is given twice; leave one out (try forkpool --help)",
        ),
        (&["--quiet=1"], "--quiet takes no value (try forkpool --help)"),
        (&["--workers", "1", "--workers", "2"], "--workers is given twice; leave one out (try forkpool --help)"),
        (&["-q", "-v"], "--quiet and --verbose contradict each other; leave one out (try forkpool --help)"),
    ] {
        assert_eq!(invocation(arguments, &[]).map(|_| ()), Err(problem.to_owned()), "{arguments:?}");
    }
}

#[test]
fn a_program_is_what_follows_the_options() {
    for (arguments, variables, ready, words) in [
        (&["exec", "--", "node", "app.js"][..], &[][..], "auto", "node app.js"),
        (&["exec", "node", "--quiet", "--", "--ready"], &[], "auto", "node --quiet -- --ready"),
        (&["--quiet", "exec", "--workers", "2", "exec"], &[], "auto", "exec"),
        (&["exec", "--", "status"], &[], "auto", "status"),
        (&["exec", "top", "restart"], &[], "auto", "top restart"),
        (&["exec", "--ready", "listen", "x"], &[("FORKPOOL_READY", "notify")], "listen", "x"),
        (&["exec", "--ready=delay:500", "x"], &[], "delay:500ms", "x"),
        (&["--ready=delay:2s", "exec", "x"], &[], "delay:2s", "x"),
        (&["exec", "x"], &[("FORKPOOL_BALANCE", "hash")], "auto", "x"),
        (&["exec", "--balance", "cpu", "x"], &[("FORKPOOL_BALANCE", "auto")], "auto", "x"),
    ] {
        let options = options(arguments, variables).expect("valid");
        let program = options.program.expect("exec was said");
        let pieces = words.split(' ').map(|word| format!("{word:?}")).collect::<Vec<_>>();
        let (name, rest) = pieces.split_first().expect("a program");
        let expected = format!("Program {{ name: {name}, arguments: [{}] }}", rest.join(", "));
        assert_eq!(format!("{program:?}"), expected, "{arguments:?}");
        assert_eq!(options.pool.get("ready").expect("valid").as_deref(), Some(ready), "{arguments:?}");
    }
    assert!(options(&[], &[]).expect("valid").program.is_none());
}

#[test]
fn every_word_of_a_setting_is_completed() {
    for shell in ["bash", "zsh", "fish"] {
        let Ok(Invocation::Text(script)) = invocation(&["completions", shell], &[]) else { panic!("{shell}") };
        for setting in forkpool::settings().filter(|setting| !setting.words().is_empty()) {
            let (name, words) = (setting.name(), setting.words().join(" "));
            let verb = if setting.concerns_server() { "" } else { "exec" };
            let completes = |line: &str| match shell {
                "bash" => line.trim() == format!("{verb}:--{name}) words='{words}' ;;"),
                "zsh" => line.contains(&format!("'--{name}[")) && line.contains(&format!("]:value:({words})'")),
                _ => line.contains(&format!(" -l {name} -x -a '{words}' ")),
            };
            assert!(script.lines().any(completes), "{shell}: {name} {words}\n{script}");
        }
    }
}

#[test]
fn users_and_directories_are_completed() {
    for (shell, expected) in [
        ("bash", [":--user) mapfile -t COMPREPLY < <(compgen -u", ":--root) mapfile -t COMPREPLY < <(compgen -d"]),
        ("zsh", ["]:value:_users'", "]:value:_files -/'"]),
        ("fish", ["-l user -x -a '(__fish_complete_users)'", "-l root -x -a '(__fish_complete_directories)'"]),
    ] {
        let Ok(Invocation::Text(script)) = invocation(&["completions", shell], &[]) else { panic!("{shell}") };
        assert!(expected.iter().all(|part| script.contains(part)), "{shell}: {script}");
    }
}

#[test]
fn every_verb_is_listed_and_has_help() {
    let printed = |arguments: &[&str]| match invocation(arguments, &[]) {
        Ok(Invocation::Text(text)) => text,
        other => panic!("{arguments:?}: {other:?}"),
    };
    let verbs = ["exec", "status", "top", "restart", "reload", "scale", "stop", "upgrade", "completions", "man"];
    for verb in verbs.into_iter().chain(["help", "version"]) {
        for help in [printed(&["--help"]), printed(&["-h"]), printed(&["help"])] {
            assert!(help.lines().any(|line| line.trim_start().split(' ').next() == Some(verb)), "{verb}: {help}");
        }
        let help = printed(&["help", verb]);
        assert!(help.contains(&format!("Usage: forkpool {verb} ")), "{help}");
        assert_eq!(help, printed(&[verb, "--help"]));
    }
    assert_eq!(printed(&["version"]), printed(&["--version"]));
}
