"""Puts us beside other HTTP servers, each with one worker on one CPU and the client on another, in one interleaved run:
Markdown on standard output, target/bench/results.json, and a chart in target/bench/results.svg.

Servers that are not installed are skipped, with a word how to get them; those that are crates are built on the first
run."""

import argparse
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import peers
from peers import BROWSER, CLIENT_CPU, SCRATCH, SERVER_CPU, Cost, Failed, note, progress, stop

# Name: title, the client's options, and of how many requests instructions and system calls are counted.
# No two heads are alike: the client numbers them.
UNLIKE = ["--path", "/plaintext?id=########"]
UNLIKE_FIELDS = [re.sub("^(Cookie: session=).{8}", r"\1########", field) for field in BROWSER]
WORKLOADS = {
    "short-unlike": ("Heads that differ", UNLIKE, 4000),
    "browser-unlike": ("A browser's heads that differ", UNLIKE + [word for field in UNLIKE_FIELDS for word in ("--field", field)], 4000),
    "keep-alive": ("Keep-alive", [], 4000),
    "pipelined": ("Pipelined, 16 at once", ["--pipeline", "16"], 16000),
    "browser": ("A browser's header fields", [word for field in BROWSER for word in ("--field", field)], 4000),
    "close": ("A connection for each request", ["--close"], 1000),
    "deferred": ("Answered by another thread", ["--path", "/deferred"], 4000),
    "file-1k": ("A file of 1 KiB", ["--path", "/1k"], 4000),
    "file-64k": ("A file of 64 KiB", ["--path", "/64k"], 1000),
    "file-1m": ("A file of 1 MiB", ["--path", "/1m"], 200),
}
# Over TLS, with a P-256 certificate where none is named.
TLS_WORKLOADS = {
    "tls-full": ("A full handshake for each request, P-256", ["--tls", "--close"], 300),
    "tls-resumed": ("A resumed handshake for each request", ["--resume", "--close"], 300),
    "tls-full-rsa": ("A full handshake for each request, RSA-2048", ["--tls", "--close"], 300),
    "tls-full-12": ("TLS 1.2: a full handshake for each request, P-256", ["--tls12", "--close"], 300),
    "tls-resumed-12": ("TLS 1.2: a resumed handshake for each request", ["--tls12", "--resume", "--close"], 300),
    "tls-kept": ("Requests on kept connections", ["--tls"], 4000),
    "tls-16k": ("A body of 16 KiB", ["--tls", "--path", "/16k"], 2000),
    "tls-1m": ("A body of 1 MiB", ["--tls", "--path", "/1m"], 100),
}
# The client is full first: on loopback it does most of the kernel's work for a connection that the server closes. So
# the servers are compared by their CPU time.
LIMITED_BY_CLIENT = {"close", *TLS_WORKLOADS}
ALL = WORKLOADS | TLS_WORKLOADS


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="three short rounds, counts for ours and two more: two minutes")
    parser.add_argument("--rounds", type=int, help="of each server and workload (default 9)")
    parser.add_argument("--seconds", type=float, help="of each of them (default 0.5)")
    parser.add_argument("--requests", type=int, help="so many instead of --seconds: to see that all can be measured")
    parser.add_argument("--servers", help="only these, separated by commas")
    parser.add_argument("--workloads", help=f"only these of {','.join(WORKLOADS)}; with --tls {','.join(TLS_WORKLOADS)}")
    parser.add_argument("--tls", action="store_true", help="TLS 1.3 with X25519 and AES-128-GCM, compared by CPU time; five rounds, no counts")
    parser.add_argument("--no-counts", action="store_true", help="no instructions and no system calls")
    parser.add_argument("--plot", default=SCRATCH / "results.svg", help="draw the chart there")
    options = parser.parse_args()
    rounds = options.rounds or (3 if options.quick else 5 if options.tls else 9)
    seconds = options.seconds or (0.3 if options.quick else 0.5)
    workloads = options.workloads.split(",") if options.workloads else list(TLS_WORKLOADS if options.tls else WORKLOADS)
    for workload in workloads:
        workload in (TLS_WORKLOADS if options.tls else WORKLOADS) or parser.error(f"no workload is called {workload}")
    peers.prepare()
    servers = (peers.available_with_tls if options.tls else peers.available)(options.servers.split(",") if options.servers else None)
    counted = [] if options.no_counts or options.tls else [s.name for s in servers if s.is_countable]
    if options.quick:
        counted = [name for name in counted if name in ("forkpool", "raw", "may")]
    bench = Bench(servers, workloads, rounds, seconds, options.requests)
    bench.time_all()
    bench.count_all(counted)
    report(bench, options.plot)


class Bench:
    def __init__(self, servers, workloads, rounds, seconds, requests):
        self.servers, self.rounds, self.seconds, self.requests = servers, rounds, seconds, requests
        self.pairs = [(w, s) for w in workloads for s in servers if w in s.workloads]
        # By workload and server: what each round gave, and what was counted.
        self.rounds_of = {(w, s.name): [] for w, s in self.pairs}
        self.counts_of = {(w, s.name): {} for w, s in self.pairs}
        self.has_perf = peers.perf_counts()

    def time_all(self):
        """Round after round of all of them, so that what disturbs the machine disturbs all."""
        total, done, begun = self.rounds * len(self.pairs), 0, time.monotonic()
        for _ in range(self.rounds):
            for workload, server in list(self.pairs):
                done += 1
                progress(f"{done} of {total}, {time.monotonic() - begun:.0f} s: {workload}, {server.name}")
                try:
                    self.rounds_of[workload, server.name].append(self.time_once(workload, server))
                except Failed as failed:
                    note(f"without {server.name} in {workload}: {failed}")
                    self.pairs.remove((workload, server))
                    total = self.rounds * len(self.pairs)
        progress("")

    def time_once(self, workload, server):
        with tempfile.TemporaryDirectory() as scratch:
            os.chmod(scratch, 0o755)
            process, port = server.start(scratch, [], identity=identity(workload))
            try:
                # A worker forks, allocates and learns before it is as fast as it will be.
                flood(port, workload, ["--requests", str(self.requests or (100 if workload == "tls-1m" else 500)), "--spin"])
                client, cost = self.load(port, workload, process)
                cost = cost.of_each(client["requests"])
            finally:
                stop(process)
        if "resumed" in workload and client["full"] > 0:
            raise Failed(f"it has not resumed {client['full']} of {client['requests']} sessions")
        rates = {"rate": client["requests"] / client["us"] * 1e6}
        if workload in TLS_WORKLOADS:
            rates["per_cpu"] = 1e6 / cost["cpu_us"]
        return {**rates, **cost}

    def load(self, port, workload, process):
        much = ["--requests", str(self.requests)] if self.requests else ["--seconds", str(self.seconds)]
        options = [*much, "--spin"]
        if "resumed" not in workload:
            cost = Cost(process, self.has_perf)
            return flood(port, workload, options), cost
        # First each client gets a ticket.
        costs = []
        client = peers.flood(port, [*ALL[workload][1], *options], before=lambda: costs.append(Cost(process, self.has_perf)))
        return client, costs[0]

    def count_all(self, names):
        tools = {"instr_user": count_instructions, "syscalls": count_syscalls}
        needs = {"instr_user": "valgrind", "syscalls": "strace"}
        for key, count in tools.items():
            if not shutil.which(needs[key]):
                note(f"without {key}: no {needs[key]} (Debian: apt-get install {needs[key]})")
                continue
            for workload, server in self.pairs:
                if server.name.split()[0] not in names:
                    continue
                progress(f"counting by {needs[key]}: {workload}, {server.name}")
                try:
                    short, long = (count(server, workload, n * ALL[workload][2]) for n in (1, 2))
                    value = (long[0] - short[0]) / (long[1] - short[1])
                    self.counts_of[workload, server.name][key] = value
                except Failed as failed:
                    note(f"without {key} of {server.name} in {workload}: {failed}")
        progress("")

    def results(self):
        """Medians, and the best rate: on a machine with others, the best is what the server can do."""
        results = {}
        for workload, server in self.pairs:
            rounds = self.rounds_of[workload, server.name]
            row = {key: statistics.median(r[key] for r in rounds) for key in rounds[0]}
            row["rate_best"] = max(r["rate"] for r in rounds)
            row["cpu_us_best"] = min(r["cpu_us"] for r in rounds)
            results.setdefault(workload, {})[server.name] = {**row, **self.counts_of[workload, server.name]}
        return results


def count_instructions(server, workload, requests):
    """Of all processes of the server, with what starts and ends it; and the requests that were answered."""
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o777)
        wrapper = ["valgrind", "--quiet", "--tool=callgrind", "--trace-children=yes", f"--callgrind-out-file={scratch}/cg.%p"]
        answered = run_counted(server, workload, requests, scratch, wrapper)
        outs = [path.read_text() for path in Path(scratch).glob("cg.*")]
        totals = [re.search(r"^(?:summary|totals): (\d+)", out, re.M) for out in outs]
        if not totals:
            raise Failed("callgrind has written nothing")
        return sum(int(found[1]) for found in totals if found), answered


def count_syscalls(server, workload, requests):
    with tempfile.TemporaryDirectory() as scratch:
        os.chmod(scratch, 0o777)
        answered = run_counted(server, workload, requests, scratch, ["strace", "-f", "-c", "-o", f"{scratch}/strace"])
        total = re.search(r"^100\.00\s+\S+\s+\S*\s*?(\d+)\s+(?:\d+\s+)?total$", Path(scratch, "strace").read_text(), re.M)
        if not total:
            raise Failed("strace has counted nothing")
        return int(total[1]), answered


def run_counted(server, workload, requests, scratch, wrapper):
    process, port = server.start(scratch, wrapper)
    try:
        return flood(port, workload, ["--requests", str(requests)])["requests"]
    finally:
        stop(process)


def flood(port, workload, options):
    return peers.flood(port, [*ALL[workload][1], *options])


def identity(workload):
    return "b" if workload.endswith("rsa") else "a"


def report(bench, plot):
    results = bench.results()
    load = os.getloadavg()[0]
    machine = f"{os.cpu_count()} CPUs, Linux {os.uname().release}, load average {load:.1f} at the end"
    print(f"One worker on CPU {SERVER_CPU}, the client on CPU {CLIENT_CPU}, 64 connections; {bench.rounds} × {bench.seconds} s, interleaved. {machine}.")
    columns = [("rate_best", "req/s, best"), ("rate", "median"), ("cpu_us_best", "CPU µs, best"), ("cpu_us", "median")]
    columns += [("per_cpu", "per CPU second, median"), ("instr_user", "user instructions"), ("instr_kernel", "kernel instructions"), ("syscalls", "system calls")]
    for workload, rows in results.items():
        raw = rows.get("raw") or rows.get("raw_tls")
        keys = [(key, title) for key, title in columns if any(key in row for row in rows.values())]
        print(f"\n**{ALL[workload][0]}**\n")
        print("| server |" + (f" {compared(workload)[1]}, × raw |" if raw else "") + "".join(f" {title} |" for _, title in keys))
        print("|---|" + ("---:|" if raw else "") + "---:|" * len(keys))
        for name, row in best_first(workload, rows):
            ratio = f" {row[compared(workload)[0]] / raw[compared(workload)[0]]:.2f} |" if raw else ""
            print(f"| {name} |{ratio}" + "".join(f" {shown(key, row.get(key))} |" for key, _ in keys))
    (SCRATCH / "results.json").write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    Path(plot).write_text(chart(results))
    note(f"also in {SCRATCH / 'results.json'}, drawn in {plot}")


def compared(workload):
    """By what servers are compared, and what it is called."""
    return ("cpu_us_best", "CPU µs a request") if workload in LIMITED_BY_CLIENT else ("rate_best", "requests a second")


def best_first(workload, rows):
    key, sign = compared(workload)[0], 1 if workload in LIMITED_BY_CLIENT else -1
    return sorted(rows.items(), key=lambda item: sign * item[1][key])


def shown(key, value):
    if value is None:
        return ""
    digits = {"cpu_us": 2, "per_cpu": 0, "cpu_us_best": 2, "syscalls": 2}.get(key, 0)
    return f"{value:,.{digits}f}".replace(",", " ")


def chart(results):
    """Bars: a group for each workload, as long as the value is of the longest one's."""
    ink, ours, others = "#444", "#c4511d", "#9aa9b8"
    parts, y = [], 8
    for workload, rows in results.items():
        y += 22
        key, unit = compared(workload)
        title = f"{ALL[workload][0]}, {unit}"
        parts.append(f'<text x="8" y="{y}" font-weight="bold" fill="{ink}">{title}</text>')
        most = max(row[key] for row in rows.values())
        for name, row in best_first(workload, rows):
            y += 18
            width, color = 460 * row[key] / most, ours if name.startswith("forkpool") else others
            parts.append(f'<text x="118" y="{y}" text-anchor="end" fill="{ink}">{name}</text>')
            parts.append(f'<rect x="126" y="{y - 11}" width="{width:.1f}" height="13" fill="{color}"/>')
            parts.append(f'<text x="{130 + width:.1f}" y="{y}" fill="{ink}">{shown(key, row[key])}</text>')
        y += 10
    font = 'font-family="sans-serif" font-size="12"'
    size = f'viewBox="0 0 700 {y + 8}" width="700" height="{y + 8}"'
    background = '<rect width="100%" height="100%" fill="white"/>'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} {font}>', background, *parts, "</svg>"]) + "\n"
