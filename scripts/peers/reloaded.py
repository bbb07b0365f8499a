"""Servers with several workers that can be restarted, replaced by a new binary, and scaled while they serve."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from peers import PEERS, Failed, Pool, certificate, stop

PATIENCE = 60  # seconds for each change


def ended(pid):
    """Whether a process is gone, or a zombie that nobody has reaped yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(") ")[1][0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def until(what, condition, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"not within {seconds} s: {what}")
        time.sleep(0.002)


def children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


class Forkpool:
    """The example testbed. `variables` are further settings."""

    name = "forkpool"

    def __init__(self, programs, scratch, workers, variables=None):
        self.pid_file, self.admin_socket = Path(scratch, "forkpool.pid"), str(Path(scratch, "admin"))
        settings = {
            "FORKPOOL_LISTEN": "127.0.0.1:0", "FORKPOOL_ADMIN": f"unix:{self.admin_socket}", "FORKPOOL_WORKERS": str(workers),
            "FORKPOOL_PID_FILE": str(self.pid_file), "FORKPOOL_IDLE_TIMEOUT": "1h", "FORKPOOL_BACKLOG": "4096",
        }  # fmt: skip
        self.pool = Pool([programs / "examples/testbed"], Path(scratch, "forkpool.log"), settings | (variables or {}))
        self.port = self.pool.port(scheme="https" if "FORKPOOL_TLS_LISTEN" in (variables or {}) else "http")
        self.done = {}

    def admin(self, method, path):
        client = http.client.HTTPConnection("localhost")
        client.sock = socket.socket(socket.AF_UNIX)
        client.sock.settimeout(PATIENCE)
        client.sock.connect(self.admin_socket)
        client.request(method, path)
        answer = client.getresponse()
        body = answer.read()
        if answer.status not in (200, 202):
            raise Failed(f"{method} {path}: {answer.status}: {body.decode(errors='replace').strip()}")
        return json.loads(body)

    def parent(self):
        return int(self.pid_file.read_text())

    def workers(self):
        """Their processes; the admin process, and another parent, are none."""
        status = self.admin("GET", "/status.json")
        return [worker["pid"] for worker in status["workers"] if worker["pid"]]

    def await_line(self, text):
        self.done[text] = self.done.get(text, 0) + 1
        wait = self.pool.log.read_text
        until(f"the line {text!r}", lambda: wait(errors="replace").count(text) >= self.done[text])

    def restart(self):
        old = self.workers()
        os.kill(self.parent(), signal.SIGHUP)
        self.await_line("rolling restart done")
        until("the old workers have ended", lambda: all(map(ended, old)))

    def upgrade(self):
        old, parent = self.workers(), self.parent()
        os.kill(parent, signal.SIGUSR2)
        self.await_line("upgrade done: pid=")
        until("the old pool has ended", lambda: all(map(ended, [parent, *old])) and self.parent() != parent)

    def scale(self, count):
        old = self.workers()
        self.admin("POST", f"/scale?workers={count}")
        if count > len(old):
            until("the new workers serve", lambda: self.admin("GET", "/status.json")["pool"]["serving"] == count)
        else:
            until("the surplus workers have ended", lambda: sum(not ended(pid) for pid in old) == count)

    def stop(self):
        try:
            os.kill(self.parent(), signal.SIGTERM)
            until("the pool has ended", lambda: not self.pid_file.exists(), 20)
        except (Failed, FileNotFoundError, ProcessLookupError):
            pass
        self.pool.stop(1)


class Peer:
    """A server whose parent, of the process id `parent`, has its workers as children."""

    environment = None
    # For HTTPS the name of an identity of tests/certificates.
    identity = None

    def __init__(self, scratch, workers):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.scratch, self.count = scratch, workers
        self.configure()
        log = open(Path(scratch, f"{self.name}.log"), "w")
        self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, start_new_session=True)
        self.parent = self.process.pid
        until(f"{self.name} listens: {Path(log.name).read_text()}", self.listens)

    def listens(self):
        if self.process.poll() is not None:
            raise Failed(f"{self.name} has ended: {Path(self.scratch, f'{self.name}.log').read_text()[-300:]}")
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            return len(self.workers()) > 0
        except OSError:
            return False

    def workers(self):
        return children(self.parent)

    def configure(self):
        pass

    def replaced(self, number):
        old = self.workers()
        os.kill(self.parent, number)
        until("the old workers have ended", lambda: all(map(ended, old)))

    def scale(self, count):
        self.count = count
        self.configure()
        self.restart()

    def stop(self):
        stop(self.process, 5)


class Nginx(Peer):
    name = "nginx"

    def command(self):
        return [program("nginx"), "-c", f"{self.scratch}/kept.conf"]

    def configure(self):
        paths = " ".join(f"{name}_temp_path {self.scratch}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        files = self.identity and (certificate(self.identity, "pem"), certificate(self.identity, "key"))
        # The cache is what its documentation recommends.
        tls = files and f"ssl_certificate {files[0]}; ssl_certificate_key {files[1]}; ssl_protocols TLSv1.2 TLSv1.3; " \
            "ssl_session_cache shared:TLS:10m;" or ""
        Path(self.scratch, "kept.conf").write_text(f"""
            worker_processes {self.count}; worker_rlimit_nofile 20000;
            pid {self.scratch}/nginx.pid; error_log {self.scratch}/nginx.errors crit;
            events {{ worker_connections 12000; }}
            http {{
              access_log off; keepalive_timeout 1h; keepalive_requests 1000000000; {paths} {tls}
              server {{ listen 127.0.0.1:{self.port} {"ssl" if tls else ""} backlog=4096; location / {{ return 200 "Hello, World!"; }} }}
            }}""")

    def listens(self):
        """Its master is another process than the one that was started: without a daemon it refuses to be upgraded."""
        self.process.wait(PATIENCE)
        self.parent = int(Path(self.scratch, "nginx.pid").read_text())
        return len(self.workers()) > 0

    def restart(self):
        self.replaced(signal.SIGHUP)

    def upgrade(self):
        """As its documentation says: a new master beside the old one, which then ends."""
        old, master, pid_file = self.workers(), self.parent, Path(self.scratch, "nginx.pid")
        os.kill(master, signal.SIGUSR2)
        is_new = lambda: pid_file.exists() and pid_file.read_text().strip() not in ("", str(master))
        until("the new master has written its pid", is_new)
        self.parent = int(pid_file.read_text())
        until("the new workers are there", lambda: len(self.workers()) >= self.count)
        os.kill(master, signal.SIGQUIT)
        until("the old workers have ended", lambda: all(ended(pid) for pid in [master, *old] if pid != self.parent))

    def stop(self):
        os.kill(self.parent, signal.SIGTERM)
        until("nginx has ended", lambda: ended(self.parent))


class Haproxy(Peer):
    name = "haproxy"

    def command(self):
        return [program("haproxy"), "-W", "-f", f"{self.scratch}/kept.cfg"]

    def configure(self):
        tls, stops = "", ""
        if self.identity:
            # Some old processes wait for ever else.
            stops = "hard-stop-after 3s"
            both, kinds = Path(self.scratch, "both.pem"), ("pem", "key")
            both.write_text("".join(Path(certificate(self.identity, kind)).read_text() for kind in kinds))
            tls = f"ssl crt {both} ssl-min-ver TLSv1.2"
        Path(self.scratch, "kept.cfg").write_text(f"""
global
  nbthread {self.count}
  maxconn 7000
  {stops}
defaults
  mode http
  timeout client 1h
  timeout connect 1h
  timeout server 1h
frontend hello
  bind 127.0.0.1:{self.port} backlog 4096 {tls}
  http-request return status 200 content-type text/plain string "Hello, World!"
""")

    def replaced(self, number):
        """A signal that comes before its master waits for signals is lost."""
        old = self.workers()
        for _ in range(PATIENCE // 5):
            os.kill(self.parent, number)
            try:
                return until("the old workers have ended", lambda: all(map(ended, old)), 5)
            except Failed:
                pass
        raise Failed(f"it was not replaced within {PATIENCE} s")

    def restart(self):
        self.replaced(signal.SIGUSR2)

    def upgrade(self):
        """A reload executes the binary again."""
        self.replaced(signal.SIGUSR2)


class Node(Peer):
    name = "node"

    def command(self):
        files = [certificate(self.identity, kind) for kind in ("pem", "key")] if self.identity else []
        return ["node", str(PEERS / "cluster_kept.js"), str(self.port), str(self.count), *files]

    def restart(self):
        self.replaced(signal.SIGHUP)

    def scale(self, count):
        old = self.workers()
        for _ in range(abs(count - len(old))):
            had = len(self.workers())
            os.kill(self.parent, signal.SIGTTIN if count > len(old) else signal.SIGTTOU)
            until("there is a worker more or fewer", lambda: len(self.workers()) != had)

    upgrade = None


class Apache(Peer):
    """With what Debian configures, and tickets, which are on by default. It has processes with threads (event)."""

    name = "apache2"

    def command(self):
        return [program("apache2"), "-DFOREGROUND", "-f", f"{self.scratch}/apache.conf"]

    def configure(self):
        Path(self.scratch, "index.html").write_text("Hello, World!")
        modules = ["mpm_event", "authz_core", "dir", "mime", "ssl", "socache_shmcb"]
        loaded = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so" for name in modules)
        Path(self.scratch, "apache.conf").write_text(f"""
{loaded}
ServerName localhost
User www-data
Group www-data
DefaultRuntimeDir {self.scratch}
PidFile {self.scratch}/apache.pid
ErrorLog {self.scratch}/apache.errors
TypesConfig /etc/mime.types
StartServers {self.count}
ServerLimit {self.count}
ThreadsPerChild 25
MaxRequestWorkers {25 * self.count}
MinSpareThreads {25 * self.count}
MaxSpareThreads {25 * self.count}
ListenBacklog 4096
Listen 127.0.0.1:{self.port}
DocumentRoot {self.scratch}
SSLEngine on
SSLProtocol all -SSLv3
SSLSessionCache shmcb:{self.scratch}/sessions(512000)
SSLCertificateFile {certificate(self.identity, "pem")}
SSLCertificateKeyFile {certificate(self.identity, "key")}
""")

    def restart(self):
        self.replaced(signal.SIGUSR1)

    upgrade = None


def program(name):
    return shutil.which(name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/usr/local/sbin"]))


# Of Debian.
PEERS_BY_NAME = {"nginx": (Nginx, "nginx"), "haproxy": (Haproxy, "haproxy"), "node": (Node, "nodejs")}
PEERS_WITH_TLS = PEERS_BY_NAME | {"apache2": (Apache, "apache2")}
