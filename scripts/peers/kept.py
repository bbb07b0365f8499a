"""Keeps connections open, each of which is asked again and again, while their server is restarted, replaced by a new
binary, scaled between 1 and 8 workers, or recycles its workers by age. Prints how many connections the server closed
(between two requests, or with a last answer) and lost (with a request in progress), and how long each step took: until
the old workers had ended, or the new ones served.

The client (the example `kept`) never opens a connection again. After each step each connection must answer, and no
answer may come from a worker that was to be replaced. With --servers, it compares: each server is changed once, under
the same clients."""

import argparse
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from peers import Failed, build, certificate, note, progress, said
from peers.reloaded import PATIENCE, PEERS_BY_NAME, Forkpool, program, until

STEPS = {"restart": 20, "upgrade": 10, "scale": 10, "age": 1}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(STEPS)} (default all)")
    parser.add_argument("--connections", type=int, help="how many are kept (default 10000; 5000 with --servers)")
    parser.add_argument("--busy", type=int, default=64, help="how many of them make a request every 20 ms (default 64)")
    parser.add_argument("--workers", type=int, default=4, help="(default 4)")
    parser.add_argument("--quick", action="store_true", help="each step a few times, to see that all can be measured")
    parser.add_argument("--servers", metavar="NAME,...", help="of forkpool, nginx, haproxy, node; or all")
    parser.add_argument("--tls", action="store_true", help="with TLS, over which a worker that leaves closes its idle connections")
    parser.add_argument("--trace", action="store_true", help="tell each step on standard error")
    options = parser.parse_args()
    unknown = set(options.steps) - set(STEPS)
    if unknown:
        parser.error(f"there is no step {min(unknown)}")
    options.steps = options.steps or list(STEPS)
    options.connections = options.connections or (5000 if options.servers else 10_000)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    programs = build("dist", examples=["testbed", "kept"])
    return compare(programs, options) if options.servers else many(programs, options)


class Kept:
    """The client. `closed` and `lost` are counted on."""

    def __init__(self, programs, port, options, path="/plaintext"):
        command = [programs / "examples/kept", f"127.0.0.1:{port}", "--connections", str(options.connections)]
        command += ["--busy", str(options.busy), "--path", path, *(["--tls"] if options.tls else [])]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.closed = self.lost = 0
        self.read()

    def read(self):
        line = said(self.process, time.monotonic() + PATIENCE)
        self.closed += line["closed"]
        self.lost += line["lost"]
        return {int(key.split(".")[1]): count for key, count in line.items() if key.startswith("worker.")}

    def ask(self):
        """Makes a request on each that is open; returns how many each worker has answered."""
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()

    def stop(self):
        self.process.kill()
        self.process.wait()


def many(programs, options):
    print("| step | connections | closed | lost | answered by a new worker | seconds, median | most |")
    print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
    faults = 0
    for name in options.steps:
        times = min(STEPS[name], 2) if options.quick else STEPS[name]
        variables = tls_variables(options) | ({"FORKPOOL_MAX_AGE": "2s"} if name == "age" else {})
        workers = 8 if name == "scale" else options.workers
        with tempfile.TemporaryDirectory() as scratch:
            server = Forkpool(programs, scratch, workers, variables)
            client = None
            try:
                client = Kept(programs, server.port, options)
                faults += row(name, times, server, client, options)
            except Failed as failed:
                note(f"{name}: {failed}")
                faults += 1
            finally:
                if client:
                    client.stop()
                server.stop()
    return 1 if faults else 0


def row(name, times, server, client, options):
    seconds, old, stays, answered = [], 0, 0, 0
    for turn in range(times):
        progress(f"{name} {turn + 1}/{times}")
        for change, leave in CHANGES[name](server):
            begun = time.monotonic()
            change()
            seconds.append(time.monotonic() - begun)
            workers = client.ask()
            answered += sum(workers.values())
            old += sum(count for pid, count in workers.items() if pid in leave)
            if options.trace:
                note(f"{name} {turn + 1}: {seconds[-1]:.3f} s, closed {client.closed}, lost {client.lost}, {workers}")
    progress("")
    done = {"scale": "times 8 to 1 to 8", "age": "generations"}.get(name, "times")
    count = {"age": 3}.get(name, times)
    new = f"{answered - old} of {answered}"
    print(f"| {name}, {count} {done} | {options.connections} | **{client.closed}** | **{client.lost}** | {new} | "
          f"{statistics.median(seconds):.2f} | {max(seconds):.2f} |", flush=True)  # fmt: skip
    return client.closed + client.lost + old


def restarts(server):
    return [(server.restart, set(server.workers()))]


def upgrades(server):
    return [(server.upgrade, set(server.workers()))]


def scalings(server):
    """The worker of slot 0 stays."""
    yield (lambda: server.scale(1), set(server.workers()[1:]))
    yield (lambda: server.scale(8), set())


def ages(server):
    old = set(server.workers())
    young = lambda worker: worker["generation"] >= 4
    is_young = lambda: all(map(young, server.admin("GET", "/status.json")["workers"]))
    return [(lambda: until("all workers are of the fourth generation", is_young), old)]


CHANGES = {"restart": restarts, "upgrade": upgrades, "scale": scalings, "age": ages}


def compare(programs, options):
    """Each is changed once: a client for each change, since most close its connections."""
    names = ["forkpool", *PEERS_BY_NAME] if options.servers == "all" else options.servers.split(",")
    steps = [name for name in ("restart", "upgrade", "scale") if name in options.steps]
    print(f"| server | {' | '.join(f'{name}: closed, lost | s' for name in steps)} |")
    print(f"|---|{'---:|---:|' * len(steps)}", flush=True)
    for name in names:
        cells = []
        for step in steps:
            progress(f"{name}: {step}")
            try:
                cells += once(name, step, programs, options)
            except Failed as failed:
                note(f"{name}: {step}: {failed}")
                cells += ["failed", ""]
        progress("")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
    return 0


def tls_variables(options):
    if not options.tls:
        return {}
    files = {"FORKPOOL_TLS_CERTIFICATE": certificate("a", "pem"), "FORKPOOL_TLS_KEY": certificate("a", "key")}
    # All are opened before the first request.
    return {"FORKPOOL_TLS_LISTEN": "127.0.0.1:0", "FORKPOOL_HEAD_TIMEOUT": "1m", **files}


def once(name, step, programs, options):
    if name != "forkpool":
        kind, package = PEERS_BY_NAME[name]
        if not program(name):
            raise Failed(f"it is not installed (Debian: apt-get install {package})")
        if getattr(kind, step) is None:
            return ["–", ""]
    with tempfile.TemporaryDirectory() as scratch:
        workers = 8 if step == "scale" else options.workers
        if name == "forkpool":
            server = Forkpool(programs, scratch, workers, tls_variables(options))
        else:
            os.chmod(scratch, 0o755)
            server = type(kind.__name__, (kind,), {"identity": "a" if options.tls else None})(scratch, workers)
        client = None
        try:
            client = Kept(programs, server.port, options)
            begun = time.monotonic()
            if step == "scale":
                server.scale(1)
                server.scale(8)
            else:
                getattr(server, step)()
            seconds = time.monotonic() - begun
            client.ask()
        finally:
            if client:
                client.stop()
            server.stop()
    return [f"{client.closed}, {client.lost}", f"{seconds:.2f}"]
