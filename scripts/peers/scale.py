"""What a request costs when there are more workers, and when more connections are open: ours beside the raw epoll
server with as many processes. The raw server's cost is the kernel's, and nearly nothing else: ours should grow no
faster.

In each round both are started anew and their connections opened; then they have short loads by turns, so that both meet
whatever else the machine does. The cost of a request differs by a fifth from start to start, for either server, so only
many rounds tell servers apart; the interval is that of their means.

Half of the CPUs are the servers', the others the clients'. Against workers, 256 connections all have a request under
way. Against connections, 64 requests are under way and the connections take turns; there is one worker, or as many as
it takes to hold them all where RLIMIT_NOFILE cannot be raised. --workers-for-connections and --clients fix both
numbers, to tell what connections cost from what processes cost that share a CPU.

--sample has perf sample the servers, and adds the time in user space as a share of that in the kernel, which varies much
less than CPU time: what slows the machine slows both parts. Sampling itself takes CPU time, which is that of the servers
as well. Both servers make the same system calls for a request. If the kernel took the same time for them, the ratio of
CPU times would be (1 + ours) / (1 + raw's); what it is above that, the kernel takes longer.

Prints Markdown; target/bench/scale.json has the same, and target/bench/scale.svg draws it. It takes about five minutes,
or one with --quick."""

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import peers
from peers import DIST, SCRATCH, Cost, Failed, limits, note, plot, progress, said, stop

WORKERS = [1, 2, 4, 8, 16]
CONNECTIONS = [10, 100, 1000, 10_000, 100_000]
# Against workers, and all of them active; and so many are active of those that are open.
ENOUGH, ACTIVE = 256, 64
# What is printed of each server.
MEASURES = {"rate": "req/s", "cpu_us": "CPU µs", "sleeps": "sleeps", "instr_user": "user instructions", "instr_kernel": "kernel instructions"}
DIGITS = {"cpu_us": 2, "sleeps": 2}


class Point:
    """So many workers hold so many connections, of which so many have a request under way."""

    def __init__(self, axis, value, workers, connections, active):
        self.axis, self.value, self.workers, self.connections, self.active = axis, value, workers, connections, active
        # By server, what each load gave; and of each round, the mean ratio of its pairs.
        self.loads = {"raw": [], "forkpool": []}
        self.ratios = []

    def row(self):
        """The medians, and the mean ratio with its 95 % interval."""
        row = {"workers": self.workers, "connections": self.connections, "active": self.active}
        for name, loads in self.loads.items():
            row[name] = {key: statistics.median(load[key] for load in loads) for key in loads[0]}
        # On a busy machine perf may begin after a load has ended.
        if all(any(load.get("kernel") for load in loads) for loads in self.loads.values()):
            total = lambda loads, place: sum(load[place] for load in loads)
            shares = {name: total(loads, "user") / total(loads, "kernel") for name, loads in self.loads.items()}
            row |= {"shares": shares, "by_shares": (1 + shares["forkpool"]) / (1 + shares["raw"])}
        ratio, interval = peers.mean_and_interval(self.ratios)
        return {**row, "ratio": ratio, "interval": interval}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = lambda text: [int(word) for word in text.split(",") if word]
    parser.add_argument("--quick", action="store_true", help="two short rounds, of at most 10 000 connections")
    parser.add_argument("--rounds", type=int, help="of each point (default 5)")
    parser.add_argument("--loads", type=int, help="of each server in a round (default 4)")
    parser.add_argument("--seconds", type=float, default=0.3, help="of each load (default 0.3)")
    parser.add_argument("--workers", type=numbers, default=WORKERS, metavar="N,..", help="(default 1,2,4,8,16; '' leaves that out)")
    parser.add_argument("--connections", type=numbers, metavar="N,..", help="(default 10,100,1000,10000,100000; likewise)")
    parser.add_argument("--workers-for-connections", type=int, metavar="N", help="that hold them (default as few as can)")
    parser.add_argument("--clients", type=int, metavar="N", help="that open connections (default one for each CPU, or as few as can)")
    parser.add_argument("--sample", action="store_true", help="also the share of time in user space, by perf")
    parser.add_argument("--plot", default=SCRATCH / "scale.svg", help="draw the chart there")
    options = parser.parse_args()
    rounds, loads = options.rounds or (2 if options.quick else 5), options.loads or (3 if options.quick else 4)
    connections = options.connections
    if connections is None:
        connections = CONNECTIONS[:-1] if options.quick else CONNECTIONS
    peers.prepare()
    points = [Point("workers", workers, workers, ENOUGH, ENOUGH) for workers in options.workers]
    most = limits.descriptors()
    for count in connections:
        # Both servers have them open at once.
        why = limits.obstacle(count * 2)
        if why:
            note(f"without {count} connections: {why}")
        else:
            workers = options.workers_for_connections or limits.processes(count, most)[0]
            points.append(Point("connections", count, workers, count, min(count, ACTIVE)))
    scale = Scale(points, loads, options, most)
    scale.measure_all(rounds)
    report(scale, rounds, options.plot)


class Scale:
    def __init__(self, points, loads, options, most):
        self.points, self.loads, self.seconds, self.most = points, loads, options.seconds, most
        self.fixed_clients, self.samples = options.clients, options.sample
        self.servers = peers.available(["raw", "forkpool"])
        self.servers = [server for server in self.servers if "keep-alive" in server.workloads]
        cpus = sorted(os.sched_getaffinity(0))
        self.server_cpus, self.client_cpus = cpus[: len(cpus) // 2], cpus[len(cpus) // 2 :]
        self.has_perf = peers.perf_counts()

    def measure_all(self, rounds):
        total, done, begun = rounds * len(self.points), 0, time.monotonic()
        for index in range(rounds):
            for point in list(self.points):
                done += 1
                progress(f"{done} of {total}, {time.monotonic() - begun:.0f} s: {point.axis} {point.value}")
                try:
                    self.measure(point, index)
                except Failed as failed:
                    note(f"without {point.axis} {point.value}: {failed}")
                    self.points.remove(point)
        progress("")

    def measure(self, point, index):
        with contextlib.ExitStack() as stack:
            # Each is first as often as the other.
            opened = [stack.enter_context(self.opened(point, server)) for server in self.servers[:: -1 if index % 2 else 1]]
            for turn in range(self.loads):
                for name, process, clients in opened[:: -1 if turn % 2 else 1]:
                    point.loads[name].append(self.load(name, process, clients))
        both = zip(point.loads["forkpool"][-self.loads :], point.loads["raw"][-self.loads :])
        point.ratios.append(statistics.mean(ours["cpu_us"] / raw["cpu_us"] for ours, raw in both))

    @contextlib.contextmanager
    def opened(self, point, server):
        """A server with all the connections, each of which has had a request."""
        with tempfile.TemporaryDirectory() as scratch:
            process, port = server.start(scratch, [], point.workers, ",".join(map(str, self.server_cpus)))
            clients = []
            try:
                await_listeners(port, point.workers)
                clients = self.clients(point, port)
                # Some 20 000 connections are opened a second.
                opening = time.monotonic() + 10 + point.connections / 1000
                for client in clients:
                    said(client, opening)
                yield server.name, process, clients
            finally:
                for client in clients:
                    client.kill()
                    client.wait()
                stop(process)

    def load(self, name, process, clients):
        sampling = Sampling(peers.tree(process.pid)) if self.samples else None
        cost = Cost(process, self.has_perf)
        for client in clients:
            client.stdin.write("\n")
            client.stdin.flush()
        end = time.monotonic() + self.seconds + 10
        results = [said(client, end) for client in clients]
        requests = sum(result["requests"] for result in results)
        cost = cost.of_each(requests) | (sampling.end() if sampling else {})
        errors = sum(result["errors"] for result in results)
        if errors:
            raise Failed(f"{name}: {errors} wrong answers")
        # What is left of this load should not cost the next one anything.
        time.sleep(0.02)
        return {"rate": requests / max(result["us"] for result in results) * 1e6, **cost}

    def clients(self, point, port):
        """Starts one for each CPU, or as many as it takes to hold the connections."""
        cpus = self.client_cpus
        count = self.fixed_clients or max(len(cpus), limits.processes(point.connections, self.most)[1])
        count = min(count, point.active)
        clients = []
        for index in range(count):
            share = lambda whole: str(whole * (index + 1) // count - whole * index // count)
            command = ["taskset", "-c", str(cpus[index % len(cpus)]), str(DIST / "examples/flood"), f"127.0.0.1:{port}", "--hold"]
            command += ["--connections", share(point.connections), "--active", share(point.active)]
            command += ["--seconds", str(self.seconds)]
            # Two that share a CPU would keep each other from it.
            command += ["--spin"] if count <= len(cpus) else []
            clients.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        return clients


class Sampling:
    """Samples of processes from now on, taken while they are on a CPU."""

    def __init__(self, pids):
        self.directory = tempfile.TemporaryDirectory()
        self.file = f"{self.directory.name}/samples"
        record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "4999", "-o", self.file, "-p", ",".join(map(str, pids))]
        self.perf = subprocess.Popen(record, stderr=subprocess.DEVNULL)
        # It does not say when it has begun.
        time.sleep(0.5)

    def end(self):
        """How many there were in user space and in the kernel."""
        self.perf.send_signal(signal.SIGINT)
        self.perf.wait()
        with self.directory:
            script = subprocess.run(["perf", "script", "-i", self.file, "-F", "ip"], capture_output=True, text=True)
        # The kernel has the upper half of the addresses.
        kernel = [int(line, 16) >> 63 for line in script.stdout.split()]
        return {"user": len(kernel) - sum(kernel), "kernel": sum(kernel)}


def await_listeners(port, count):
    """Until each worker has its socket."""
    wanted = f":{int(port):04X}"
    for _ in range(200):
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        # TCP_LISTEN (proc(5)).
        if sum(row[1].endswith(wanted) and row[3] == "0A" for row in rows) >= count:
            return
        time.sleep(0.05)
    raise Failed(f"not all of {count} workers listen within 10 s")


def report(scale, rounds, path):
    machine = f"{os.cpu_count()} CPUs, Linux {os.uname().release}, load average {os.getloadavg()[0]:.1f} at the end"
    cpus = f"servers on {len(scale.server_cpus)} CPUs, clients on {len(scale.client_cpus)}"
    print(f"Medians of {rounds} × {scale.loads} × {scale.seconds} s, interleaved; {cpus}. {machine}.")
    results = {}
    for axis in ("workers", "connections"):
        rows = {point.value: point.row() for point in scale.points if point.axis == axis}
        if rows:
            results[axis] = rows
            table(axis, rows)
    if not results:
        sys.exit("scale: nothing could be measured")
    document = {"machine": machine, "rounds": rounds, "loads": scale.loads, "seconds": scale.seconds, "results": results}
    (SCRATCH / "scale.json").write_text(json.dumps(document, indent=1) + "\n")
    panels = [panel(axis, rows) for axis, rows in results.items()]
    Path(path).write_text(plot.svg("CPU time of the server for each request", "µs", panels))
    note(f"also in {SCRATCH / 'scale.json'}, drawn in {path}")


TITLES = {
    "workers": f"Against workers: {ENOUGH} connections, all of them active",
    "connections": f"Against open connections, {ACTIVE} of them active at a time",
}


def table(axis, rows):
    print(f"\n**{TITLES[axis]}**\n")
    names = ("raw", "forkpool")
    keys = [key for key in MEASURES if all(key in row[name] for row in rows.values() for name in names)]
    # How many workers it took is no choice of the reader's there.
    first = [axis] if axis == "workers" else [axis, "workers"]
    heads = [*first, *(f"{name}, {MEASURES[key]}" for key in keys for name in names), "CPU, forkpool / raw", "95 %"]
    has_shares = all("shares" in row for row in rows.values())
    heads += ["raw, user / kernel", "forkpool, user / kernel", "by shares"] if has_shares else []
    print("| " + " | ".join(heads) + " |")
    print("|" + "---:|" * len(heads))
    for row in rows.values():
        cells = [str(row[key]) for key in first]
        cells += [shown(key, row[name][key]) for key in keys for name in names]
        low, high = row["interval"]
        cells += [f"{row['ratio']:.3f}", f"{low:.3f} to {high:.3f}" if low < high else "–"]
        cells += [f"{share:.4f}" for share in (*row["shares"].values(), row["by_shares"])] if has_shares else []
        print("| " + " | ".join(cells) + " |")


def shown(key, value):
    return f"{value:,.{DIGITS.get(key, 0)}f}".replace(",", " ")


def panel(axis, rows):
    curves = {name: [row[name]["cpu_us"] for row in rows.values()] for name in ("raw", "forkpool")}
    places = [f"{value:,}".replace(",", " ") for value in rows]
    return plot.Panel(TITLES[axis].partition(":")[0].partition(",")[0], places, axis, curves)
