//! Files of certificates, keys and secrets as people have them, and what is no file.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rustls::version::TLS13;

use crate::browser::{address, certificate, file, testbed, Browser};
use crate::support::{binary, fresh_path, is_there, run, Said};

fn text(name: &str) -> String {
    fs::read_to_string(file(name)).expect("a file")
}

/// What `--check` says of a pair of files, perhaps with more flags.
fn check(certificate: &str, key: &str, more: &[&str]) -> Said {
    let mut command = binary();
    command.env_remove("FORKPOOL_LISTEN").args(["--check", "--tls-listen", ":0"]);
    run(command.args(["--tls-certificate", certificate, "--tls-key", key]).args(more))
}

#[track_caller]
fn expect(said: &Said, problem: &str, what: &str) {
    if problem.is_empty() {
        assert_eq!(said.code, 0, "{what}: {said:?}");
        return;
    }
    assert!(said.code == 1 || said.code == 2, "{what}: {said:?}");
    assert!(said.problem.contains(problem), "{what}: {problem}: {said:?}");
    assert_eq!(said.problem.lines().count(), 1, "{what}: {said:?}");
}

/// What `openssl` writes to its standard output.
fn openssl(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(arguments).output().expect("it is there");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    output.stdout
}

#[test]
fn certificates_in_every_dress_work_or_are_told_apart() {
    let path = fresh_path("tls.dressed.pem");
    let shown = path.to_str().expect("text");
    let (chain, key, authority) = (text("a.pem"), text("a.key"), text("ca.pem"));
    let own = chain.strip_suffix(&authority).expect("the authority's comes last");
    let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain(chain.bytes().flat_map(|byte| [byte, 0])).collect();
    let relabelled = |label: &str| own.replace("CERTIFICATE-----", &format!("{label}-----")).into_bytes();
    let mut table = vec![
        ("as it is", chain.clone().into_bytes(), ""),
        ("alone", own.into(), ""),
        ("the mark of UTF-8", format!("\u{feff}{chain}").into(), ""),
        ("CR LF", chain.replace('\n', "\r\n").into(), ""),
        ("CR alone", chain.replace('\n', "\r").into(), ""),
        ("no last line end", chain.trim_end().into(), ""),
        ("text before", format!("subject=CN = a\n\n  Not After : 2120\n{chain}").into(), ""),
        ("text between", format!("{own}\nissuer=CN = ca\n{authority}").into(), ""),
        ("spaces behind", chain.replace('\n', " \n").into(), ""),
        ("the key behind", format!("{chain}{key}").into(), ""),
        ("the key in front", format!("{key}{chain}").into(), ""),
        ("both with CR LF", format!("{key}{chain}").replace('\n', "\r\n").into(), ""),
        ("the wrong order", format!("{authority}{own}").into(), "is out of order: certificate 2 has not signed"),
        ("another authority", format!("{own}{}", text("other-ca.pem")).into(), "is out of order: certificate 2"),
        ("empty", Vec::new(), "is empty; name a file with a certificate, or wait until it is written"),
        ("UTF-16", utf16, "is UTF-16 and must be ASCII; convert it with iconv -f UTF-16 -t ASCII"),
        ("OpenSSL's own", relabelled("TRUSTED CERTIFICATE"), "holds a TRUSTED CERTIFICATE, which is a form of OpenSSL"),
        ("an old name", relabelled("X509 CERTIFICATE"), "convert it with openssl x509 -in"),
        ("PKCS#7", relabelled("PKCS7"), "convert it with openssl pkcs7 -print_certs -in"),
        ("a request", relabelled("CERTIFICATE REQUEST"), "holds a request for a certificate"),
        ("a list", relabelled("X509 CRL"), "holds a revocation list, which is not supported; take it out"),
        ("cut", chain[..300].into(), "is no valid PEM: the end of a section is missing; get it again"),
        ("no Base64", own.replacen("\nMI", "\n?I", 1).into(), "is no valid PEM ("),
        ("another letter", own.replacen("\nMI", "\nMA", 1).into(), "is damaged: certificate 1 of it cannot be parsed"),
        ("indented", chain.replace("-----BEGIN", "  -----BEGIN").into(), "before -----BEGIN in line 1; begin a new"),
        (
            "DER",
            fs::read(file("a.der")).expect("a file"),
            "is DER and must be PEM; convert it with openssl x509 -inform",
        ),
    ];
    let lines = own.lines().count();
    let in_one_line = format!("has something before -----BEGIN in line {lines}; begin a new line with it");
    table.push(("joined without a line end", format!("{}{authority}", own.trim_end()).into(), &in_one_line));
    let joined = format!("has something before -----BEGIN in line {}; begin", lines + 1);
    table.push(("a mark between", format!("{own}\u{feff}{authority}").into(), &joined));
    for (what, bytes, problem) in table {
        fs::write(&path, bytes).expect("written");
        expect(&check(shown, &file("a.key"), &[]), problem, what);
    }
    if is_there("openssl", &["version"]) {
        let (certificate, key) = (file("a.pem"), file("a.key"));
        let p12 = openssl(&["pkcs12", "-export", "-in", &certificate, "-inkey", &key, "-passout", "pass:x"]);
        let commented = openssl(&["x509", "-text", "-in", &certificate]);
        let trusted = openssl(&["x509", "-trustout", "-addtrust", "serverAuth", "-in", &certificate]);
        for (what, bytes, problem) in [
            ("with its text", commented, ""),
            ("trusted", trusted, "convert it with openssl x509 -in"),
            ("PKCS#12", p12, "is PKCS#12 and must be PEM; convert it with openssl pkcs12 -nodes -in"),
        ] {
            fs::write(&path, bytes).expect("written");
            expect(&check(shown, &key, &[]), problem, what);
        }
    }
    fs::remove_file(&path).expect("removed");
}

#[test]
fn keys_in_every_dress_work_or_are_told_apart() {
    let path = fresh_path("tls.dressed.key");
    let shown = path.to_str().expect("text");
    let (key, certificates) = (text("a.key"), text("a.pem"));
    let relabelled = |label: &str| key.replace("PRIVATE KEY-----", &format!("{label}-----")).into_bytes();
    let mut table = vec![
        ("PKCS#8", "a", key.clone().into_bytes(), ""),
        ("the mark of UTF-8", "a", format!("\u{feff}{key}").into(), ""),
        ("CR LF", "a", key.replace('\n', "\r\n").into(), ""),
        ("text before", "a", format!("Bag Attributes\n  friendlyName: a\n{key}").into(), ""),
        ("behind the certificates", "a", format!("{certificates}{key}").into(), ""),
        ("before the certificates", "a", format!("{key}{certificates}").into(), ""),
        ("RSA", "b", text("b.key").into(), ""),
        ("of another certificate", "b", key.clone().into(), "is not the key of "),
        ("empty", "a", Vec::new(), "is empty; name a file with a key, or wait until it is written"),
        ("cut", "a", key[..100].into(), "is no valid PEM: the end of a section is missing; get it again"),
        ("indented", "a", format!(" {key}").into(), "has something before -----BEGIN in line 1"),
        ("of SSH", "a", relabelled("OPENSSH PRIVATE KEY"), "holds a key for SSH; name the key from which"),
        ("public", "a", relabelled("PUBLIC KEY"), "holds no key; it must contain -----BEGIN PRIVATE KEY-----"),
        ("the other file", "a", certificates.into(), "holds a certificate and no key; are the two files swapped?"),
        ("encrypted", "a", text("encrypted.key").into(), "is encrypted; decrypt it with openssl pkey -in"),
    ];
    if is_there("openssl", &["version"]) {
        let (ec, rsa) = (file("a.key"), file("b.key"));
        let sec1 = openssl(&["ec", "-in", &ec]);
        let parameters = openssl(&["ecparam", "-name", "prime256v1"]);
        let pkcs1 = openssl(&["rsa", "-in", &rsa, "-traditional"]);
        assert!(sec1.starts_with(b"-----BEGIN EC PRIVATE") && pkcs1.starts_with(b"-----BEGIN RSA PRIVATE"));
        let old = openssl(&["rsa", "-in", &rsa, "-traditional", "-aes128", "-passout", "pass:secret"]);
        let is_der = "is DER and must be PEM; convert it with openssl pkey -inform der -in";
        table.extend([
            ("SEC1", "a", sec1.clone(), ""),
            ("SEC1 behind its parameters", "a", [parameters, sec1].concat(), ""),
            ("PKCS#1", "b", pkcs1, ""),
            ("encrypted in the old way", "b", old, "is encrypted; decrypt it with openssl pkey -in"),
            ("PKCS#8 in DER", "a", openssl(&["pkey", "-in", &ec, "-outform", "der"]), is_der),
            ("SEC1 in DER", "a", openssl(&["ec", "-in", &ec, "-outform", "der"]), is_der),
            ("PKCS#1 in DER", "b", openssl(&["rsa", "-in", &rsa, "-traditional", "-outform", "der"]), is_der),
        ]);
    }
    for (what, pair, bytes, problem) in table {
        fs::write(&path, bytes).expect("written");
        expect(&check(&file(&format!("{pair}.pem")), shown, &[]), problem, what);
    }
    fs::remove_file(&path).expect("removed");
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let directory = fresh_path("tls.irregular");
    fs::create_dir(&directory).expect("a directory");
    let [pipe, socket, link, huge] =
        ["pipe", "socket", "link", "huge"].map(|name| directory.join(name).to_str().expect("text").to_owned());
    mkfifo(Path::new(&pipe), Mode::S_IRWXU).expect("a pipe");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    symlink(&pipe, &link).expect("a link");
    fs::File::create(&huge).and_then(|file| file.set_len(1 << 40)).expect("a file without blocks");
    let (certificate, key) = (file("a.pem"), file("a.key"));
    for (path, problem) in [
        (pipe.as_str(), "it is a pipe; it must be a regular file, since it is read again at each restart; save what"),
        (&link, "it is a pipe; it must be a regular file"),
        (&socket, "it is a socket; it must be a regular file"),
        ("/dev/zero", "it is a device; it must be a regular file"),
        (directory.to_str().expect("text"), "name a file in it in tls-"),
        (&huge, "it is longer than 1 MiB; is it the right file? Correct the path in tls-"),
    ] {
        let client = ["--tls-client-ca", path, "--tls-client-auth", "require"];
        // Each of them names its own setting.
        for (setting, said) in [
            ("tls-certificate", check(path, &key, &[])),
            ("tls-key", check(&certificate, path, &[])),
            ("tls-client-ca", check(&certificate, &key, &client)),
            ("tls-ticket-secret", check(&certificate, &key, &["--tls-ticket-secret", path])),
        ] {
            assert!(said.problem.contains(setting) && said.problem.contains(path), "{setting}: {said:?}");
            expect(&said, problem, path);
        }
        // The start reads the secret as well, at another place.
        let mut start = binary();
        start.args(["--tls-listen", "127.0.0.1:0", "--tls-certificate", &certificate, "--tls-key", &key]);
        let said = run(start.args(["--tls-ticket-secret", path]));
        expect(&said, problem, path);
        assert!(said.problem.contains("tls-ticket-secret"), "{said:?}");
    }
    fs::remove_dir_all(&directory).expect("removed");
}

#[test]
fn a_pipe_in_place_of_a_certificate_aborts_the_restart_and_blocks_nobody() {
    let directory = fresh_path("tls.piped");
    fs::create_dir(&directory).expect("a directory");
    let own = directory.join("c.pem");
    fs::copy(file("a.pem"), &own).expect("copied");
    let mut server = testbed(&[("FORKPOOL_TLS_CERTIFICATE", own.to_str().expect("text"))]);
    let address = address(&mut server);
    fs::remove_file(&own).expect("removed");
    mkfifo(&own, Mode::S_IRWXU).expect("a pipe");
    server.signal(Signal::SIGHUP);
    let line = server.wait_for("rolling restart aborted");
    assert!(line.contains("it is a pipe") && line.contains("name that in tls-certificate"), "{line}");
    // The parent goes on, with what it had.
    assert!(Browser::new(&[&TLS13]).shown(address, "localhost") == certificate("a.pem"));
    fs::remove_file(&own).and_then(|()| fs::copy(file("renewed.pem"), &own).map(drop)).expect("copied");
    server.signal(Signal::SIGHUP);
    let line = server.wait_for("rolling restart aborted");
    assert!(line.contains("is not the key of "), "{line}");
    server.signal(Signal::SIGTERM);
    server.wait_for("stopped after ");
    fs::remove_dir_all(&directory).expect("removed");
}
