//! What is said of the verbs: help, the man page, and completions in shells.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::run;
use crate::support::{binary, fresh_path, skip};

#[test]
fn every_verb_has_its_help() {
    let help = run(binary().arg("--help")).out;
    let verbs = help.split_once("\nVerbs:\n").and_then(|(_, rest)| rest.split_once("\n\n")).expect("they are there").0;
    let names: Vec<&str> = verbs.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let pools = ["exec", "status", "top", "restart", "reload", "scale", "stop", "upgrade"];
    assert_eq!(names, [&pools[..], &["completions", "man", "help", "version"]].concat());
    for name in names {
        for flag in ["-h", "--help"] {
            let said = run(binary().args([name, flag]));
            assert_eq!((said.code, said.problem.as_str()), (0, ""));
            assert!(said.out.contains(&format!("\nUsage: forkpool {name}")), "{said:?}");
            assert!(said.out.lines().all(|line| line.chars().count() <= 120), "{said:?}");
        }
    }
}

/// The words that bash completes the last of these to.
fn completed(words: &[&str]) -> Vec<String> {
    const SCRIPT: &str =
        "source <(\"$1\" completions bash) && shift && COMP_WORDS=(\"$@\") && COMP_CWORD=$(($# - 1)) && \
                          _forkpool && printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", SCRIPT, "bash", env!("CARGO_BIN_EXE_forkpool"), "forkpool"]).args(words);
    let said = run(&mut bash);
    assert_eq!((said.code, said.problem.as_str()), (0, ""), "{words:?}");
    said.out.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn bash_completes_verbs_options_and_values() {
    if Command::new("bash").arg("--version").output().is_err() {
        return skip("there is no bash");
    }
    for (words, found) in [
        (&["--lis"][..], &["--listen", "--listing"][..]),
        (&["sta"], &["status"]),
        (&["--pin", ""], &["yes", "no"]),
        (&["--listen", ":80", "--pi"], &["--pin", "--pid-file"]),
        (&["status", "--j"], &["--json"]),
        (&["restart", "--"], &["--admin", "--token-file", "--no-wait", "--help"]),
        (&["completions", ""], &["-h", "--help", "bash", "zsh", "fish"]),
        (&["exec", "--re"], &["--ready"]),
        (&["exec", "--ready", "n"], &["notify"]),
        (&["exec", "--balance", ""], &["hash", "random", "cpu", "client"]),
        (&["help", "re"], &["restart", "reload"]),
        (&["exec", "--access"], &[]),
        (&["exec", "--lis"], &["--listen"]),
        (&["exec", "--roo"], &[]),
        (&["exec", "--idle"], &[]),
        (&["exec", "--", "forkpool-there-is-n"], &[]),
        (&["exec", "--", "/bin/"], &[]),
        (&["status", "--", "s"], &[]),
        (&["status", "--admin", ""], &[]),
    ] {
        assert_eq!(completed(words), found, "{words:?}");
    }
    for setting in forkpool::settings() {
        let flag = format!("--{}", setting.name());
        let words = if setting.concerns_server() { &[flag.as_str()][..] } else { &["exec", flag.as_str()] };
        assert!(completed(words).contains(&flag), "{flag}");
    }
}

#[test]
fn shells_complete_the_program_behind_exec() {
    let directory = fresh_path("completed");
    fs::create_dir_all(&directory).expect("writable");
    let script = directory.join("forkpool-only-here");
    fs::write(&script, "").expect("writable");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("ours");
    let path = std::env::var("PATH").expect("there is a PATH");
    let path = format!("{path}:{}", directory.display());
    const BASH: &str =
        "source <(\"$1\" completions bash) && COMP_WORDS=(forkpool exec --workers 2 -- forkpool-only) && \
                        COMP_CWORD=5 && _forkpool && printf '%s\\n' \"${COMPREPLY[@]}\"";
    const FISH: &str = "$argv[1] completions fish | source; complete -C 'forkpool exec --workers 2 -- forkpool-only'; \
                        complete -C 'forkpool exec -- forkpool-only-here --work'; complete -C 'forkpool exec --roo'";
    // Its completion runs only where somebody types.
    const ZSH: &str = r#"
        zmodload zsh/zpty && zpty shell zsh -f -i && zpty -w shell "PROMPT=; autoload -Uz compinit && compinit -u -D"
        zpty -w shell "source <(${(q)1} completions zsh); echo REA''DY" && zpty -r shell out '*READY*'
        zpty -w -n shell $'forkpool exec --workers 2 -- forkpool-only\t' && zpty -r shell out '*only-here*'
        print -r -- "$out""#;
    for (shell, arguments) in [
        ("bash", &["--norc", "-c", BASH, "bash"][..]),
        ("fish", &["-N", "-c", FISH]),
        ("zsh", &["-f", "-c", ZSH, "zsh"]),
    ] {
        // What never comes is waited for no longer.
        let mut command = Command::new("timeout");
        command
            .args(["100", shell])
            .args(arguments)
            .arg(env!("CARGO_BIN_EXE_forkpool"))
            .env("PATH", &path)
            .env("HOME", &directory);
        if Command::new(shell).arg("--version").output().is_err() {
            skip(&format!("there is no {shell}"));
            continue;
        }
        let said = run(&mut command);
        assert!(said.out.contains("forkpool-only-here"), "{shell}: {said:?}");
        assert!(!said.out.contains("--root") && !said.out.contains("--workers <"), "{shell}: {said:?}");
    }
    fs::remove_dir_all(&directory).expect("ours");
}

#[test]
fn exec_lists_only_what_holds_for_a_program() {
    let help = run(binary().args(["exec", "--help"])).out;
    let page = run(binary().arg("man")).out.replace('\\', "");
    let listed =
        page.split_once("these hold for a program: ").and_then(|(_, rest)| rest.split_once(".\n")).expect("a list").0;
    for setting in forkpool::settings() {
        let flag = format!("--{}", setting.name());
        let is_in_help = help.lines().any(|line| line.trim_start().starts_with(&format!("{flag} <")));
        // Those that are not of the binary itself have a section of their own.
        let is_in_page = !setting.concerns_server() || listed.split(", ").any(|word| word == flag);
        let said = run(binary().args(["exec", &flag, "7", "--check", "--", "true"]).env_remove("FORKPOOL_LISTEN"));
        let is_refused = said.problem.contains("try forkpool exec --help") && said.problem.contains("leave");
        assert_eq!((is_in_help, is_in_page), (!is_refused, !is_refused), "{flag}: {said:?}");
        assert_eq!(is_refused, !setting.concerns_programs(), "{flag}: {said:?}");
    }
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(!help.contains("least-connections") && help.contains("[default: random] [FORKPOOL_BALANCE]"), "{help}");
    assert!(!help.contains("access log") && help.contains("Exit codes:"), "{help}");
}

#[test]
fn other_shells_accept_their_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let said = run(binary().args(["completions", shell]));
        assert_eq!((said.code, said.problem.as_str()), (0, ""));
        for setting in forkpool::settings() {
            let name =
                if shell == "fish" { format!(" -l {} ", setting.name()) } else { format!("--{}", setting.name()) };
            assert!(said.out.contains(&name), "{name}");
        }
        if Command::new(shell).arg("--version").output().is_err() {
            skip(&format!("there is no {shell}"));
            continue;
        }
        let path = fresh_path(&format!("completions.{shell}"));
        fs::write(&path, &said.out).expect("a writable directory");
        let said = run(Command::new(shell).arg("-n").arg(&path));
        assert_eq!((said.code, said.problem.as_str()), (0, ""), "{shell}");
        fs::remove_file(&path).expect("it is there");
    }
}

#[test]
fn the_man_page_says_what_the_help_says() {
    let said = run(binary().arg("man"));
    assert_eq!((said.code, said.problem.as_str()), (0, ""));
    let page = said.out;
    assert!(page.is_ascii() && page.starts_with(".TH FORKPOOL 1 "));
    for setting in forkpool::settings() {
        for word in [format!("--{}", setting.name()), setting.variable()] {
            assert!(page.contains(&word.replace('-', "\\-")), "{word}");
        }
    }
    for heading in ["NAME", "SYNOPSIS", "OPTIONS", "FORKPOOL STATUS", "FORKPOOL MAN", "Exit codes"] {
        assert!(page.contains(&format!(".SH \"{heading}\"\n")), "{heading}");
    }
    for (program, arguments) in [("groff", &["-man", "-ww", "-z", "-Tutf8"][..]), ("mandoc", &["-Tlint", "-Werror"])] {
        if Command::new(program).arg("--version").output().is_err() {
            skip(&format!("there is no {program}"));
            continue;
        }
        let path = fresh_path(&format!("page.{program}"));
        fs::write(&path, &page).expect("a writable directory");
        let output = Command::new(program).args(arguments).arg(&path).output().expect("it runs");
        let found = [output.stdout, output.stderr].concat();
        assert_eq!(String::from_utf8_lossy(&found), "", "{program}");
        fs::remove_file(&path).expect("it is there");
    }
}
