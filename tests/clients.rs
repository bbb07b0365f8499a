//! Clients that others have written.

mod support;

use std::process::{Command, Output};

use support::{skip, testbed};

/// What a program says; `None`, with the reason printed, where there is no such program.
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
