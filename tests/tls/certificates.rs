//! Certificates that are chosen, change, are asked for, and are wrong.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use rustls::version::{TLS12, TLS13};

use crate::browser::{address, admin_address, certificate, file, testbed, Browser, BOTH};
use crate::support::{binary, fresh_path, is_gone, is_there, run, until, Load};

#[test]
fn a_client_gets_the_certificate_for_the_name_that_it_asks_for() {
    let (certificates, keys) =
        (format!("{},{}", file("a.pem"), file("b.pem")), format!("{},{}", file("a.key"), file("b.key")));
    let mut server = testbed(&[("FORKPOOL_TLS_CERTIFICATE", &certificates), ("FORKPOOL_TLS_KEY", &keys)]);
    let address = address(&mut server);
    for version in BOTH {
        let browser = Browser::new(&[version]);
        for (name, shown) in
            [("localhost", "a.pem"), ("x.a.example", "a.pem"), ("b.example", "b.pem"), ("B.Example", "b.pem")]
        {
            assert!(browser.shown(address, name) == certificate(shown), "{name}");
        }
        let unknown = browser.try_connect(address, "c.example").err().expect("the first is not for this name");
        assert!(unknown.to_string().contains("only valid for DnsName(\"localhost\")"), "{unknown}");
    }
}

#[test]
fn certificates_are_read_again_at_a_restart_and_those_that_do_not_fit_abort_it() {
    let directory = fresh_path("tls.certificates");
    fs::create_dir(&directory).expect("a directory");
    // As Kubernetes and certbot do: a link leads to the current ones.
    let switch_to = |certificate: &str, key: &str| {
        for (name, target) in [("c.pem", certificate), ("k.pem", key)] {
            let draft = directory.join("draft");
            symlink(file(target), &draft).expect("a link");
            fs::rename(&draft, directory.join(name)).expect("the same directory");
        }
    };
    switch_to("a.pem", "a.key");
    let (c, k) = (directory.join("c.pem"), directory.join("k.pem"));
    let admin = fresh_path("tls.admin");
    let mut server = testbed(&[
        ("FORKPOOL_TLS_CERTIFICATE", c.to_str().expect("text")),
        ("FORKPOOL_TLS_KEY", k.to_str().expect("text")),
        ("FORKPOOL_ADMIN", &format!("unix:{}", admin.display())),
    ]);
    let address = address(&mut server);
    // A session that is resumed shows no certificate.
    let shown = |address| Browser::new(&[&TLS13]).shown(address, "localhost");
    let restart = || {
        let mut command = binary();
        run(command.arg("restart").env("FORKPOOL_ADMIN", format!("unix:{}", admin.display())))
    };
    assert!(shown(address) == certificate("a.pem"));
    switch_to("renewed.pem", "renewed.key");
    // Not the admin process, which stays.
    let pid = |line: &String| line.split_once("pid=").and_then(|(_, rest)| rest.strip_suffix(" ready")?.parse().ok());
    let old: Vec<_> = server.log().iter().filter_map(pid).map(Pid::from_raw).collect();
    assert_eq!(old.len(), 2);
    let done = restart();
    assert_eq!(done.code, 0, "{done:?}");
    // A worker that leaves still accepts what was queued for it.
    until("the old workers are gone", || old.iter().all(|worker| is_gone(*worker)).then_some(()));
    assert!(shown(address) == certificate("renewed.pem"));
    switch_to("a.pem", "b.key");
    let refused = restart();
    assert_eq!(refused.code, 4, "{refused:?}");
    let line = server.wait_for("rolling restart aborted");
    assert!(line.contains("k.pem is not the key of") && line.contains("give its own"), "{line}");
    for _ in 0..10 {
        assert!(shown(address) == certificate("renewed.pem"), "nothing has changed");
    }
    switch_to("a.pem", "a.key");
    server.signal(Signal::SIGHUP);
    server.wait_for("rolling restart done");
    until("the first certificate is shown again", || (shown(address) == certificate("a.pem")).then_some(()));
    fs::remove_dir_all(&directory).expect("removed");
}

#[test]
fn certificates_change_under_load_without_loss() {
    let directory = fresh_path("tls.volume");
    fs::create_dir(&directory).expect("a directory");
    // As Kubernetes lays a volume out: one link changes, and with it all files.
    let publish = |version: usize, pair: &str| {
        let data = format!("..{version}");
        fs::create_dir(directory.join(&data)).expect("a directory");
        for (name, end) in [("tls.crt", "pem"), ("tls.key", "key")] {
            fs::copy(file(&format!("{pair}.{end}")), directory.join(&data).join(name)).expect("copied");
        }
        symlink(&data, directory.join("..data_tmp")).expect("a link");
        fs::rename(directory.join("..data_tmp"), directory.join("..data")).expect("the same directory");
    };
    publish(0, "a");
    let [c, k] = ["tls.crt", "tls.key"].map(|name| {
        symlink(format!("..data/{name}"), directory.join(name)).expect("a link");
        directory.join(name).to_str().expect("text").to_owned()
    });
    let mut server = testbed(&[("FORKPOOL_TLS_CERTIFICATE", &c), ("FORKPOOL_TLS_KEY", &k)]);
    let address = address(&mut server);
    let loads = [&["--tls"][..], &["--tls", "--keep-alive"], &["--resume", "--tls12"]]
        .map(|options| Load::begin(address.port(), &[&["--connections", "4"][..], options].concat()));
    for version in 1..=10 {
        let pair = ["a", "renewed"][version % 2];
        publish(version, pair);
        fs::remove_dir_all(directory.join(format!("..{}", version - 1))).expect("removed");
        let old = server.workers();
        server.signal(Signal::SIGHUP);
        server.wait_for("rolling restart done");
        until("the old workers are gone", || old.iter().all(|worker| is_gone(*worker)).then_some(()));
        let shown = Browser::new(&[&TLS13]).shown(address, "localhost");
        assert!(shown == certificate(&format!("{pair}.pem")), "version {version}");
    }
    for load in loads {
        load.finish().nothing_lost();
    }
    assert_eq!(server.count("aborted") + server.count("killed"), 0);
    fs::remove_dir_all(&directory).expect("removed");
}

#[test]
fn clients_are_asked_for_a_certificate() {
    let ca = file("ca.pem");
    for (auth, without, with) in [("no", true, true), ("optional", true, true), ("require", false, true)] {
        let variables = [("FORKPOOL_TLS_CLIENT_CA", ca.as_str()), ("FORKPOOL_TLS_CLIENT_AUTH", auth)];
        let variables = if auth == "no" { &[][..] } else { &variables[..] };
        let mut server = testbed(variables);
        let address = address(&mut server);
        for version in BOTH {
            for (own, is_admitted) in [(None, without), (Some("client"), with)] {
                let browser = Browser::with(&[version], own);
                // With TLS 1.3 the refusal comes after the client's handshake.
                let got =
                    |browser: &Browser| browser.try_connect(address, "localhost").and_then(|mut it| it.try_get("/"));
                let answer = got(&browser);
                assert_eq!(answer.is_ok(), is_admitted, "{auth} {own:?} {version:?}");
                if is_admitted {
                    assert!(browser.visit(address), "it resumes");
                }
            }
        }
    }
    // A certificate that another authority has signed is refused even if none is needed.
    let ca = file("other-ca.pem");
    let mut server = testbed(&[("FORKPOOL_TLS_CLIENT_CA", ca.as_str()), ("FORKPOOL_TLS_CLIENT_AUTH", "optional")]);
    let address = address(&mut server);
    let stranger = Browser::with(&[&TLS12], Some("client")).try_connect(address, "localhost");
    assert!(stranger.is_err());
}

#[test]
fn the_lowest_version_is_kept_to() {
    let mut server = testbed(&[("FORKPOOL_TLS_MIN", "1.3")]);
    let address = address(&mut server);
    assert!(Browser::new(&[&TLS12]).try_connect(address, "localhost").is_err());
    assert!(!Browser::new(&[&TLS13]).visit(address));
}

#[test]
fn a_certificate_that_expires_soon_is_told() {
    if !is_there("openssl", &["version"]) {
        return;
    }
    let (certificate, key) = (fresh_path("tls.soon.pem"), fresh_path("tls.soon.key"));
    let (certificate, key) = (certificate.to_str().expect("text"), key.to_str().expect("text"));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "10"]);
    openssl.args(["-subj", "/CN=localhost", "-keyout", key, "-out", certificate]);
    let made = run(&mut openssl);
    assert_eq!(made.code, 0, "{made:?}");
    let mut server = testbed(&[
        ("FORKPOOL_TLS_CERTIFICATE", certificate),
        ("FORKPOOL_TLS_KEY", key),
        ("FORKPOOL_ADMIN", "127.0.0.1:0"),
    ]);
    let told = server.log().iter().find(|line| line.contains("expires in ")).expect("a warning").clone();
    // Made a moment before, perhaps within the same second.
    let says =
        |text: &str, end: &str| [10, 9].iter().any(|days| text.contains(&format!("expires in {days} days{end}")));
    assert!(told.contains("WARN") && says(&told, "; "), "{told}");
    let status = run(binary().arg("status").env("FORKPOOL_ADMIN", admin_address(&mut server).to_string()));
    assert!(status.code == 0 && says(&status.out, "\n"), "{status:?}");
    for file in [certificate, key] {
        fs::remove_file(file).expect("removed");
    }
}

#[test]
fn what_is_wrong_is_said_in_one_line() {
    let long = fresh_path("tls.short-secret");
    fs::write(&long, "short").expect("written");
    let secret = long.to_str().expect("text").to_owned();
    let with = |certificate: &str, key: &str| {
        let listen = ["--tls-listen", "127.0.0.1:0"].map(str::to_owned);
        let files = ["--tls-certificate".to_owned(), file(certificate), "--tls-key".to_owned(), file(key)];
        listen.into_iter().chain(files).collect::<Vec<_>>()
    };
    let and = |mut arguments: Vec<String>, more: &[&str]| {
        arguments.extend(more.iter().map(|it| (*it).to_owned()));
        arguments
    };
    for (arguments, problem, code) in [
        (with("none.pem", "a.key"), "correct the path in tls-certificate", 1),
        (with("a.pem", "none.key"), "correct the path in tls-key", 1),
        (with("", "a.key"), "name a file in it in tls-certificate", 1),
        (with("a.der", "a.key"), "a.der is DER and must be PEM; convert it with openssl x509 -inform der", 2),
        (with("a.key", "a.key"), "a.key holds a key and no certificate; are the two files swapped?", 2),
        (with("a.pem", "a.pem"), "a.pem holds a certificate and no key; are the two files swapped?", 2),
        (with("make", "a.key"), "make holds no certificate; it must begin with -----BEGIN CERTIFICATE-----", 2),
        (with("a.pem", "make"), "make holds no key; it must contain -----BEGIN PRIVATE KEY-----", 2),
        (with("a.pem", "encrypted.key"), "encrypted.key is encrypted; decrypt it with openssl pkey", 2),
        (with("a.pem", "b.key"), "b.key is not the key of ", 2),
        (with("expired.pem", "a.key"), "expired.pem has expired: certificate 1 of it was valid until ", 2),
        (
            and(with("a.pem", "a.key"), &["--tls-client-ca", &file("make"), "--tls-client-auth", "require"]),
            "tls-client-ca: ",
            2,
        ),
        (
            and(with("a.pem", "a.key"), &["--tls-ticket-secret", &secret]),
            "has 5 bytes and needs at least 32; make it with: openssl rand -out ",
            2,
        ),
        (vec!["--tls-listen".into(), "127.0.0.1:0".into()], "tls-listen: needs a certificate; add tls-certificate", 2),
        (and(with("a.pem", "a.key"), &["--listen", "unix:x", "--tls-min", "1.1"]), "must be 1.2 or 1.3", 2),
    ] {
        let mut command = binary();
        let said = run(command.env_remove("FORKPOOL_LISTEN").args(&arguments));
        assert_eq!(said.code, code, "{arguments:?}: {said:?}");
        assert!(said.problem.contains(problem), "{problem}: {said:?}");
        assert_eq!(said.problem.lines().count(), 1, "{said:?}");
    }
    fs::remove_file(&long).expect("removed");
}

#[test]
fn a_chain_in_another_order_is_refused() {
    let path = fresh_path("tls.chain.pem");
    let (own, authority) =
        (fs::read_to_string(file("a.pem")).expect("a file"), fs::read_to_string(file("ca.pem")).expect("a file"));
    let own = own.strip_suffix(&authority).expect("the authority's comes last");
    fs::write(&path, format!("{own}{}", fs::read_to_string(file("other-ca.pem")).expect("a file"))).expect("written");
    let mut command = binary();
    command.env_remove("FORKPOOL_LISTEN").args(["--check", "--tls-listen", ":0", "--tls-key", &file("a.key")]);
    let said = run(command.arg("--tls-certificate").arg(&path));
    assert!(
        said.code == 2 && said.problem.contains("is out of order: certificate 2 has not signed certificate 1"),
        "{said:?}"
    );
    fs::remove_file(&path).expect("removed");
}
