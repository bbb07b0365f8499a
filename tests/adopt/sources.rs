//! Unmodified programs, and how each is run on this machine.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::OnceLock;

use super::support::{fresh_path, is_there, skip};

const NODE: &str = "
const server = require('http').createServer((request, response) => {
    response.setHeader('X-Pid', process.pid);
    response.end('hello world\\n');
});
process.on('SIGTERM', () => server.close());
server.listen(+process.argv[2]);
";

const NODE_CLUSTER: &str = "
const cluster = require('cluster');
if (cluster.isPrimary) {
    for (let i = 0; i < 2; i++) cluster.fork();
    process.on('SIGTERM', () => cluster.disconnect());
} else {
    const server = require('http').createServer((request, response) => response.end('hello world\\n'));
    process.on('SIGTERM', () => {});
    server.listen(+process.argv[2]);
}
";

pub(super) const ASYNCIO: &str = "
import asyncio, sys
async def answer(reader, writer):
    await reader.readuntil(b'\\r\\n\\r\\n')
    writer.write(b'HTTP/1.1 200 OK\\r\\nContent-Length: 12\\r\\nConnection: close\\r\\n\\r\\nhello world\\n')
    await writer.drain()
    writer.close()
async def main():
    server = await asyncio.start_server(answer, port=int(sys.argv[1]))
    await server.serve_forever()
asyncio.run(main())
";

/// The applications for uvicorn (ASGI) and for gunicorn (WSGI).
pub(super) const APPLICATIONS: &str = "
async def asgi(scope, receive, send):
    if scope['type'] != 'http': return
    await send({'type': 'http.response.start', 'status': 200, 'headers': [(b'content-length', b'12')]})
    await send({'type': 'http.response.body', 'body': b'hello world\\n'})
def wsgi(environ, start_response):
    start_response('200 OK', [('Content-Length', '12')])
    return [b'hello world\\n']
";

const GO: &str = r#"
package main
import ("net/http"; "os")
func main() {
    http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("hello world\n")) })
    panic(http.ListenAndServe(":" + os.Args[1], nil))
}
"#;

pub(super) const NGINX: &str = "
daemon off; error_log stderr; pid nginx.pid; worker_processes 2; user root;
events { worker_connections 64; }
http {
    access_log off; client_body_temp_path t; proxy_temp_path t; fastcgi_temp_path t; uwsgi_temp_path t; scgi_temp_path t;
    server { listen PORT; location / { return 200 'hello world\\n'; } }
}
";

/// A directory for the files of a program. Tests of a program run at the same time, so each has its own.
pub(super) fn directory(name: &str) -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let directory = fresh_path(&format!("adopt-{name}-{}", COUNT.fetch_add(1, Relaxed)));
    fs::create_dir_all(&directory).expect("it is writable");
    directory
}

/// The path of the C program, which is built once.
pub(super) fn server() -> Option<&'static str> {
    static BUILT: OnceLock<Option<String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/adopt/server.c");
        let path = directory("server").join("server");
        let words = ["-static", "-O1", "-pthread", source, "-o", path.to_str().expect("text")];
        let said = Command::new("cc").args(words).output();
        said.is_ok_and(|said| said.status.success()).then(|| path.display().to_string())
    });
    if built.is_none() {
        skip("cc(1) cannot build a static program");
    }
    built.as_deref()
}

/// The shell command that runs a program on port `$PORT`; `None` if this machine does not have the program.
pub(super) fn script(name: &str) -> Option<String> {
    let files = directory(name);
    let write = |name: &str, text: &str| fs::write(files.join(name), text).expect("it is writable");
    let place = files.display();
    match name {
        "c" => server().map(|path| format!("exec {path} $PORT")),
        "node" | "node_cluster" if is_there("node", &["--version"]) => {
            write("app.js", if name == "node" { NODE } else { NODE_CLUSTER });
            Some(format!("exec node {place}/app.js $PORT"))
        }
        "http_server" if is_there("python3", &["--version"]) => {
            write("index.html", "hello world\n");
            Some(format!("exec python3 -m http.server $PORT -d {place}"))
        }
        "asyncio" if is_there("python3", &["--version"]) => {
            write("app.py", ASYNCIO);
            Some(format!("exec python3 {place}/app.py $PORT"))
        }
        "uvicorn" | "uvicorn_workers" if is_there("uvicorn", &["--version"]) => {
            write("app.py", APPLICATIONS);
            let workers = if name == "uvicorn" { "" } else { "--workers 2" };
            Some(format!("cd {place} && exec uvicorn --port $PORT {workers} app:asgi"))
        }
        "gunicorn" if is_there("gunicorn", &["--version"]) => {
            write("app.py", APPLICATIONS);
            Some(format!("cd {place} && exec gunicorn --workers 2 --bind 127.0.0.1:$PORT app:wsgi"))
        }
        "php" if is_there("php", &["--version"]) => {
            write("index.php", "<?php header('Content-Length: 12'); ?>hello world\n");
            Some(format!("exec php -S 127.0.0.1:$PORT -t {place}"))
        }
        "go" if is_there("go", &["version"]) => {
            write("main.go", GO);
            let mut build = Command::new("go");
            build.args(["build", "-o", "server", "main.go"]).current_dir(&files).env("GO111MODULE", "off");
            let built = build.env("GOCACHE", env!("CARGO_TARGET_TMPDIR").to_owned() + "/go").status();
            assert!(built.is_ok_and(|status| status.success()), "it cannot be built");
            Some(format!("exec {place}/server $PORT"))
        }
        "nginx" if is_there("nginx", &["-v"]) => {
            write("nginx.conf", NGINX);
            // Each of its processes needs a directory of its own.
            let own = format!("{place}/$FORKPOOL_UNIQUE_ID");
            let conf = format!("sed s/PORT/$PORT/ {place}/nginx.conf > {own}/nginx.conf");
            Some(format!("mkdir -p {own} && {conf} && exec nginx -p {own} -c {own}/nginx.conf"))
        }
        "redis" if is_there("redis-server", &["--version"]) => {
            Some(format!("cd {place} && exec redis-server --port $PORT --save '' --appendonly no"))
        }
        _ => None,
    }
}
