//! Sessions that resume.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{kill, Signal};
use rustls::HandshakeKind;

use crate::browser::{address, file, testbed, testbed_with_tls, Browser, BOTH};
use crate::support::{example, fresh_path, is_gone, until, Server};

#[test]
fn a_client_resumes_with_every_worker_also_after_restarts_kills_and_upgrades() {
    let mut server = testbed(&[("FORKPOOL_WORKERS", "4"), ("FORKPOOL_BALANCE", "random")]);
    let address = address(&mut server);
    let browsers = BOTH.map(|version| Browser::new(&[version]));
    let visit = |pids: &mut BTreeSet<_>| {
        for browser in &browsers {
            let mut client = browser.connect(address);
            pids.insert(client.get("/").worker());
            let kind = client.stream().conn.handshake_kind();
            assert_eq!(kind, Some(HandshakeKind::Resumed), "{:?}", client.stream().conn.protocol_version());
        }
    };
    browsers.iter().for_each(|browser| assert!(!browser.visit(address), "the first time"));
    let mut pids = BTreeSet::new();
    until("all workers were met", || {
        visit(&mut pids);
        (pids.len() == 4).then_some(())
    });
    for _ in 0..3 {
        server.signal(Signal::SIGHUP);
        server.wait_for("rolling restart done");
        (0..10).for_each(|_| visit(&mut pids));
    }
    for _ in 0..4 {
        let worker = server.workers()[0];
        kill(worker, Signal::SIGKILL).expect("it runs");
        server.wait_for(&format!("pid={worker} "));
        server.wait_for(" ready");
        visit(&mut pids);
    }
    server.signal(Signal::SIGUSR2);
    server.wait_for("upgrade done");
    (0..10).for_each(|_| visit(&mut pids));
}

#[test]
fn a_client_resumes_while_secrets_change_and_workers_and_pools_do() {
    const PERIOD: Duration = Duration::from_secs(4);
    let mut server = testbed(&[("FORKPOOL_WORKERS", "2"), ("FORKPOOL_TLS_TICKET_PERIOD", "4s")]);
    let address = address(&mut server);
    let browsers = BOTH.map(|version| Browser::new(&[version]));
    let begun = Instant::now();
    let mut latest = BOTH.map(|_| Instant::now());
    browsers.iter().for_each(|browser| assert!(!browser.visit(address), "the first time"));
    let mut resumed = 0;
    let mut visit = || {
        for (browser, latest) in browsers.iter().zip(&mut latest) {
            let now = Instant::now();
            let is_resumed = browser.visit(address);
            // A ticket is good for a period, so on a machine that was stopped for as long it may be too old.
            let is_young = latest.elapsed() < PERIOD;
            assert!(is_resumed || !is_young, "{} visits were resumed before", resumed);
            resumed += u32::from(is_resumed);
            *latest = now;
        }
    };
    let mut changes = 0;
    // The second change of the secret comes before the end of the third period.
    while begun.elapsed() < 3 * PERIOD {
        match changes {
            0 => server.signal(Signal::SIGHUP),
            1 => {
                kill(server.workers()[0], Signal::SIGKILL).expect("it runs");
                // It takes what it has with it.
                server.wait_for("killed by SIGKILL");
            }
            2 => server.signal(Signal::SIGUSR2),
            _ => {}
        }
        if let Some(done) = ["rolling restart done", " ready", "upgrade done"].get(changes) {
            until(done, || {
                visit();
                (server.count(done) > 0).then_some(())
            });
        }
        changes += 1;
        visit();
    }
    assert!(changes > 3 && resumed > 0);
}

#[test]
fn hosts_with_the_same_secret_resume_each_other_s_sessions_and_others_do_not() {
    let secret = fresh_path("tls.secret");
    fs::write(&secret, [7; 80]).expect("written");
    let path = secret.to_str().expect("text");
    // Long, so that hardly any run sees its end.
    let variables = [("FORKPOOL_TLS_TICKET_SECRET", path), ("FORKPOOL_TLS_TICKET_PERIOD", "24h")];
    let (mut one, mut two, mut other) = (testbed(&variables), testbed(&variables), testbed(&[]));
    let mut renewed = testbed(
        &[
            &variables[..],
            &[("FORKPOOL_TLS_CERTIFICATE", &file("renewed.pem")), ("FORKPOOL_TLS_KEY", &file("renewed.key"))],
        ]
        .concat(),
    );
    let mut strict = testbed(
        &[&variables[..], &[("FORKPOOL_TLS_CLIENT_CA", &file("ca.pem")), ("FORKPOOL_TLS_CLIENT_AUTH", "optional")]]
            .concat(),
    );
    let mut none = testbed(&[("FORKPOOL_TLS_TICKET_PERIOD", "0")]);
    for version in BOTH {
        for (server, resumes, what) in [
            (&mut two, true, "the same file"),
            (&mut renewed, true, "another certificate for the same names"),
            (&mut strict, false, "clients are authenticated otherwise"),
            (&mut other, false, "another pool"),
            (&mut none, false, "no tickets"),
        ] {
            let browser = Browser::new(&[version]);
            assert!(!browser.visit(address(&mut one)));
            assert!(browser.visit(address(&mut one)));
            assert_eq!(browser.visit(address(server)), resumes, "{what}");
        }
    }
    fs::remove_file(&secret).expect("removed");
}

#[test]
fn a_restart_that_changes_whom_clients_trust_ends_sessions_and_a_renewed_certificate_does_not() {
    let directory = fresh_path("tls.trust");
    fs::create_dir(&directory).expect("a directory");
    let [own, key, ca] = ["own", "key", "ca"].map(|name| directory.join(name));
    let lay = |certificate: &str, authority: &str| {
        for (path, name) in
            [(&own, format!("{certificate}.pem")), (&key, format!("{certificate}.key")), (&ca, authority.to_owned())]
        {
            fs::copy(file(&name), path).expect("copied");
        }
    };
    lay("a", "ca.pem");
    let variables = [("CERTIFICATE", &own), ("KEY", &key), ("CLIENT_CA", &ca)]
        .map(|(name, path)| (format!("FORKPOOL_TLS_{name}"), path.to_str().expect("text").to_owned()));
    let mut command = testbed_with_tls(&[("FORKPOOL_TLS_CLIENT_AUTH", "optional")]);
    command.envs(variables);
    let mut server = Server::start(command);
    let address = address(&mut server);
    let browsers = BOTH.map(|version| Browser::new(&[version]));
    browsers.iter().for_each(|browser| assert!(!browser.visit(address) && browser.visit(address)));
    for (certificate, authority, resumes) in [
        ("renewed", "ca.pem", true),
        ("a", "ca.pem", true),
        ("a", "other-ca.pem", false),
        ("renewed", "other-ca.pem", true),
        // Another name.
        ("b", "other-ca.pem", false),
    ] {
        lay(certificate, authority);
        let old = server.workers();
        server.signal(Signal::SIGHUP);
        server.wait_for("rolling restart done");
        // Until then they accept.
        until("the old workers are gone", || old.iter().all(|worker| is_gone(*worker)).then_some(()));
        for browser in &browsers {
            let name = if certificate == "b" { "b.example" } else { "localhost" };
            let visit = || {
                let mut client = browser.try_connect(address, name).expect("a handshake");
                assert_eq!(client.get("/").status, 200);
                client.stream().conn.handshake_kind() == Some(HandshakeKind::Resumed)
            };
            assert_eq!(visit(), resumes, "{certificate} {authority}");
            assert!(visit(), "the next one does");
        }
    }
    fs::remove_dir_all(&directory).expect("removed");
}

#[test]
fn a_ticket_is_for_the_name_that_it_was_given_for() {
    let pair = |end: &str| format!("{},{}", file(&format!("a.{end}")), file(&format!("b.{end}")));
    let mut server = testbed(&[("FORKPOOL_TLS_CERTIFICATE", &pair("pem")), ("FORKPOOL_TLS_KEY", &pair("key"))]);
    let address = address(&mut server);
    for version in BOTH {
        let browser = Browser::new(&[version]);
        let mut last = "";
        for name in ["localhost", "localhost", "b.example", "b.example", "x.a.example", "localhost"] {
            let mut client = browser.try_connect(address, name).expect("a handshake");
            assert_eq!(client.get("/").status, 200);
            let is_resumed = client.stream().conn.handshake_kind() == Some(HandshakeKind::Resumed);
            assert_eq!(is_resumed, name == last, "{version:?}: {last}, then {name}");
            last = name;
        }
    }
}

#[test]
fn connections_stay_with_their_worker_and_end_cleanly_when_it_leaves() {
    let mut server = testbed(&[("FORKPOOL_DRAIN_SPREAD", "1s")]);
    let address = address(&mut server);
    let browsers = BOTH.map(|version| Browser::new(&[version]));
    let mut kept: Vec<_> = browsers.iter().flat_map(|browser| [(); 10].map(|()| browser.connect(address))).collect();
    kept.iter_mut().for_each(|client| assert!(!client.get("/").closes()));
    // Those without TLS are handed over meanwhile.
    let mut plain = [(); 5].map(|()| server.connect());
    plain.iter_mut().for_each(|client| assert!(!client.get("/").closes()));
    let old = server.workers();
    server.signal(Signal::SIGHUP);
    server.wait_for("restart done");
    // Without close_notify this would be an error.
    kept.iter_mut().for_each(|client| assert_eq!(client.rest(), b""));
    until("the old workers are gone", || old.iter().all(|worker| is_gone(*worker)).then_some(()));
    for client in &mut plain {
        let answer = client.get("/");
        assert!(!answer.closes() && !old.contains(&answer.worker()));
    }
    assert!(browsers.iter().all(|browser| browser.visit(address)), "sessions go on");
    assert_eq!(server.count("killed"), 0);
}

#[test]
fn a_server_of_one_s_own_resumes_with_every_worker() {
    let mut command = example("https");
    command.envs([("FORKPOOL_WORKERS", "2"), ("FORKPOOL_BALANCE", "random"), ("RUST_LOG", "info")]);
    command.env_remove("FORKPOOL_LISTEN").env("FORKPOOL_TLS_LISTEN", "127.0.0.1:0");
    command.env("FORKPOOL_TLS_CERTIFICATE", file("a.pem")).env("FORKPOOL_TLS_KEY", file("a.key"));
    let mut server = Server::start(command);
    let address = address(&mut server);
    for version in BOTH {
        let browser = Browser::new(&[version]);
        assert!(!browser.visit(address), "the first time");
        let mut pids = BTreeSet::new();
        for _ in 0..2 {
            until("both workers were met", || {
                let mut client = browser.connect(address);
                pids.insert(client.get("/").worker());
                assert_eq!(client.stream().conn.handshake_kind(), Some(HandshakeKind::Resumed), "{version:?}");
                (pids.len() == 2).then_some(())
            });
            pids.clear();
            server.signal(Signal::SIGHUP);
            server.wait_for("rolling restart done");
        }
    }
}

#[test]
fn a_server_that_speaks_no_tls_does_not_start() {
    let mut server = Server::spawn(testbed_with_tls(&[("TESTBED", "plain"), ("FORKPOOL_WORKERS", "1")]));
    let line = server.wait_for("this server speaks no TLS");
    assert!(line.contains("tls-listen: ") && line.contains("use listen, or begin TLS with"), "{line}");
}
