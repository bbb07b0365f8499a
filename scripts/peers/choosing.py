"""What choosing the worker costs when each request has its own connection: CPU time per request of the server's
processes, for each way to choose, relative to hash without neighbours. On all CPUs, which the clients share, so that a
wake-up of another CPU costs what it costs.

In each round a pool of each way is started anew; then they have short loads by turns, so that all meet whatever else the
machine does. The cost of a request differs by a fifth from load to load, for any of them, so only many pairs tell ways
apart; a round counts with the mean ratio of its pairs, and the interval is that of the rounds.

Prints Markdown: the median of each, and the mean ratio to the first with its 95 % interval."""

import argparse
import contextlib
import os
import random
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
    parser.add_argument("--rounds", type=int, default=24, help="starts of each way (default 24)")
    parser.add_argument("--loads", type=int, default=12, help="of each in a round (default 12)")
    parser.add_argument("--requests", type=int, default=2000, help="in each load (default 2000)")
    parser.add_argument("--workers", default="2,4", help="(default 2,4)")
    options = parser.parse_args()
    peers.prepare()
    for workers in map(int, options.workers.split(",")):
        costs, ratios = {name: [] for name in WAYS}, {name: [] for name in WAYS}
        for number in range(options.rounds):
            progress(f"{workers} workers, round {number + 1} of {options.rounds}")
            measured = measure(workers, number, options)
            first = next(iter(measured.values()))
            for name, loads in measured.items():
                costs[name] += loads
                ratios[name].append(statistics.mean(ours / base for ours, base in zip(loads, first)))
        progress("")
        report(workers, costs, ratios)


def measure(workers, number, options):
    """One round: the cost of a request in each load of each way."""
    loads = {name: [] for name in WAYS}
    with contextlib.ExitStack() as stack:
        pools = {name: stack.enter_context(started(variables, workers)) for name, variables in WAYS.items()}
        for turn in range(options.loads):
            # In another order each time, since a load may also cost what the one before it has left.
            for name in random.Random(number * options.loads + turn).sample(list(WAYS), len(WAYS)):
                try:
                    loads[name].append(cost(*pools[name], options.requests))
                except Failed as failed:
                    sys.exit(f"choosing: {name}: {failed}")
    return loads


@contextlib.contextmanager
def started(variables, workers):
    """A pool that has warmed up."""
    pool = {"FORKPOOL_LISTEN": "127.0.0.1:{port}", "FORKPOOL_WORKERS": "{workers}", "RUST_LOG": "warn", **variables}
    server = Server("forkpool", [str(DIST / "examples/plaintext")], [], pool)
    with tempfile.TemporaryDirectory() as scratch:
        process, port = server.start(scratch, [], workers, all_cpus())
        try:
            cost(process, port, 1000)
            yield process, port
        finally:
            stop(process)


def cost(process, port, requests):
    measured = Cost(process, False)
    client = peers.flood(port, ["--close", "--requests", str(requests)], all_cpus())
    return measured.of_each(client["requests"])["cpu_us"]


def all_cpus():
    return ",".join(map(str, sorted(os.sched_getaffinity(0))))


def report(workers, costs, ratios):
    first = next(iter(costs))
    print(f"\n| {workers} workers | CPU µs per request | × {first} | 95 % |\n|---|---:|---:|---:|")
    for name, loads in costs.items():
        mean, (low, high) = peers.mean_and_interval(ratios[name])
        print(f"| {name} | {statistics.median(loads):.1f} | {mean:.3f} | {low:.3f} to {high:.3f} |", flush=True)
