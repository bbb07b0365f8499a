//! HTTP clients written by others.

mod support;

use std::process::{Command, Output};

use support::{skip, testbed};

/// The output of a program; prints why and returns `None` if there is no such program.
fn run(program: &str, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Some(output),
        Err(error) => {
            skip(&format!("no {program} here: {error}"));
            None
        }
    }
}

#[track_caller]
fn said(output: &Output) -> &str {
    let text = std::str::from_utf8(&output.stdout).expect("text");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn curl() {
    let mut server = testbed(&[]);
    let url = |path: &str, port: u16| format!("http://127.0.0.1:{port}{path}");
    let port = server.port();
    let echo = url("/echo", port);
    let large = "x".repeat(100_000);
    let path = support::fresh_path("curl");
    std::fs::write(&path, &large).expect("a file");
    let body = format!("@{}", path.display());
    let Some(twice) = run("curl", &["-sS", &url("/plaintext", port), &url("/", port)]) else { return };
    assert_eq!(said(&twice), "Hello, World!testbed\n");
    // Curl expects to be told to go on with a body of this size.
    let by_length = run("curl", &["-sS", "--data-binary", &body, "-H", "Expect: 100-continue", &echo]).expect("curl");
    assert_eq!(said(&by_length), large);
    let chunked = ["-sS", "--data-binary", &body, "-H", "Transfer-Encoding: chunked", &echo];
    assert_eq!(said(&run("curl", &chunked).expect("curl")), large);
    let old = run("curl", &["-sS", "--http1.0", &url("/", port)]).expect("curl");
    assert_eq!(said(&old), "testbed\n");
    let head = run("curl", &["-sS", "--head", &url("/", port)]).expect("curl");
    assert!(said(&head).contains("Content-Length: 8\r\n"));
    std::fs::remove_file(path).expect("the file");
}

#[test]
fn python() {
    let mut server = testbed(&[]);
    let script = format!(
        "import http.client\n\
         c = http.client.HTTPConnection('127.0.0.1', {})\n\
         for _ in range(3):\n\
         \x20   c.request('GET', '/plaintext')\n\
         \x20   r = c.getresponse()\n\
         \x20   assert (r.status, r.read()) == (200, b'Hello, World!')\n\
         c.request('HEAD', '/')\n\
         assert c.getresponse().read() == b''\n\
         c.request('POST', '/echo', body=iter([b'a' * 5000, b'b']), encode_chunked=True, \
         headers={{'Transfer-Encoding': 'chunked'}})\n\
         assert c.getresponse().read() == b'a' * 5000 + b'b'\n\
         print('fine')\n",
        server.port()
    );
    if let Some(output) = run("python3", &["-c", &script]) {
        assert_eq!(said(&output), "fine\n");
    }
}

#[test]
fn node() {
    let mut server = testbed(&[]);
    let script = format!(
        "const base = 'http://127.0.0.1:{}';\n\
         (async () => {{\n\
         for (let i = 0; i < 3; i++) {{\n\
         const text = await (await fetch(base + '/plaintext')).text();\n\
         if (text !== 'Hello, World!') throw new Error(text);\n\
         }}\n\
         const echo = await fetch(base + '/echo', {{ method: 'POST', body: 'x'.repeat(50000) }});\n\
         if ((await echo.text()).length !== 50000) throw new Error('echo');\n\
         if ((await fetch(base + '/204')).status !== 204) throw new Error('204');\n\
         console.log('fine');\n\
         }})().catch((error) => {{ console.error(error); process.exit(1); }});\n",
        server.port()
    );
    let Some(version) = run("node", &["--version"]) else { return };
    let major = said(&version).trim_start_matches('v').split('.').next().and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < 18) {
        return skip("this node has no fetch");
    }
    assert_eq!(said(&run("node", &["-e", &script]).expect("node")), "fine\n");
}

/// The example with every kind of response.
fn answers() -> support::Server {
    let mut command = support::example("answers");
    command.env("FORKPOOL_WORKERS", "1");
    support::Server::start_silent(command)
}

#[test]
fn curl_and_node_take_hints_and_trailers() {
    let mut server = answers();
    let url = |path: &str, port: u16| format!("http://127.0.0.1:{port}{path}");
    let port = server.port();
    if let Some(hinted) = run("curl", &["-sS", &url("/hints", port), &url("/text", port)]) {
        assert_eq!(said(&hinted), "<p>hinted\nplain\n");
        let trailers = ["-sS", "-D", "-", "-H", "TE: trailers", "-H", "Connection: TE", &url("/trailers", port)];
        let trailers = run("curl", &trailers).expect("curl");
        assert!(said(&trailers).contains("Server-Timing: made;dur=1"), "{}", said(&trailers));
    }
    let script = format!(
        "const http = require('http');\n\
         const ask = (path, headers) => new Promise((resolve, reject) => {{\n\
         const seen = {{}};\n\
         const request = http.get({{ host: '127.0.0.1', port: {port}, path, headers }}, (response) => {{\n\
         response.setEncoding('utf8');\n\
         seen.text = '';\n\
         response.on('data', (data) => seen.text += data);\n\
         response.on('end', () => resolve({{ ...seen, trailers: response.trailers }}));\n\
         }});\n\
         request.on('information', (info) => seen.hints = [info.statusCode, info.headers.link]);\n\
         request.on('error', reject);\n\
         }});\n\
         (async () => {{\n\
         const [hinted, timed] = [await ask('/hints', {{}}), await ask('/trailers', {{ TE: 'trailers' }})];\n\
         console.log(JSON.stringify([hinted.hints, hinted.text, timed.text, timed.trailers]));\n\
         }})().catch((error) => {{ console.error(error); process.exit(1); }});\n",
    );
    if let Some(output) = run("node", &["-e", &script]) {
        let expected =
            r#"[[103,"</style.css>; rel=preload; as=style"],"<p>hinted\n","timed\n",{"server-timing":"made;dur=1"}]"#;
        assert_eq!(said(&output).trim_end(), expected);
    }
}

/// Like Java's clients, it writes its whole body before it reads, and is slower than the server's refusal.
const JAVA: &str = r#"
import java.io.OutputStream;
import java.net.HttpURLConnection;
import java.net.URI;

public class Client {
    public static void main(String[] arguments) throws Exception {
        String base = "http://127.0.0.1:" + arguments[0];
        HttpURLConnection get = (HttpURLConnection) URI.create(base + "/plaintext").toURL().openConnection();
        System.out.println(get.getResponseCode() + " " + new String(get.getInputStream().readAllBytes()));
        HttpURLConnection put = (HttpURLConnection) URI.create(base + "/echo").toURL().openConnection();
        put.setRequestMethod("POST");
        put.setDoOutput(true);
        put.setFixedLengthStreamingMode(4 << 20);
        try (OutputStream body = put.getOutputStream()) {
            for (int piece = 0; piece < 16; piece++) {
                body.write(new byte[256 << 10]);
                Thread.sleep(20);
            }
        }
        System.out.println(put.getResponseCode());
    }
}
"#;

#[test]
fn a_java_client_reads_the_413() {
    let mut server = testbed(&[("FORKPOOL_MAX_BODY", "1MiB")]);
    let directory = support::fresh_path("java");
    std::fs::create_dir_all(&directory).expect("a directory");
    let source = directory.join("Client.java");
    std::fs::write(&source, JAVA).expect("a file");
    // It compiles the file itself, from version 11 on.
    let port = server.port().to_string();
    let arguments = ["-Xshare:auto", "-XX:TieredStopAtLevel=1", &source.to_string_lossy(), &port];
    let Some(output) = run("java", &arguments) else { return };
    if !output.status.success() && String::from_utf8_lossy(&output.stderr).contains("Could not find or load main class")
    {
        return skip("this java has no compiler");
    }
    assert_eq!(said(&output), "200 Hello, World!\n413\n");
    std::fs::remove_dir_all(directory).expect("the directory");
}
