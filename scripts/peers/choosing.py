"""What choosing the worker costs when each request has its own connection: CPU time per request of the server's
processes, for each way to choose, in pairs with hash and no neighbours, by turns. On all CPUs, which the clients share,
so that a wake-up of another CPU costs what it costs.

Prints Markdown: the median of each, and the mean ratio to the first with its 95 % interval."""

import argparse
import os
import statistics
import sys
import tempfile

import peers
from peers import DIST, Cost, Failed, Server, progress, stop

WAYS = {
    "hash, no neighbours": {"FORKPOOL_BALANCE": "hash", "FORKPOOL_NEIGHBOURS": "0"},
    "auto": {},
    "auto, no neighbours": {"FORKPOOL_NEIGHBOURS": "0"},
    "random": {"FORKPOOL_BALANCE": "random"},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=24, help="pairs of each way (default 24)")
    parser.add_argument("--requests", type=int, default=20_000, help="in each round (default 20000)")
    parser.add_argument("--workers", default="2,4", help="(default 2,4)")
    options = parser.parse_args()
    peers.prepare()
    for workers in map(int, options.workers.split(",")):
        rounds = {name: [] for name in WAYS}
        for number in range(options.rounds):
            # Each way is first as often as any other.
            names = list(WAYS)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                progress(f"{workers} workers, round {number + 1} of {options.rounds}: {name}")
                try:
                    rounds[name].append(cost(WAYS[name], workers, options.requests))
                except Failed as failed:
                    sys.exit(f"choosing: {name}: {failed}")
        progress("")
        report(workers, rounds)


def cost(variables, workers, requests):
    pool = {"FORKPOOL_LISTEN": "127.0.0.1:{port}", "FORKPOOL_WORKERS": "{workers}", "RUST_LOG": "warn", **variables}
    server = Server("forkpool", [str(DIST / "examples/plaintext")], [], pool)
    cpus = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    with tempfile.TemporaryDirectory() as scratch:
        process, port = server.start(scratch, [], workers, cpus)
        try:
            peers.flood(port, ["--close", "--requests", "2000"], cpus)
            measured = Cost(process, False)
            client = peers.flood(port, ["--close", "--requests", str(requests)], cpus)
            return measured.of_each(client["requests"])["cpu_us"]
        finally:
            stop(process)


def report(workers, rounds):
    first = next(iter(rounds))
    print(f"\n| {workers} workers | CPU µs per request | × {first} | 95 % |\n|---|---:|---:|---:|")
    for name, costs in rounds.items():
        ratios = [cost / base for cost, base in zip(costs, rounds[first])]
        mean, (low, high) = peers.mean_and_interval(ratios)
        print(f"| {name} | {statistics.median(costs):.1f} | {mean:.3f} | {low:.3f} to {high:.3f} |", flush=True)
