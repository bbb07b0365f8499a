"""What it costs to move a kept connection from one worker to another: CPU time and system calls of the worker that
passes it on, and of the one that takes it over. The first worker of a pool is looked at while a second one is added,
which gets half of its connections, and while that one leaves and passes them back; the system calls in a pool of their
own."""

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile

from peers import Failed, build, cpu_ns, progress
from peers.kept import Kept
from peers.reloaded import Forkpool, until


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--moves", type=int, default=10_000, help="in all (default 10000)")
    parser.add_argument("--each", type=int, default=5_000, help="in one pool (default 5000)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    programs = build("dist", examples=["testbed", "kept"])
    rounds = max(1, options.moves // options.each)
    runs = [run(programs, options.each, f"{turn + 1}/{rounds}") for turn in range(rounds)]
    moves = sum(run["moves"] for run in runs)
    given, taken, closed, lost = (sum(run[key] for run in runs) for key in ("given", "taken", "closed", "lost"))
    print("| moves, and as many back | passed on, µs of CPU | taken over, µs of CPU | closed, lost |")
    print("|---:|---:|---:|---:|")
    print(f"| {moves} | {given / moves / 1e3:.1f} | {taken / moves / 1e3:.1f} | {closed}, {lost} |")
    if not shutil.which("strace"):
        print("\nWithout strace (Debian: apt-get install strace) system calls are not counted.", file=sys.stderr)
        return 0
    traced = run(programs, options.each, "system calls", is_traced=True)
    for side, moved in (("passed on", traced["moves"]), ("taken over", traced["back"])):
        calls = [f"{name} {count / moved:.2f}" for name, count in traced[side] if count * 100 > moved]
        print(f"\nSystem calls for each that is {side}: {', '.join(calls)}")
    return 1 if closed + lost else 0


class Options:
    busy, tls = 0, False

    def __init__(self, connections):
        self.connections = connections


def run(programs, moves, what, is_traced=False):
    progress(what)
    with tempfile.TemporaryDirectory() as scratch:
        server = Forkpool(programs, scratch, 1)
        client, result = None, {}
        try:
            client = Kept(programs, server.port, Options(2 * moves))
            first = server.workers()[0]
            row = lambda slot: server.admin("GET", "/status.json")["workers"][slot]
            with Watched(first, is_traced) as given:
                server.scale(2)
                until("half of the connections are moved", lambda: row(1)["taken_over"] >= moves)
            result["moves"] = row(1)["taken_over"]
            with Watched(first, is_traced) as taken:
                server.scale(1)
            result["back"] = row(0)["taken_over"]
            client.ask()
        finally:
            if client:
                client.stop()
            server.stop()
    progress("")
    result |= {"given": given.cpu, "taken": taken.cpu, "passed on": given.calls, "taken over": taken.calls}
    return result | {"closed": client.closed, "lost": client.lost}


class Watched:
    """What a process does meanwhile: `cpu` in ns, and its system calls."""

    def __init__(self, pid, is_traced):
        self.pid, self.is_traced, self.calls = pid, is_traced, []

    def __enter__(self):
        if self.is_traced:
            self.tracer = subprocess.Popen(["strace", "-c", "-p", str(self.pid)], stderr=subprocess.PIPE, text=True)
            self.tracer.stderr.readline()  # that it is attached
        self.before = cpu_ns(self.pid)
        return self

    def __exit__(self, *_):
        self.cpu = cpu_ns(self.pid) - self.before
        if self.is_traced:
            self.calls = counts(self.tracer)


def counts(tracer):
    tracer.send_signal(signal.SIGINT)
    _, text = tracer.communicate(timeout=20)
    rows = re.findall(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$", text, re.M)
    found = sorted(((name, int(count)) for count, name in rows if name != "total"), key=lambda row: -row[1])
    if not found:
        raise Failed(f"strace has counted nothing: {text[-200:]}")
    return found
