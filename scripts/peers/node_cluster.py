"""A Node program under `forkpool exec` against the same program under Node's own cluster, with each of its schedulings.

All three serve the same handler with as many workers, and are loaded by turns in one run, so that what else the machine
does falls on all alike. Prints a Markdown table of medians.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from peers import Failed, Pool, build

# As one of Node's cluster when it is told how many workers, else on the socket that it is given.
APP = """
const cluster = require('cluster'), http = require('http');
const [workers, port] = process.argv.slice(2).map(Number);
if (workers && cluster.isPrimary) {
  for (let i = 0; i < workers; i++) cluster.fork();
  process.on('SIGTERM', () => {
    for (const worker of Object.values(cluster.workers)) worker.process.kill('SIGKILL');
    process.exit(0);
  });
} else {
  const server = http.createServer((request, response) => {
    response.setHeader('Content-Type', 'text/plain');
    response.end('Hello, World!');
  });
  process.on('SIGTERM', () => process.exit(0));
  const address = workers ? { host: '127.0.0.1', port, backlog: 1024 } : { fd: 3 };
  server.listen(address, () => process.stdout.write(`serves on ${server.address().port}\\n`));
}
"""

SERVERS = ["`forkpool exec`", "cluster, `rr`", "cluster, `none`"]
MODES = {"kept": ["--keep-alive"], "one per request": []}
START_SECONDS = 60


def start(name, workers, app, scratch, target):
    """Starts one of SERVERS. Returns it and its port, when all workers serve on it."""
    variables = {}
    if name == SERVERS[0]:
        command = [target / "forkpool", "exec", "--listen", "127.0.0.1:0", "--workers", workers, "--", "node", app]
    else:
        variables = {"NODE_CLUSTER_SCHED_POLICY": "rr" if "rr" in name else "none"}
        command = ["node", app, workers, "0"]
    pool = Pool(command, Path(scratch, f"log-{SERVERS.index(name)}"), variables, stdout=subprocess.STDOUT)
    try:
        return pool, pool.wait_for(r"serves on (\d+)", START_SECONDS, times=workers)
    except BaseException as error:
        pool.stop()
        if isinstance(error, Failed):
            sys.exit(f"node-cluster: {name} with {workers} workers does not serve: {error}")
        raise


def measure(load, port, mode, options):
    command = [load, f"127.0.0.1:{port}", "--path", "/", "--json", "--duration", f"{options.seconds}s",
               "--connections", str(options.connections), *MODES[mode]]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode not in (0, 1):
        sys.exit(f"node-cluster: {' '.join(map(str, command))}: exit code {done.returncode}")
    return json.loads(done.stdout)


def rows(workers, results):
    """The lines of the table for so many workers, and how many requests were lost."""
    for mode in MODES:
        median = {name: {key: statistics.median(run[key] for run in results[name, mode])
                         for key in ("p50", "p99", "p99.9")} for name in SERVERS}
        for name in SERVERS:
            # Of neighbours in time, since the machine may not be as fast in all rounds.
            pairs = zip(results[name, mode], results[SERVERS[1], mode])
            ratio = statistics.median(run["rate"] / rr["rate"] for run, rr in pairs)
            latencies = " | ".join(milliseconds(median[name][key]) for key in ("p50", "p99", "p99.9"))
            lost = sum(run["lost"] for run in results[name, mode])
            yield f"| {workers} | {mode} | {name} | {ratio:.2f} | {latencies} | {lost} |"


def milliseconds(microseconds):
    digits = 2 if microseconds < 1000 else 1 if microseconds < 10000 else 0
    return f"{microseconds / 1000:.{digits}f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4], help="numbers of workers (default 2 4)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is loaded (default 5)")
    parser.add_argument("--seconds", type=int, default=3, help="for how long at a time (default 3)")
    parser.add_argument("--connections", type=int, default=64, help="requests in progress at once (default 64)")
    options = parser.parse_args()
    if min(*options.workers, options.rounds, options.seconds, options.connections, 1) < 1:
        parser.error("all numbers must be at least 1")
    if shutil.which("node") is None:
        print("node-cluster: skipped: there is no node (Debian: apt-get install nodejs)")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    target = build("release", bins=["forkpool"], examples=["load"])
    load = target / "examples/load"
    table = []
    with tempfile.TemporaryDirectory() as scratch:
        app = Path(scratch) / "app.js"
        app.write_text(APP)
        for workers in options.workers:
            servers = {}
            try:
                for name in SERVERS:
                    servers[name] = start(name, workers, app, scratch, target)
                results = {}
                for turn in range(options.rounds):
                    # Who comes first changes from round to round.
                    first = turn % len(SERVERS)
                    for mode in MODES:
                        for name in SERVERS[first:] + SERVERS[:first]:
                            print(f"{workers} workers, round {turn + 1} of {options.rounds}: {name}, {mode}",
                                  file=sys.stderr)
                            results.setdefault((name, mode), []).append(
                                measure(load, servers[name][1], mode, options))
                table.extend(rows(workers, results))
            finally:
                for pool, _ in servers.values():
                    pool.stop()
    node = subprocess.run(["node", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    print(f"Node {node}, {os.cpu_count()} CPUs, {options.connections} requests in progress, medians of "
          f"{options.rounds} runs of {options.seconds} s; latencies in ms:\n")
    print("| workers | connections | who | requests/s, of `rr` | p50 | p99 | p99.9 | lost |")
    print("|---:|---|---|---:|---:|---:|---:|---:|")
    print("\n".join(table))
