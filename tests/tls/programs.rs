//! The clients that people use: which versions, ciphers, curves and names they agree on, their certificates, and that
//! they resume.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::process::{Command, Stdio};

use crate::browser::{address, file, testbed};
use crate::support::{binary, fresh_path, is_there, run, Said, Server};

fn curl(address: SocketAddr, arguments: &[&str]) -> Said {
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "120", "--cacert", &file("ca.pem")]);
    for name in ["localhost", "x.a.example", "b.example", "c.example"] {
        curl.args(["--resolve", &format!("{name}:{}:127.0.0.1", address.port())]);
    }
    run(curl.args(arguments))
}

/// What `openssl s_client` says, to which lines are typed.
fn openssl(address: SocketAddr, arguments: &[&str], typed: &str) -> Said {
    let mut openssl = Command::new("sh");
    openssl.args(["-c", &format!("printf '{typed}' | exec openssl s_client \"$@\" 2>&1"), "sh"]);
    openssl.args(["-connect", &address.to_string(), "-CAfile", &file("ca.pem")]);
    run(openssl.args(arguments))
}

fn with_both_certificates(variables: &[(&str, &str)]) -> Server {
    let (certificates, keys) =
        (format!("{},{}", file("a.pem"), file("b.pem")), format!("{},{}", file("a.key"), file("b.key")));
    let own = [("FORKPOOL_TLS_CERTIFICATE", certificates.as_str()), ("FORKPOOL_TLS_KEY", &keys)];
    testbed(&[&own[..], variables].concat())
}

#[test]
fn curl_understands_every_version_name_and_certificate() {
    if !is_there("curl", &["--version"]) {
        return;
    }
    let mut server = with_both_certificates(&[]);
    let address = address(&mut server);
    let url = |name: &str| format!("https://{name}:{}/plaintext", address.port());
    for version in [&["--tls-max", "1.2"][..], &["--tlsv1.3"], &["--http1.1"], &["--http2"], &["--no-alpn"]] {
        for name in ["localhost", "x.a.example", "b.example"] {
            let said = curl(address, &[version, &[&url(name)]].concat());
            assert_eq!((said.code, said.out.as_str()), (0, "Hello, World!"), "{version:?} {name}: {said:?}");
        }
    }
    // No certificate is for this name, and nobody speaks these versions any more.
    assert_eq!(curl(address, &[&url("c.example")]).code, 60);
    assert_eq!(curl(address, &["--tls-max", "1.1", &url("localhost")]).code, 35);
    // Two requests of one connection, a body in both directions.
    let body = fresh_path("tls.body");
    fs::write(&body, vec![b'x'; 300_000]).expect("written");
    let posted = format!("@{}", body.display());
    let echo = format!("https://localhost:{}/echo", address.port());
    let said = curl(address, &["--data-binary", &posted, &echo, &echo]);
    assert_eq!((said.code, said.out.len()), (0, 600_000));
    fs::remove_file(&body).expect("removed");
    // Redirected to HTTPS, which curl follows; the port of HTTPS is not that which was configured here.
    let plain = format!("http://localhost:{}/plaintext", address.port());
    let said = curl(address, &["-o", "/dev/null", "-w", "%{http_code}", &plain]);
    assert_eq!((said.code, said.out.as_str()), (0, "400"), "{said:?}");
}

#[test]
fn curl_shows_its_certificate() {
    if !is_there("curl", &["--version"]) {
        return;
    }
    let (ca, certificate, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
    let own = ["--cert", &certificate, "--key", &key];
    for (auth, is_admitted) in [("optional", true), ("require", false)] {
        let mut server = testbed(&[("FORKPOOL_TLS_CLIENT_CA", &ca), ("FORKPOOL_TLS_CLIENT_AUTH", auth)]);
        let address = address(&mut server);
        let url = format!("https://localhost:{}/plaintext", address.port());
        for version in ["1.2", "1.3"] {
            let limits = ["--tls-max", version];
            let said = curl(address, &[&limits[..], &own[..], &[&url]].concat());
            assert_eq!((said.code, said.out.as_str()), (0, "Hello, World!"), "{auth} {version}: {said:?}");
            let said = curl(address, &[&limits[..], &[&url]].concat());
            // Within the handshake, or after it, as the version has it.
            let is_refused = said.code != 0 && said.problem.contains("certificate required");
            assert!(if is_admitted { said.code == 0 } else { is_refused }, "{auth} {version}: {said:?}");
        }
    }
}

#[test]
fn openssl_agrees_on_every_cipher_and_curve() {
    if !is_there("openssl", &["version"]) {
        return;
    }
    let mut server = with_both_certificates(&[]);
    let address = address(&mut server);
    let ok = "Verify return code: 0 (ok)";
    for (name, kind) in [("localhost", "ECDSA"), ("b.example", "RSA")] {
        for cipher in ["AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305"] {
            let cipher = format!("ECDHE-{kind}-{cipher}");
            let said = openssl(address, &["-tls1_2", "-cipher", &cipher, "-servername", name], "");
            assert!(said.out.contains(&format!("Cipher is {cipher}")) && said.out.contains(ok), "{cipher}: {said:?}");
        }
        for cipher in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
            let said = openssl(address, &["-tls1_3", "-ciphersuites", cipher, "-servername", name], "");
            assert!(said.out.contains(&format!("Cipher is {cipher}")) && said.out.contains(ok), "{cipher}: {said:?}");
        }
        for (curve, shown) in [("X25519", "X25519"), ("P-256", "prime256v1"), ("P-384", "secp384r1")] {
            for version in ["-tls1_2", "-tls1_3"] {
                let said = openssl(address, &[version, "-groups", curve, "-servername", name], "");
                let temporary = said.out.lines().find(|line| line.contains(" Temp Key:") || line.contains("group:"));
                let temporary = temporary.unwrap_or_default();
                // OpenSSL 3 has two ways to write a curve.
                let is_it = temporary.contains(shown) || temporary.contains(curve);
                assert!(is_it && said.out.contains(ok), "{version} {curve}: {said:?}");
            }
        }
        // The best curve first that is not the best of the server: it asks for another.
        let said = openssl(address, &["-tls1_3", "-groups", "P-521:P-256", "-servername", name], "");
        assert!(said.out.contains(ok), "{said:?}");
    }
    for (offered, agreed) in [
        (&["-alpn", "h2,http/1.1"][..], "ALPN protocol: http/1.1"),
        (&["-alpn", "http/1.1"], "ALPN protocol: http/1.1"),
        (&[], "No ALPN negotiated"),
    ] {
        let said = openssl(address, &[&["-servername", "localhost"], offered].concat(), "");
        assert!(said.out.contains(agreed) && said.out.contains(ok), "{offered:?}: {said:?}");
    }
    // Nothing in common: another protocol, an old version, a weak cipher, a curve that nobody has here.
    for refused in [
        &["-alpn", "h3"][..],
        &["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"],
        &["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"],
        &["-tls1_2", "-cipher", "AES128-GCM-SHA256"],
        &["-tls1_3", "-groups", "P-521"],
    ] {
        let said = openssl(address, refused, "");
        assert!(said.out.contains("alert") || said.out.contains("no protocols available"), "{refused:?}: {said:?}");
        assert!(said.out.contains("no peer certificate available"), "{refused:?}: {said:?}");
    }
    let said = openssl(address, &["-noservername"], "");
    assert!(said.out.contains("CN = a") && said.out.contains(ok), "the first certificate: {said:?}");
    // No renegotiation: the client may ask, and gets nothing.
    let mut openssl = Command::new("openssl");
    openssl
        .args(["s_client", "-connect", &address.to_string(), "-tls1_2"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    let mut child = openssl.stderr(Stdio::piped()).spawn().expect("the program runs");
    let mut typed = child.stdin.take().expect("it is piped");
    typed.write_all(b"R\n").expect("it reads");
    // It ends by itself, though more could be typed.
    let said = child.wait_with_output().expect("the program runs");
    let said = String::from_utf8_lossy(&said.stderr);
    assert!(said.contains("no renegotiation"), "{said}");
}

#[test]
fn openssl_resumes() {
    if !is_there("openssl", &["version"]) {
        return;
    }
    let mut server = testbed(&[("FORKPOOL_WORKERS", "2"), ("FORKPOOL_BALANCE", "random")]);
    let address = address(&mut server);
    let session = fresh_path("tls.session");
    let path = session.to_str().expect("text");
    let get = "GET /plaintext HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n";
    for version in ["-tls1_2", "-tls1_3"] {
        let first = openssl(address, &[version, "-ign_eof", "-sess_out", path], get);
        assert!(first.out.contains("New, TLSv1"), "{first:?}");
        for _ in 0..6 {
            let again = openssl(address, &[version, "-ign_eof", "-sess_in", path], get);
            assert!(again.out.contains("Reused, TLSv1") && again.out.contains("Hello, World!"), "{again:?}");
        }
    }
    // Early data is not accepted, so it cannot be replayed; the session resumes without.
    let early = fresh_path("tls.early");
    fs::File::create(&early)
        .and_then(|mut file| file.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
        .expect("written");
    let said = openssl(address, &["-tls1_3", "-sess_in", path, "-early_data", early.to_str().expect("text")], "");
    assert!(!said.out.contains("Early data was accepted"), "{said:?}");
    fs::remove_file(&session).and_then(|()| fs::remove_file(&early)).expect("removed");
}

#[test]
fn python_resumes_and_sees_a_clean_end() {
    if !is_there("python3", &["-c", "import ssl"]) {
        return;
    }
    let mut server = testbed(&[("FORKPOOL_WORKERS", "2"), ("FORKPOOL_BALANCE", "random")]);
    let address = address(&mut server);
    let script = r#"
import http.client, socket, ssl, sys
port, ca = int(sys.argv[1]), sys.argv[2]
for version in ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3:
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])
    session = None
    for turn in range(4):
        stream = context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="localhost",
                                     session=session, suppress_ragged_eofs=False)
        assert stream.session_reused == (turn > 0), (version, turn)
        assert stream.selected_alpn_protocol() == "http/1.1"
        stream.sendall(b"GET /plaintext HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        answer = b""
        while part := stream.recv(65536):
            answer += part
        assert answer.endswith(b"Hello, World!"), answer
        session = stream.session
        # Both say goodbye.
        stream.unwrap()
    connection = http.client.HTTPSConnection("localhost", port, context=context)
    for _ in range(3):
        connection.request("POST", "/echo", body=b"x" * 200000)
        assert len(connection.getresponse().read()) == 200000
print("done")
"#;
    let mut python = Command::new("python3");
    let said = run(python.args(["-c", script, &address.port().to_string(), &file("ca.pem")]));
    assert_eq!((said.code, said.out.trim()), (0, "done"), "{said:?}");
}

#[test]
fn node_resumes_and_keeps_its_connections() {
    if !is_there("node", &["--version"]) {
        return;
    }
    let mut server = testbed(&[("FORKPOOL_WORKERS", "2"), ("FORKPOOL_BALANCE", "random")]);
    let address = address(&mut server);
    let script = r#"
const [port, file] = process.argv.slice(-2);
const https = require('https'), ca = require('fs').readFileSync(file);
const get = agent => new Promise((done, failed) =>
  https.get({ host: 'localhost', family: 4, port, path: '/plaintext', ca, agent }, answer => {
    const isReused = answer.socket.isSessionReused(), version = answer.socket.getProtocol();
    answer.on('data', () => {}).on('end', () => done({ isReused, version, status: answer.statusCode }));
  }).on('error', failed));
(async () => {
  for (const version of ['TLSv1.2', 'TLSv1.3']) {
    const agent = new https.Agent({ keepAlive: false, maxVersion: version });
    for (let turn = 0; turn < 4; turn++) {
      const got = await get(agent);
      if (got.status !== 200 || got.version !== version || got.isReused !== turn > 0) throw Error(JSON.stringify({ turn, got }));
    }
    const kept = new https.Agent({ keepAlive: true, maxVersion: version });
    for (let turn = 0; turn < 4; turn++) await get(kept);
    kept.destroy();
  }
  console.log('done');
})().catch(error => { console.error(error); process.exit(1); });
"#;
    let mut node = Command::new("node");
    let said = run(node.args(["-e", script, "--", &address.port().to_string(), &file("ca.pem")]));
    assert_eq!((said.code, said.out.trim()), (0, "done"), "{said:?}");
}

#[test]
fn java_gets_a_page() {
    if !is_there("java", &["-version"]) || !is_there("javac", &["-version"]) {
        return;
    }
    let mut server = testbed(&[]);
    let address = address(&mut server);
    let directory = fresh_path("tls.java");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir(&directory).expect("a directory");
    let source = directory.join("Get.java");
    let program = r#"
import java.io.FileInputStream;
import java.net.URI;
import java.net.http.*;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import javax.net.ssl.*;
public class Get {
    public static void main(String[] arguments) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null);
        store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509")
            .generateCertificate(new FileInputStream(arguments[1])));
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        for (String version : new String[] {"TLSv1.2", "TLSv1.3"}) {
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(null, trust.getTrustManagers(), null);
            SSLParameters only = new SSLParameters();
            only.setProtocols(new String[] {version});
            HttpClient client = HttpClient.newBuilder().sslContext(context).sslParameters(only).build();
            for (int turn = 0; turn < 3; turn++) {
                HttpResponse<String> answer = client.send(
                    HttpRequest.newBuilder(URI.create("https://localhost:" + arguments[0] + "/plaintext")).build(),
                    HttpResponse.BodyHandlers.ofString());
                if (!answer.body().equals("Hello, World!")) throw new Error(answer.body());
                if (!answer.sslSession().get().getProtocol().equals(version)) throw new Error(version);
            }
        }
        System.out.println("done");
    }
}
"#;
    fs::write(&source, program).expect("written");
    let mut java = Command::new("java");
    java.args(["-Djava.net.preferIPv4Stack=true", "-Xshare:auto"]).arg(&source);
    let said = run(java.args([&address.port().to_string(), &file("ca.pem")]));
    assert_eq!((said.code, said.out.trim()), (0, "done"), "{said:?}");
    fs::remove_dir_all(&directory).expect("removed");
}

#[test]
fn chromium_opens_a_page() {
    if !is_there("chromium", &["--version"]) {
        return;
    }
    let mut server = testbed(&[]);
    let address = address(&mut server);
    let profile = fresh_path("tls.chromium");
    let mut chromium = Command::new("chromium");
    // It takes authorities from a store of the user alone, so it is told to trust this key.
    chromium.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]);
    chromium.args(["--ignore-certificate-errors", "--dump-dom"]).arg(format!("--user-data-dir={}", profile.display()));
    let said = run(chromium.arg(format!("https://{address}/plaintext")));
    assert!(said.code == 0 && said.out.contains("Hello, World!"), "{said:?}");
    // It may still write there as it ends.
    let _ = fs::remove_dir_all(&profile);
}

#[test]
fn sslyze_finds_no_fault() {
    if !is_there("sslyze", &["--help"]) {
        return;
    }
    let mut command = binary();
    command.env_remove("FORKPOOL_LISTEN").args(["--workers", "2", "--tls-listen", "127.0.0.1:0", "--root"]);
    command.arg(env!("CARGO_MANIFEST_DIR")).args(["--tls-certificate", &file("a.pem"), "--tls-key", &file("a.key")]);
    let mut server = Server::start(command);
    let address = address(&mut server);
    let said = run(Command::new("sslyze").args(["--mozilla_config=intermediate", &address.to_string()]));
    for found in [
        "Compression disabled",
        "Not vulnerable to OpenSSL CCS injection",
        "TLS_FALLBACK_SCSV:                 OK - Supported",
        "Not vulnerable to Heartbleed",
        "Not vulnerable, RSA cipher suites not supported",
        "Client Renegotiation DoS Attack:   OK - Not vulnerable",
        "Secure Renegotiation:              OK - Supported",
        "Forward Secrecy                    OK - Supported",
        "Legacy RC4 Algorithm               OK - Not Supported",
        "Received Chain Order:              OK - Order is valid",
    ] {
        assert!(said.out.contains(found), "{found}: {said:?}");
    }
    // It is the tests' own authority that nobody trusts, and its certificate that is valid for long.
    let faults = said.out.split_once("FAILED - Not compliant.").map_or("", |(_, faults)| faults);
    let allowed = ["certificate_path_validation", "maximum_certificate_lifespan"];
    let faults = faults.lines().filter(|line| line.trim_start().starts_with("* "));
    let faults: Vec<_> = faults.filter(|line| !allowed.iter().any(|it| line.contains(it))).collect();
    assert!(said.out.contains("COMPLIANCE AGAINST TLS CONFIGURATION") && faults.is_empty(), "{faults:?}: {said:?}");
    // The server is as it was.
    assert_eq!(server.workers().len(), 2);
    assert_eq!(server.count("panicked") + server.count("killed"), 0);
}
