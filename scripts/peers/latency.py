"""How long requests take when the server is not full: ours beside nginx, may_minihttp, hyper and the raw epoll server,
by turns, each with one worker on one CPU and the client on another.

All get the same load: half of what the raw server answers at most, due at random moments (a Poisson process) on 64 kept
connections. The client's schedule does not wait for the server, every request that is due is made, and its latency
counts from when it was due, so a pause of the server counts for all who would have met it. A server that would be full
under that load is left out. The client never sleeps; what the raw server shows is the kernel, the client and the
machine.

Prints Markdown; target/bench/latency.json has the same, and target/bench/latency.svg draws it. Once all is built it
takes about two and a half minutes, or half a minute with --quick."""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import peers
from peers import CLIENT_CPU, SCRATCH, SERVER_CPU, Failed, note, plot, progress, stop

SERVERS = "raw,forkpool,may,hyper,nginx"
# In the order of table and chart; the client's are in nanoseconds.
LATENCIES = ["p50", "p99", "p99.9", "max"]
# A queue has no end where requests come faster than they are answered, and a long one where nearly so.
FULL = 0.95


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three short rounds")
    parser.add_argument("--rounds", type=int, help="of each server (default 9)")
    parser.add_argument("--seconds", type=float, help="of each of them (default 2)")
    parser.add_argument("--rate", type=int, help="requests a second (default half of what raw answers)")
    parser.add_argument("--servers", default=SERVERS, help=f"separated by commas; all that bench has (default {SERVERS})")
    parser.add_argument("--plot", default=SCRATCH / "latency.svg", help="draw the chart there")
    options = parser.parse_args()
    rounds = options.rounds or (3 if options.quick else 9)
    seconds = options.seconds or (1 if options.quick else 2)
    peers.prepare()
    servers = [server for server in peers.available(options.servers.split(",")) if "keep-alive" in server.workloads]
    latency = Latency(servers)
    latency.find_limits(3)
    rate = options.rate or latency.half_of_raw()
    latency.measure_all(rate, rounds, seconds)
    report(latency, rate, rounds, seconds, options.plot)


class Latency:
    def __init__(self, servers):
        self.servers = servers
        # By server, what each round gave.
        self.limits = {server.name: [] for server in servers}
        self.rounds = {server.name: [] for server in servers}

    def find_limits(self, rounds):
        """What each answers at most, when requests follow answers."""
        for _ in range(rounds):
            for server in list(self.servers):
                progress(f"the limit of {server.name}")
                client = self.load(server, ["--seconds", "0.5", "--spin"])
                if client:
                    self.limits[server.name].append(client["requests"] / client["us"] * 1e6)
        progress("")

    def limit(self, name):
        return statistics.median(self.limits[name])

    def half_of_raw(self):
        if not self.limits.get("raw"):
            sys.exit("latency: without the server raw it needs a --rate")
        return int(self.limit("raw") / 2)

    def measure_all(self, rate, rounds, seconds):
        for server in list(self.servers):
            if rate > FULL * self.limit(server.name):
                note(f"without {server.name}, which answers {self.limit(server.name):.0f} requests a second at most, not {rate}")
                self.servers.remove(server)
        total, done, begun = rounds * len(self.servers), 0, time.monotonic()
        for index in range(rounds):
            for server in list(self.servers):
                done += 1
                progress(f"{done} of {total}, {time.monotonic() - begun:.0f} s: {server.name}")
                # The same moments for all, and others in each round.
                client = self.load(server, ["--rate", str(rate), "--seconds", str(seconds), "--seed", str(index + 1)])
                if client:
                    self.rounds[server.name].append(client)
        progress("")

    def load(self, server, options):
        """Returns None, and does without the server from now on, if that fails."""
        try:
            with tempfile.TemporaryDirectory() as scratch:
                os.chmod(scratch, 0o755)
                process, port = server.start(scratch, [])
                try:
                    # A worker forks, allocates and learns before it is as fast as it will be.
                    peers.flood(port, ["--requests", "2000", "--spin"])
                    return peers.flood(port, options)
                finally:
                    stop(process)
        except Failed as failed:
            note(f"without {server.name}: {failed}")
            self.servers.remove(server)
            return None

    def results(self):
        """Medians of the rounds, in microseconds."""
        results = {}
        for server in self.servers:
            rounds = self.rounds[server.name]
            row = {name: statistics.median(client[name] for client in rounds) / 1e3 for name in LATENCIES}
            results[server.name] = {"limit": self.limit(server.name), **row}
        return results


def report(latency, rate, rounds, seconds, path):
    results = latency.results()
    if not results:
        sys.exit("latency: no server could be measured")
    machine = f"{os.cpu_count()} CPUs, Linux {os.uname().release}, load average {os.getloadavg()[0]:.1f} at the end"
    where = f"One worker on CPU {SERVER_CPU}, the client on CPU {CLIENT_CPU}, 64 connections"
    print(f"{where}; {thousands(rate)} requests/s, due at random; medians of {rounds} × {seconds:g} s, interleaved. {machine}.\n")
    print("| server | " + " | ".join(f"{name}, µs" for name in LATENCIES) + " | its limit, req/s | of it, % |")
    print("|---|" + "---:|" * (len(LATENCIES) + 2))
    for name, row in sorted(results.items(), key=lambda item: item[1]["p99"]):
        cells = [thousands(row[key]) for key in (*LATENCIES, "limit")]
        print(f"| {name} | " + " | ".join(cells) + f" | {rate / row['limit'] * 100:.0f} |")
    document = {"machine": machine, "rate": rate, "rounds": rounds, "seconds": seconds, "results": results}
    (SCRATCH / "latency.json").write_text(json.dumps(document, indent=1) + "\n")
    curves = {name: [row[key] for key in LATENCIES] for name, row in results.items()}
    panels = [plot.Panel(f"{thousands(rate)} requests/s", LATENCIES, "percentile", curves)]
    Path(path).write_text(plot.svg("Latency from when a request was due", "µs", panels, is_logarithmic=True))
    note(f"also in {SCRATCH / 'latency.json'}, drawn in {path}")


def thousands(value):
    return f"{value:,.0f}".replace(",", " ")
