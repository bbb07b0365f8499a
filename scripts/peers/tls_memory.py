"""The memory of idle connections that have made a request, with and without TLS: of one worker of ours, beside the raw
servers and nginx. What TLS costs the raw server is the library's state; what it costs ours beyond that is our own."""

import argparse
import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

import peers
from peers import DIST, Failed, note, progress, said, stop, tree

PATIENCE = 120  # seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--connections", type=int, default=10_000, help="(default 10000)")
    parser.add_argument("--servers", default="raw,raw_tls,forkpool,nginx", help="(default raw,raw_tls,forkpool,nginx)")
    options = parser.parse_args()
    peers.prepare()
    names = options.servers.split(",")
    print("| server | | bytes for each of", options.connections, "|\n|---|---|---:|", flush=True)
    bytes_of, failures = {}, 0
    for servers, tls in [(peers.available(names), []), (peers.available_with_tls(names), ["--tls"])]:
        for server in servers:
            if not {"keep-alive", "tls-kept"} & set(server.workloads):
                continue
            progress(f"{server.name} {' '.join(tls)}")
            try:
                each = measure(server, tls, options.connections)
            except Failed as failed:
                note(f"{server.name} {' '.join(tls)}: {failed}")
                failures += 1
                continue
            progress("")
            bytes_of[server.name, bool(tls)] = each
            print(f"| {server.name} | {'TLS' if tls else 'TCP'} | {each:.0f} |", flush=True)
    library = bytes_of.get(("raw_tls", True))
    for name in ["forkpool", "nginx"]:
        if library is not None and (name, True) in bytes_of:
            print(f"\n{name}, beyond what the raw rustls server takes: {bytes_of[name, True] - library:.0f} bytes", flush=True)
    return 1 if failures else 0


def measure(server, tls, connections):
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o755)
        process, port = server.start(scratch, [], cpus=",".join(map(str, sorted(os.sched_getaffinity(0)))))
        client = None
        try:
            # Its buffers, and what it learns.
            peers.flood(port, ["--requests", "1000", *tls])
            time.sleep(1)
            before = memory(process)
            command = [DIST / "examples/flood", f"127.0.0.1:{port}", "--hold", "--connections", str(connections), "--active", "64", *tls]
            client = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            held = said(client, time.monotonic() + PATIENCE)["open"]
            if held != connections:
                raise Failed(f"{held} connections are open")
            time.sleep(1)
            return (memory(process) - before) / connections
        finally:
            if client:
                client.kill()
                client.wait()
            stop(process, 5)


def memory(process):
    """Of all its processes, without what they share (proc(5))."""
    return sum(pss(pid) for pid in tree(process.pid))


def pss(pid):
    return int(re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1]) * 1024
