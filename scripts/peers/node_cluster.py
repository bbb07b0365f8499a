"""A Node program under `forkpool exec`, under Node's own cluster with each of its schedulings, and under PM2's cluster
mode.

All serve the same handler with as many workers, and are loaded by turns in one run, so that what else the machine does
affects all alike. Under `forkpool exec` and PM2 the program is unmodified: it listens on a port of its own choice. The
load is as many requests as it can with connections that are kept, with a connection for each request, and requests at a
fixed rate, the same for all. Prints a Markdown table of medians. The CPU time of a request, that of all processes of
the server, hardly depends on what else the machine does. Without PM2 (npm install pm2; see --pm2) it is left out. """

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from peers import Failed, Pool, build, cpu_ns, wait_for

# With a number of workers it makes a cluster of its own; under PM2 it is a worker of PM2's.
APP = """
const cluster = require('cluster'), http = require('http');
const workers = Number(process.env.APP_WORKERS || 0), port = Number(process.env.APP_PORT);
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
  server.listen({ host: '127.0.0.1', port, backlog: 1024 }, () => process.stdout.write(`serves on ${server.address().port}\\n`));
}
"""

FORKPOOL, RR, NONE, PM2 = "`forkpool exec`", "cluster, `rr`", "cluster, `none`", "PM2"
# How many requests a second are due in the last one, and on how many connections at most.
MODES = {"kept": ["--keep-alive"], "one per request": [], "one per request, fixed rate": []}
FIXED = "one per request, fixed rate"
START_SECONDS = 60


def start(name, workers, app, scratch, target, pm2):
    """Starts a server. Returns it and its port, when all workers serve on it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    variables, log = {"APP_PORT": port}, Path(scratch, f"log-{workers}-{port}")
    said = log
    if name == FORKPOOL:
        command = [target / "forkpool", "exec", "--listen", f"127.0.0.1:{port}", "--workers", workers, "--", "node", app]
    elif name == PM2:
        variables["PM2_HOME"] = str(Path(scratch, f"pm2-{workers}"))
        # What its workers print first is missing on its own stdout.
        said = Path(scratch, f"said-{workers}")
        said.touch()
        command = [pm2, "start", app, "--no-daemon", "--instances", workers, "--output", said, "--merge-logs"]
    else:
        variables |= {"APP_WORKERS": str(workers), "NODE_CLUSTER_SCHED_POLICY": "rr" if name == RR else "none"}
        command = ["node", app]
    pool = Pool(command, log, variables, stdout=subprocess.STDOUT)
    try:
        wait_for(said, r"serves on (\d+)", lambda: pool.process.poll() is not None, START_SECONDS, times=workers)
        return pool, port
    except BaseException as error:
        pool.stop()
        if isinstance(error, Failed):
            sys.exit(f"node-cluster: {name} with {workers} workers does not serve: {error}")
        raise


def cpu_of_tree(pid):
    """CPU time in ns of a process and of all that it has started. None ends meanwhile."""
    children = [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    return cpu_ns(pid) + sum(map(cpu_of_tree, children))


def measure(load, pool, port, mode, options):
    connections = options.connections
    command = [load, f"127.0.0.1:{port}", "--path", "/", "--json", "--duration", f"{options.seconds}s", *MODES[mode]]
    if mode == FIXED:
        # So many at most may wait for an answer.
        connections = max(connections, options.rate * 2)
        command += ["--rate", str(options.rate)]
    command += ["--connections", str(connections)]
    before = cpu_of_tree(pool.process.pid)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    spent = cpu_of_tree(pool.process.pid) - before
    if done.returncode not in (0, 1):
        sys.exit(f"node-cluster: {' '.join(map(str, command))}: exit code {done.returncode}")
    run = json.loads(done.stdout)
    return {**run, "cpu": spent / max(run["ok"], 1)}


def rows(workers, servers, results):
    """The lines of the table for so many workers, and how many requests were lost."""
    for mode in MODES:
        median = {name: {key: statistics.median(run[key] for run in results[name, mode])
                         for key in ("p50", "p99", "p99.9", "cpu")} for name in servers}
        for name in servers:
            # Of neighbours in time, since the machine may not be as fast in all rounds.
            pairs = zip(results[name, mode], results[RR, mode])
            ratio = statistics.median(run["rate"] / rr["rate"] for run, rr in pairs)
            latencies = " | ".join(milliseconds(median[name][key]) for key in ("p50", "p99", "p99.9"))
            lost = sum(run["lost"] for run in results[name, mode])
            cpu = median[name]["cpu"] / 1000
            yield f"| {workers} | {mode} | {name} | {ratio:.2f} | {latencies} | {cpu:.0f} | {lost} |"


def milliseconds(microseconds):
    digits = 2 if microseconds < 1000 else 1 if microseconds < 10000 else 0
    return f"{microseconds / 1000:.{digits}f}"


def pm2_version(pm2):
    """From its package, since the program would start its daemon to say it."""
    package = Path(pm2).resolve().parent.parent / "package.json"
    return f"PM2 {json.loads(package.read_text())['version']}" if package.exists() else "PM2"


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 4], help="numbers of workers (default 2 4)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is loaded (default 5)")
    parser.add_argument("--seconds", type=int, default=3, help="for how long at a time (default 3)")
    parser.add_argument("--rate", type=int, default=1000, help="requests a second where they come at a fixed rate (default 1000)")
    parser.add_argument("--pm2", metavar="PATH", default=shutil.which("pm2"), help="the program pm2 (default: the one in PATH)")
    parser.add_argument("--connections", type=int, default=64, help="requests in progress at once (default 64)")
    options = parser.parse_args()
    if min(*options.workers, options.rounds, options.seconds, options.connections, options.rate) < 1:
        parser.error("all numbers must be at least 1")
    if shutil.which("node") is None:
        print("node-cluster: skipped: there is no node (Debian: apt-get install nodejs)")
        return
    names = [FORKPOOL, RR, NONE]
    if options.pm2 and shutil.which(options.pm2):
        names.append(PM2)
    else:
        print("node-cluster: without PM2, which is not installed (npm install pm2; then --pm2 node_modules/.bin/pm2)", file=sys.stderr)
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
                for name in names:
                    servers[name] = start(name, workers, app, scratch, target, options.pm2)
                results = {}
                for turn in range(options.rounds):
                    # Who comes first changes from round to round.
                    first = turn % len(names)
                    for mode in MODES:
                        for name in names[first:] + names[:first]:
                            print(f"{workers} workers, round {turn + 1} of {options.rounds}: {name}, {mode}",
                                  file=sys.stderr)
                            results.setdefault((name, mode), []).append(
                                measure(load, *servers[name], mode, options))
                table.extend(rows(workers, names, results))
            finally:
                for pool, _ in servers.values():
                    pool.stop()
    node = subprocess.run(["node", "--version"], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    version = pm2_version(options.pm2) if PM2 in names else "no PM2"
    print(f"Node {node}, {version}, {os.cpu_count()} CPUs, {options.connections} requests in progress or {options.rate} a second, medians of "
          f"{options.rounds} runs of {options.seconds} s; latencies in ms:\n")
    print("| workers | connections | who | requests/s, of `rr` | p50 | p99 | p99.9 | CPU µs | lost |")
    print("|---:|---|---|---:|---:|---:|---:|---:|---:|")
    print("\n".join(table))
