"""How evenly kept connections are spread after a pool was scaled from 1 to 8 workers: what the fullest worker has, as a
multiple of the mean, from the command on. Prints a table, and with --svg draws it over time.

All connections were opened before, and their clients never open another, so only those that are moved reach the new
workers. `eBPF` steers new connections with privilege, `random` without; `off` moves none."""

import argparse
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

from peers import Failed, build, note, progress
from peers.kept import Kept
from peers.plot import Panel, svg
from peers.reloaded import Forkpool

MODES = {
    "eBPF": {"FORKPOOL_BALANCE": "least-connections"},
    "random": {"FORKPOOL_BALANCE": "random"},
    "off": {"FORKPOOL_REBALANCE": "off"},
}
LOADS = [(10_000, 64), (400, 400)]
STEP = 0.05  # seconds
SHOWN = 1.5
MEASURED = 3.0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    parser.add_argument("--modes", default=",".join(MODES), help=f"of {', '.join(MODES)} (default all)")
    parser.add_argument("--svg", metavar="FILE", help="draw the medians there")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    programs = build("dist", examples=["testbed", "kept"])
    print("| connections | busy | steering | 0.5 s | 1 s | 2 s | 1 s at most | s until at most 1.05 | closed, lost |")
    print("|---:|---:|---|---:|---:|---:|---:|---:|---:|", flush=True)
    panels, faults = [], 0
    for connections, busy in LOADS:
        curves = {}
        for mode in options.modes.split(","):
            runs = []
            for turn in range(options.rounds):
                progress(f"{connections} connections, {mode}, {turn + 1}/{options.rounds}")
                try:
                    runs.append(run(programs, mode, connections, busy))
                except Failed as failed:
                    note(f"{connections} connections, {mode}: {failed}")
                    faults += 1
            progress("")
            if runs:
                curves[mode] = [statistics.median(curve) for curve in zip(*(run["curve"] for run in runs))]
                faults += print_row(connections, busy, mode, runs)
        places = [f"{index * STEP:g}" if index % 10 == 0 else "" for index in range(int(SHOWN / STEP) + 1)]
        title = f"{connections} kept connections, {busy} of them busy"
        panels.append(Panel(title, places, "seconds after the command to scale", curves))
    if options.svg:
        Path(options.svg).write_text(svg("connections of the fullest worker after scaling from 1 to 8", "× mean", panels))
    return 1 if faults else 0


def print_row(connections, busy, mode, runs):
    at = lambda seconds: [run["at"](seconds) for run in runs]
    median = lambda values: f"{statistics.median(values):.2f}"
    until = [run["until"] for run in runs]
    reached = median(until) if None not in until else "never" if set(until) == {None} else "sometimes"
    closed, lost = sum(run["closed"] for run in runs), sum(run["lost"] for run in runs)
    cells = [median(at(0.5)), median(at(1)), median(at(2)), f"{max(at(1)):.2f}", reached, f"{closed}, {lost}"]
    print(f"| {connections} | {busy} | {mode} | {' | '.join(cells)} |", flush=True)
    return closed + lost


class Options:
    def __init__(self, connections, busy):
        self.connections, self.busy, self.tls = connections, busy, False


def run(programs, mode, connections, busy):
    with tempfile.TemporaryDirectory() as scratch:
        # Whoever may not load eBPF is told so at the start.
        server = Forkpool(programs, scratch, 1, MODES[mode])
        client = None
        try:
            client = Kept(programs, server.port, Options(connections, busy))
            looks = look(server)
            client.ask()
        finally:
            if client:
                client.stop()
            server.stop()

    def at(seconds):
        """The last look before."""
        return [ratio for when, ratio in looks if when <= seconds][-1]

    unbalanced = [when for when, ratio in looks if ratio > 1.05]
    balanced = [when for when, _ in looks if when > unbalanced[-1]]
    curve = [at(index * STEP) for index in range(int(SHOWN / STEP) + 1)]
    return {"at": at, "curve": curve, "until": min(balanced, default=None), "closed": client.closed, "lost": client.lost}


def look(server):
    """The fullest worker as a multiple of the mean, by the time after the command."""
    looks, begun = [(0, 8)], time.monotonic()
    server.admin("POST", "/scale?workers=8")
    while looks[-1][0] < MEASURED:
        opens = [worker["open"] or 0 for worker in server.admin("GET", "/status.json")["workers"]]
        looks.append((time.monotonic() - begun, max(opens) * 8 / max(sum(opens), 1)))
        time.sleep(0.01)
    return looks
