//! The load clients of the project speak TLS, and count sessions correctly.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};

use crate::browser::{address, file, testbed};
use crate::support::{example, fresh_path, is_there, skip, until};

type Values = BTreeMap<String, u64>;

/// The keys and values of a client's last line.
#[track_caller]
fn finished(mut command: Command) -> Values {
    let output = command.output().expect("the example is built");
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{command:?}: {said}{errors}");
    let pairs = said.lines().last().unwrap_or_default().split_whitespace().filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.parse().expect("a number"))).collect()
}

#[test]
fn load_counts_what_was_lost_and_which_sessions_were_resumed() {
    let mut server = testbed(&[]);
    let address = address(&mut server).to_string();
    for (options, full, resumed) in
        [("--tls", 30, 0), ("--tls --keep-alive", 4, 0), ("--resume", 4, 26), ("--resume --tls12", 4, 26)]
    {
        let mut load = example("load");
        load.args([&address, "--patience", "120s", "--late", "3600s", "--connections", "4", "--requests", "30"]);
        load.args(options.split(' '));
        let report = finished(load);
        let values = ["ok", "lost", "full", "resumed", "missed"].map(|key| report[key]);
        assert_eq!(values, [30, 0, full, resumed, 0], "{options}");
    }
    // A server that speaks no TLS.
    let port = server.port();
    let output = example("load").args([&format!("127.0.0.1:{port}"), "--tls", "--requests", "1"]).output();
    let output = output.expect("the example is built");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
}

#[test]
fn flood_and_kept_speak_tls_and_raw_tls_answers() {
    let mut server = testbed(&[]);
    let address = address(&mut server).to_string();
    // Somebody else may take a port that was free a moment ago.
    let (mut raw, port) = until("raw_tls gets a free port", || {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").port();
        let mut raw =
            example("raw_tls").arg(port.to_string()).args([file("a.pem"), file("a.key")]).spawn().expect("built");
        let is_up = until("it listens or ends", || match std::net::TcpStream::connect(("127.0.0.1", port)) {
            Ok(_) => Some(true),
            Err(_) => raw.try_wait().expect("a child").map(|_| false),
        });
        is_up.then_some((raw, port))
    });
    for (address, options, full, resumed) in [
        (&address, "--close --tls", 32, 0),
        (&address, "--close --resume", 8, 24),
        (&address, "--close --resume --tls12", 8, 24),
        (&address, "--tls", 0, 0),
        (&format!("127.0.0.1:{port}"), "--close --resume", 8, 24),
        (&format!("127.0.0.1:{port}"), "--tls --path /1m", 0, 0),
    ] {
        let mut flood = example("flood");
        flood.args([address, "--connections", "8", "--requests", "32"]).args(options.split(' '));
        let report = finished(flood);
        assert_eq!(
            ["requests", "errors", "full", "resumed"].map(|key| report[key]),
            [32, 0, full, resumed],
            "{options}"
        );
    }
    raw.kill().and_then(|()| raw.wait()).expect("a child");
    let mut kept = example("kept");
    kept.args([&address, "--tls", "--connections", "10"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut kept = kept.spawn().expect("the example is built");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(kept.stdout.take().expect("it is piped")));
    let mut next = || lines.next().expect("a line").expect("text");
    let answered = "open=10 answered=10 closed=0 lost=0 ";
    assert!(next().starts_with(answered), "opened");
    kept.stdin.as_mut().expect("it is piped").write_all(b"\n").expect("it reads");
    assert!(next().starts_with(answered), "asked");
    drop(kept.stdin.take());
    assert!(kept.wait().expect("a child").success());
}

/// The first run of the scripts that use them, as short as it can be.
#[test]
fn the_scripts_for_tls_run() {
    if !is_there("python3", &["--version"]) {
        return;
    }
    let built = example("load").get_program().to_owned();
    let built = std::path::Path::new(&built).ancestors().nth(2).expect("target/debug").to_owned();
    let scratch = fresh_path("tls.scripts");
    for (script, arguments) in [
        ("scripts/bench", "resumption --quick --servers forkpool --workers 2 --period 1 --rate 20"),
        ("scripts/bench", "tls-memory --connections 50 --servers raw_tls,forkpool"),
        ("scripts/bench", "tls --rounds 1 --requests 64 --servers raw_tls,forkpool --workloads tls-resumed,tls-1m"),
        ("scripts/faults", "--quick --tls upgrade"),
    ] {
        let mut command = Command::new(format!("{}/{script}", env!("CARGO_MANIFEST_DIR")));
        command.args(arguments.split(' ')).env("BUILT", &built).env("CARGO_TARGET_DIR", &scratch);
        let output = command.output().expect("it can be executed");
        let (table, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if errors.contains("needs two CPUs") {
            skip("one CPU");
            continue;
        }
        assert!(
            output.status.success() && table.contains("| forkpool ") || table.contains("| upgrade "),
            "{table}{errors}"
        );
    }
    // Some write nothing there.
    let _ = std::fs::remove_dir_all(&scratch);
}
