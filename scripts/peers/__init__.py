"""What the scripts that measure servers have in common: how each is built, started, watched and stopped, and the client
that loads them."""

import json
import os
import re
import select
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve()
SCRATCH = TARGET / "bench"
PEERS = ROOT / "scripts/peers"
# Whoever compares speed compares what is shipped.
# BUILT names another directory, of programs that are built already: to try a script.
DIST = Path(os.environ.get("BUILT", TARGET / "dist")).resolve()
SERVER_CPU, CLIENT_CPU = "0", "1"
# Seconds for what a client does.
PATIENCE = 120
# Of the script that is run.
NAME = Path(sys.argv[0]).name

CRATES = {
    "may": ['may = { version = "0.3", default-features = false }', 'may_minihttp = "0.1"'],
    "hyper": [
        'bytes = "1"',
        'http-body-util = "0.1"',
        'hyper = { version = "1", features = ["http1", "server"] }',
        'hyper-util = { version = "0.1", features = ["tokio"] }',
        'tokio = { version = "1", features = ["net", "rt"] }',
    ],
    "actix": ['actix-web = { version = "4", default-features = false, features = ["macros"] }'],
    "axum": [
        'axum = { version = "0.8", default-features = false, features = ["http1", "tokio"] }',
        'tokio = { version = "1", features = ["macros", "net", "rt"] }',
    ],
    "hyper-tls": [
        'bytes = "1"',
        'http-body-util = "0.1"',
        'hyper = { version = "1", features = ["http1", "server"] }',
        'hyper-util = { version = "0.1", features = ["tokio"] }',
        'tokio = { version = "1", features = ["net", "rt"] }',
        'tokio-rustls = { version = "0.26", default-features = false, features = ["ring", "tls12"] }',
    ],
    "ntex": ['ntex = { version = "3", default-features = false, features = ["tokio"] }'],
}
# What a browser sends.
BROWSER = [
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3",
    "Accept-Encoding: gzip, deflate, br, zstd",
    "Connection: keep-alive",
    "Cookie: session=9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "Upgrade-Insecure-Requests: 1",
    "Sec-Fetch-Mode: navigate",
    "Priority: u=0, i",
]
# On a busy machine, opening the connections of a load can outlast the time that a client has for its first request.
TIMEOUTS = {"FORKPOOL_HEAD_TIMEOUT": "1h", "FORKPOOL_IDLE_TIMEOUT": "1h"}
FILES = {"1k": 1 << 10, "16k": 16 << 10, "64k": 64 << 10, "1m": 1 << 20, "plaintext": 13}


class Server:
    """How one is started. What it can do is the workloads it takes part in."""

    def __init__(self, name, command, workloads, environment=None, config=None, is_countable=True):
        self.name, self.command, self.workloads = name, command, workloads
        self.environment, self.config, self.is_countable = environment or {}, config, is_countable

    def start(self, scratch, wrapper, workers=1, cpus=SERVER_CPU, identity="a"):
        """Returns the process that was started and its port, once it answers. Not all know of `workers`, and few of
        TLS: the `identity` is one of tests/certificates, a (P-256) or b (RSA-2048)."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        values = {"port": port, "workers": str(workers), "root": f"{SCRATCH}/files", "scratch": scratch}
        values |= {"certificate": certificate(identity, "pem"), "key": certificate(identity, "key")}
        if self.config and "{both}" in Path(PEERS, self.config).read_text():
            # HAProxy wants them in one file.
            values["both"] = f"{scratch}/both.pem"
            Path(values["both"]).write_text(Path(values["certificate"]).read_text() + Path(values["key"]).read_text())
        fill = lambda text: re.sub(r"\{(port|workers|root|scratch|certificate|key|both)\}", lambda found: values[found[1]], text)
        if self.config:
            Path(scratch, self.config).write_text(fill(Path(PEERS, self.config).read_text()))
        environment = {**os.environ, **{key: fill(value) for key, value in self.environment.items()}}
        command = ["taskset", "-c", cpus, *wrapper, *map(fill, self.command)]
        log = open(f"{scratch}/{self.name}.log", "w")
        # nginx lets its workers become another user, who must be able to read the configuration's directory.
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        for _ in range(600):
            try:
                socket.create_connection(("127.0.0.1", int(port)), timeout=1).close()
                return process, port
            except OSError:
                if process.poll() is not None:
                    break
                time.sleep(0.05)
        stop(process)
        raise Failed(f"{self.name} does not start: {Path(log.name).read_text()[-300:].strip()}")


class Pool:
    """A program that starts workers, in a session of its own. Its log is a file, which is read for what it
    announces."""

    def __init__(self, command, log, variables=None, stdout=subprocess.DEVNULL):
        """`stdout` may be subprocess.STDOUT: the log has it then."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FORKPOOL_")}
        self.log = Path(log)
        with self.log.open("wb") as file:
            streams = {"stdin": subprocess.DEVNULL, "stdout": file if stdout == subprocess.STDOUT else stdout, "stderr": file}
            environment |= variables or {}
            self.process = subprocess.Popen(list(map(str, command)), env=environment, start_new_session=True, **streams)
        self.pid = self.process.pid

    def said(self):
        return self.log.read_text(errors="replace")

    def wait_for(self, pattern, seconds=60, times=1):
        return wait_for(self.log, pattern, lambda: self.process.poll() is not None, seconds, times)

    def port(self, seconds=60, scheme="http"):
        return int(self.wait_for(listening(scheme), seconds).rsplit(":", 1)[1])

    def workers(self):
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    def signal(self, number):
        self.process.send_signal(number)

    def stop(self, seconds=20):
        stop(self.process, seconds)


def listening(scheme="http"):
    """The line in which a pool announces where it listens, once all its workers are ready."""
    return rf"listening on {scheme}://([^ ]*:\d+)"


def wait_for(log, pattern, has_ended, seconds=60, times=1):
    """Waits until a program's log has the pattern so many times, and returns the last match, or its group."""
    end = time.monotonic() + seconds
    while True:
        # Asked before the log is read, which is complete once the program has ended.
        ended = has_ended()
        text = log.read_text(errors="replace")
        found = re.findall(pattern, text)
        if len(found) >= times:
            return found[-1]
        if ended:
            raise Failed(f"the server has ended: {text[-300:].strip()}")
        if time.monotonic() > end:
            raise Failed(f"the server does not say {pattern!r} within {seconds} s: {text[-300:].strip()}")
        time.sleep(0.01)


def certificate(name, kind):
    """A file of tests/certificates."""
    return str(ROOT / "tests/certificates" / f"{name}.{kind}")


class Failed(Exception):
    """A server or a client that did not do what it should; the run continuing without it."""


def prepare():
    """Builds what is ours, and writes the files that are served."""
    # So that what has been started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if len(os.sched_getaffinity(0)) < 2 or not shutil.which("taskset"):
        sys.exit(f"{NAME}: it needs two CPUs and taskset (Debian: apt-get install util-linux)")
    note("building forkpool and the examples")
    build("dist", bins=["forkpool"], examples=["plaintext", "raw", "raw_tls", "flood"])
    (SCRATCH / "files").mkdir(parents=True, exist_ok=True)
    for name, size in FILES.items():
        (SCRATCH / "files" / name).write_bytes(b"x" * size)


def build(profile, bins=(), examples=()):
    """Returns the directory with the programs; examples are in examples/ there. BUILT in the environment names one
    instead, of programs that are built already."""
    if "BUILT" in os.environ:
        return Path(os.environ["BUILT"]).resolve()
    command = ["cargo", "build", "--profile", profile, "--quiet"]
    command += [word for name in bins for word in ("--bin", name)] + [word for name in examples for word in ("--example", name)]
    if subprocess.run(command, cwd=ROOT).returncode:
        sys.exit(f"{NAME}: cargo could not build {', '.join([*bins, *examples])}")
    return TARGET / ("debug" if profile == "dev" else profile)


def available(names):
    """The servers that can be run here."""
    dynamic, files = ["short-unlike", "browser-unlike", "keep-alive", "pipelined", "browser", "close"], ["file-1k", "file-64k", "file-1m"]
    pool = {"FORKPOOL_LISTEN": "127.0.0.1:{port}", "FORKPOOL_WORKERS": "{workers}", "RUST_LOG": "warn", **TIMEOUTS}
    plaintext, binary = str(DIST / "examples/plaintext"), str(DIST / "forkpool")
    servers = [
        Server("raw", [str(DIST / "examples/raw"), "{port}", "{workers}"], dynamic),
        Server("forkpool", [plaintext], [*dynamic, "deferred"], pool),
        Server("forkpool --root", [binary, "--root", "{root}"], files, pool),
    ]
    wanted = lambda name: names is None or name in names
    for name, dependencies in CRATES.items():
        program = wanted(name) and name != "hyper-tls" and build_peer(name, dependencies)
        if program:
            # may_minihttp never closes a connection, whatever the request asks.
            servers.append(Server(name, [program, "{port}"], dynamic if name != "may" else dynamic[:3]))
    installed = {
        "nginx": (["nginx", "-c", "{scratch}/nginx.conf"], [*dynamic, *files], "nginx.conf", True),
        # It and lighttpd have no answer but files; it keeps them open.
        "h2o": (["h2o", "-c", "{scratch}/h2o.conf"], [*dynamic, *files], "h2o.conf", True),
        "lighttpd": (["lighttpd", "-D", "-f", "{scratch}/lighttpd.conf"], files, "lighttpd.conf", True),
        "haproxy": (["haproxy", "-f", "{scratch}/haproxy.cfg"], dynamic, "haproxy.cfg", True),
        "node": (["node", str(PEERS / "cluster.js"), "{port}"], dynamic, None, False),
    }
    for name, (command, workloads, config, is_countable) in installed.items():
        path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"])
        program = shutil.which(name, path=path)
        if program:
            servers.append(Server(name, [program, *command[1:]], workloads, config=config, is_countable=is_countable))
        elif wanted(name):
            note(f"without {name} (Debian: apt-get install {name if name != 'node' else 'nodejs'})")
    return [server for server in servers if wanted(server.name.split()[0])]


def available_with_tls(names):
    """The servers with TLS that can be run here."""
    shaken, kept = ["tls-full", "tls-full-rsa", "tls-resumed", "tls-full-12", "tls-resumed-12"], ["tls-kept"]
    pool = {"FORKPOOL_LISTEN": "unix:{scratch}/socket", "FORKPOOL_TLS_LISTEN": "127.0.0.1:{port}", "FORKPOOL_WORKERS": "{workers}",
            "FORKPOOL_TLS_CERTIFICATE": "{certificate}", "FORKPOOL_TLS_KEY": "{key}", "RUST_LOG": "warn",
            **TIMEOUTS}  # fmt: skip
    plaintext, binary = str(DIST / "examples/plaintext"), str(DIST / "forkpool")
    files, identity = ["tls-16k", "tls-1m"], ["{certificate}", "{key}"]
    servers = [
        Server("raw_tls", [str(DIST / "examples/raw_tls"), "{port}", *identity], [*shaken, *kept, *files]),
        Server("forkpool", [plaintext], [*shaken, *kept], pool),
        Server("forkpool --root", [binary, "--root", "{root}"], files, pool),
    ]
    wanted = lambda name: names is None or name in names
    program = wanted("hyper-tls") and build_peer("hyper-tls", CRATES["hyper-tls"])
    if program:
        servers.append(Server("hyper-tls", [program, "{port}", *identity], [*shaken, *kept, *files]))
    for name, workloads, config in [
        ("nginx", [*shaken, *kept, *files], "nginx-tls.conf"),
        # Its answers fit a buffer.
        ("haproxy", [*shaken, *kept, "tls-16k"], "haproxy-tls.cfg"),
    ]:
        program = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"]))
        if program:
            flag = "-c" if name == "nginx" else "-f"
            servers.append(Server(name, [program, flag, f"{{scratch}}/{config}"], workloads, config=config))
        elif wanted(name):
            note(f"without {name} (Debian: apt-get install {name})")
    return [server for server in servers if wanted(server.name.split()[0])]


def build_peer(name, dependencies):
    """A package of its own for each, so that one that does not build leaves the others alone."""
    place = SCRATCH / "peers" / name
    place.mkdir(parents=True, exist_ok=True)
    manifest = ["[workspace]", "[package]", f'name = "peer-{name}"', 'version = "0.0.0"', 'edition = "2024"']
    manifest += ["[[bin]]", f'name = "peer-{name}"', f"path = {json.dumps(f'{PEERS / name.replace(chr(45), chr(95))}.rs')}"]
    manifest += ["[profile.release]", 'lto = "fat"', "codegen-units = 1", 'panic = "abort"', "[dependencies]", *dependencies]
    Path(place, "Cargo.toml").write_text("\n".join(manifest) + "\n")
    note(f"building {name}")
    command = ["cargo", "build", "--release", "--quiet"]
    environment = {**os.environ, "CARGO_TARGET_DIR": str(SCRATCH / "build")}
    built = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    if built.returncode:
        lines = built.stderr.strip().splitlines() or ["it says nothing"]
        note(f"without {name}, which does not build: {lines[0]} (try cargo build in {place})")
        return None
    return str(SCRATCH / "build/release" / f"peer-{name}")


def flood(port, options, cpus=CLIENT_CPU, before=None):
    """Runs the client, and returns what it prints. `before` is called once its connections are open and have been
    answered."""
    command = ["taskset", "-c", cpus, str(DIST / "examples/flood"), f"127.0.0.1:{port}", *options]
    pipe = subprocess.PIPE
    client = subprocess.Popen([*command, *(["--hold"] if before else [])], stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        if before:
            said(client, time.monotonic() + PATIENCE)
            before()
        out, errors = client.communicate("\n", timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        raise Failed(f"it does not answer all requests within {PATIENCE} s") from None
    finally:
        client.kill()
        client.wait()
    if client.returncode:
        raise Failed((errors or out).strip())
    result = pairs(out)
    if not result["requests"]:
        raise Failed("it has answered no request in time")
    return result


def said(client, end):
    """The pairs of a client's next line, which has to come before a moment of time.monotonic()."""
    ready, _, _ = select.select([client.stdout], [], [], max(0, end - time.monotonic()))
    line = client.stdout.readline() if ready else ""
    if not line:
        raise Failed("a client has ended" if ready else "out of time")
    return pairs(line)


def pairs(line):
    return {key: int(value) for key, value in (pair.split("=") for pair in line.split())}


def stop(process, seconds=20):
    """Ends a server and what it has started; all of it is in a session of its own."""
    pids = tree(process.pid) if process.poll() is None else []
    # strace would not end what it traces.
    is_traced = len(pids) > 1 and Path(f"/proc/{pids[0]}/comm").read_text() == "strace\n"
    if pids:
        os.kill(pids[1] if is_traced else pids[0], signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait()


def tree(pid):
    """A process and its descendants."""
    pids = [pid]
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in tasks.read_text().split():
            pids += tree(int(child))
    return pids


class Cost:
    """What a server's processes take from now on: CPU time, how often they sleep, and instructions where perf can count
    them."""

    def __init__(self, process, has_perf):
        self.pids = tree(process.pid)
        self.perf = perf_start(self.pids) if has_perf else None
        self.slept = sum(map(sleeps, self.pids))
        self.before = sum(map(cpu_ns, self.pids))

    def of_each(self, requests):
        """Until now, divided by them."""
        cpu = sum(map(cpu_ns, self.pids)) - self.before
        slept = sum(map(sleeps, self.pids)) - self.slept
        counters = perf_stop(self.perf) if self.perf else {}
        return {"cpu_us": cpu / 1e3 / requests, "sleeps": slept / requests, **{name: value / requests for name, value in counters.items()}}


def cpu_ns(pid):
    """Time on a CPU of all threads, in user and kernel space (proc(5), schedstat)."""
    return sum(int(path.read_text().split()[0]) for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))


def sleeps(pid):
    """How many times its threads have gone to sleep (proc(5), status)."""
    texts = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/status")]
    return sum(int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", text, re.M)[1]) for text in texts)


PERF = ["perf", "stat", "-x,", "-e", "instructions:u,instructions:k"]


def perf_counts():
    if shutil.which("perf"):
        tried = subprocess.run([*PERF, "true"], capture_output=True, text=True)
        if tried.returncode == 0 and "<not" not in tried.stderr:
            return True
    note("without kernel instructions: perf is missing, may not count, or has no hardware counters here")
    return False


def perf_start(pids):
    perf = subprocess.Popen([*PERF, "-p", ",".join(map(str, pids))], stderr=subprocess.PIPE, text=True)
    time.sleep(0.05)
    return perf


def perf_stop(perf):
    perf.send_signal(signal.SIGINT)
    _, text = perf.communicate()
    names = {"instructions:u": "instr_user", "instructions:k": "instr_kernel"}
    rows = [line.split(",") for line in text.splitlines()]
    return {names[row[2]]: int(row[0]) for row in rows if len(row) > 2 and row[2] in names and row[0].isdigit()}


def note(text):
    progress("")
    print(f"{NAME}: {text}", file=sys.stderr, flush=True)


def mean_and_interval(values):
    """Their mean, and its 95 % interval; of a single one, the same."""
    mean, spread = statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0
    half = 1.96 * spread / len(values) ** 0.5
    return mean, (mean - half, mean + half)


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
