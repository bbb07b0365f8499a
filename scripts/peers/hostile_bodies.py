"""Clients that send a part of a body and stop: what the workers weigh, and how long a normal client waits meanwhile."""

import argparse
import re
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

from peers import Pool, build

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000, help="(default 1000)")
    parser.add_argument("--bytes", type=int, default=1_000_000, help="of a body, from each (default 1000000)")
    parser.add_argument("--workers", type=int, default=2, help="(default 2)")
    parser.add_argument("--seconds", type=float, default=10, help="how long the normal client asks (default 10)")
    options = parser.parse_args()
    # So that what has been started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    programs = build("release", examples=["testbed"])
    variables = {"FORKPOOL_LISTEN": "127.0.0.1:0", "FORKPOOL_WORKERS": str(options.workers), "FORKPOOL_MAX_BODY": "2M"}
    with tempfile.TemporaryDirectory() as scratch:
        pool = Pool([programs / "examples/testbed"], f"{scratch}/log", variables)
        try:
            measure(pool, pool.port(), options)
        finally:
            pool.stop()


def measure(pool, port, options):
    head = f"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: {2 * options.bytes}\r\n\r\n".encode()
    attackers, part, most, waits = [], head + b"x" * options.bytes, 0, []
    begun = time.monotonic()
    while time.monotonic() - begun < options.seconds or len(attackers) < options.clients:
        # Twenty at a time, as much as goes without waiting, and those that are here go on.
        for _ in range(min(20, options.clients - len(attackers))):
            client = socket.create_connection(("127.0.0.1", port))
            client.setblocking(False)
            attackers.append([client, part])
        attackers = [[client, send(client, rest)] for client, rest in attackers]
        waits.append(ask(port))
        most = max(most, sum(resident(pid) for pid in pool.workers()))
    waits = sorted(waits)
    refused = sum(1 for _, rest in attackers if rest is None)
    print("| clients | cut off | workers, MiB at most | normal client: requests | median ms | worst ms |\n|---:|---:|---:|---:|---:|---:|")
    print(f"| {len(attackers)} | {refused} | {most >> 20} | {len(waits)} | {waits[len(waits) // 2]:.2f} | {waits[-1]:.2f} |")


def send(client, rest):
    """What is left to send; None once the server has closed."""
    try:
        return rest and rest[client.send(rest):]
    except BlockingIOError:
        return rest
    except OSError:
        return None


def ask(port):
    """Milliseconds that a normal client waits."""
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(REQUEST)
        answer = client.recv(1000)
    if not answer.startswith(b"HTTP/1.1 200"):
        sys.exit(f"hostile-bodies: a normal client got {answer[:60]!r}")
    return (time.monotonic() - begun) * 1000


def resident(pid):
    """Its memory (VmRSS), in bytes."""
    try:
        return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) << 10
    except (OSError, TypeError):
        return 0
