"""How long a newcomer waits at the limit of connections, while other clients keep idle ones: 60 places and 400 of them
by default, beside nginx where it is installed."""

import argparse
import shutil
import signal
import socket
import statistics
import sys
import tempfile
import time
from pathlib import Path

from peers import Pool, build, note

NGINX = """daemon off; worker_processes 1; pid {scratch}/pid; error_log stderr;
events {{ worker_connections {places}; }}
http {{ access_log off; server {{ listen 127.0.0.1:{port}; return 200 "ok"; }} }}
"""
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--places", type=int, default=60, help="connections of the one worker (default 60)")
    parser.add_argument("--idle", type=int, default=400, help="clients that keep a connection (default 400)")
    parser.add_argument("--newcomers", type=int, default=200, help="clients that are measured (default 200)")
    options = parser.parse_args()
    # So that what has been started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    programs = build("release", bins=["forkpool"])
    print("| | answered | median ms | worst ms |\n|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "index.html").write_text("ok")
        pool = Pool([programs / "forkpool", "--root", scratch, "--listen", "127.0.0.1:0", "--workers", "1"]
                    + ["--max-connections", str(options.places)], f"{scratch}/log")
        measure("forkpool", pool, pool.port(), options)
        nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
        if not nginx:
            return note("without nginx (Debian: apt-get install nginx-light)")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        Path(scratch, "nginx.conf").write_text(NGINX.format(scratch=scratch, places=options.places, port=port))
        measure("nginx", Pool([nginx, "-c", f"{scratch}/nginx.conf"], f"{scratch}/nginx.log"), port, options)


def measure(name, pool, port, options):
    try:
        # Some are closed in favour of later ones, and some wait.
        idle = [begin(port) for _ in range(options.idle)]
        waits = [wait for wait in (wait_of_newcomer(port) for _ in range(options.newcomers)) if wait is not None]
        answered = f"{len(waits)} of {options.newcomers}"
        times = f"{statistics.median(waits):.2f} | {max(waits):.2f}" if waits else "– | –"
        print(f"| {name} | {answered} | {times} |", flush=True)
        for client in idle:
            client.close()
    finally:
        pool.stop()


def begin(port):
    """A client that has asked once, and keeps its connection."""
    client = connect(port)
    try:
        client.sendall(REQUEST)
        client.recv(1000)
    except OSError:
        pass
    return client


def connect(port):
    # A server that has just been started may not listen yet.
    for _ in range(500):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except ConnectionRefusedError:
            time.sleep(0.01)
    sys.exit(f"places: nobody listens on port {port}")


def wait_of_newcomer(port):
    """Milliseconds from its connect to its answer; None if there is none."""
    begun = time.monotonic()
    with connect(port) as client:
        try:
            client.sendall(REQUEST)
            answer = client.recv(1000)
        except OSError:
            return None
    return (time.monotonic() - begun) * 1000 if answer.startswith(b"HTTP/1.1 200") else None
