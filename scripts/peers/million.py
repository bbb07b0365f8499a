"""Holds idle keep-alive connections open to the example plaintext, over loopback addresses in a network namespace of
its own, and has each answer a request at the end. Prints memory per connection, time and errors. Needs root."""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import DIST, ROOT, Failed, Pool, build, limits, said

INSIDE = "FORKPOOL_MILLION_INSIDE"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("connections", nargs="*", type=int, default=[1_000_000], help="how many; several are tried in turn")
    parser.add_argument("--workers", type=int, default=2, help="(default 2)")
    parser.add_argument("--clients", type=int, default=2, help="processes that hold the other ends (default 2)")
    parser.add_argument("--timeout", type=int, default=300, metavar="S", help="for each number (default 300)")
    options = parser.parse_args()
    # So that what has been started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if os.environ.get(INSIDE) == "1":
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        tune("net.core.somaxconn", 4096)
        try:
            return 1 if hold(options.connections[0], options) else 0
        except Failed as failed:
            sys.exit(f"million: {failed}; see --timeout")
    prepare()
    print("| connections | user bytes each | kernel bytes each, both ends | of it slab | TCP buffers, pages | opened in s | answered in s | errors |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    worst = 0
    for connections in options.connections:
        # A namespace for each: all its ports are free, and no connection of the one before is left in TIME-WAIT.
        command = ["unshare", "--net", sys.executable, ROOT / "scripts/bench", "million", str(connections), "--workers", str(options.workers)]
        command += ["--clients", str(options.clients), "--timeout", str(options.timeout)]
        worst = max(worst, subprocess.run(command, env={**os.environ, INSIDE: "1"}).returncode)
    return worst


def prepare():
    if os.geteuid() != 0:
        sys.exit("million: it needs root, for a network namespace and for RLIMIT_NOFILE")
    missing = [tool for tool in ("unshare", "ip") if not shutil.which(tool)]
    if missing:
        sys.exit(f"million: it needs {' and '.join(missing)} (Debian: apt-get install util-linux iproute2)")
    build("dist", examples=["plaintext", "million"])


def tune(name, least):
    """Raises a setting of this namespace; those of the whole machine are only looked at."""
    path = Path("/proc/sys", name.replace(".", "/"))
    if int(path.read_text()) < least:
        path.write_text(str(least))


def counts(connections, options):
    """How many workers and clients there are: more than asked for, where each may have too few descriptors."""
    why = limits.obstacle(connections)
    if why:
        sys.exit(f"million: {why}")
    most = limits.descriptors()
    workers, clients = map(max, limits.processes(connections, most), (options.workers, options.clients))
    if (workers, clients) != (options.workers, options.clients):
        why = f"RLIMIT_NOFILE cannot be raised above {most}"
        print(f"million: {why}: {workers} workers and {clients} clients for {connections}", file=sys.stderr)
    return workers, clients


def hold(connections, options):
    with tempfile.TemporaryDirectory() as scratch:
        return hold_with(Path(scratch, "log"), connections, options)


def hold_with(log, connections, options):
    worker_count, client_count = counts(connections, options)
    end = time.monotonic() + options.timeout
    variables = {
        "FORKPOOL_LISTEN": "127.0.0.1:0",
        "FORKPOOL_WORKERS": str(worker_count),
        "FORKPOOL_IDLE_TIMEOUT": "1h",
        "FORKPOOL_BACKLOG": "4096",
        "RUST_LOG": "info",
    }
    clients, pool = [], Pool([DIST / "examples/plaintext"], log, variables)
    try:
        # It says so when all workers are ready.
        address = f"127.0.0.1:{pool.port()}"
        first = snapshot(pool.workers())
        begun = time.monotonic()
        each = connections // client_count
        for index in range(client_count):
            count = each if index else connections - each * (client_count - 1)
            place = index * (each + connections % client_count)
            command = [DIST / "examples/million", address, "--connections", str(count), "--first", str(place)]
            pipe = subprocess.PIPE
            clients.append(subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True))
        opened = [said(client, end) for client in clients]
        seconds = time.monotonic() - begun
        # What is freed later than it is let go of, as by RCU.
        time.sleep(1)
        second = snapshot(pool.workers())
        pages = re.search(r"^TCP:.* mem (\d+)", Path("/proc/net/sockstat").read_text(), re.M)[1]
        for client in clients:
            client.stdin.write("\n")
            client.stdin.flush()
        begun = time.monotonic()
        answered = [said(client, end) for client in clients]
        asking = time.monotonic() - begun
    finally:
        for client in clients:
            client.kill()
            client.wait()
        # Not drained: that would take its time.
        pool.signal(signal.SIGINT)
        pool.stop()
    held = sum(line["open"] for line in opened)
    # A connection that was not answered at the end counts, as does one that could never be opened.
    errors = connections - sum(line["answered"] for line in answered) + sum(line["wrong"] for line in opened)
    user, kernel, slab = ((second[key] - first[key]) / held for key in ("workers", "kernel", "slab"))
    print(f"| {held} | {user:.0f} | {kernel:.0f} | {slab:.0f} | {pages} | {seconds:.1f} | {asking:.1f} | {errors} |", flush=True)
    return errors


def snapshot(workers):
    memory = limits.meminfo()
    # What is neither free, nor of processes, nor of files, is the kernel's (proc(5)). MemAvailable would be wrong: it
    # takes half of the sockets' inodes to be reclaimable.
    others = sum(memory[key] for key in ("MemFree", "Buffers", "Cached", "AnonPages"))
    return {"workers": sum(map(pss, workers)), "kernel": memory["MemTotal"] - others, "slab": memory["Slab"]}


def pss(pid):
    return int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1]) * 1024
