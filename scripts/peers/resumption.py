"""How many reconnects resume their TLS session while their server is restarted, has workers killed, is replaced by a
new binary, and changes its keys. 64 clients make a request each time they connect, at a fixed rate in all, and keep the
tickets they get. A reconnect of a client that has been answered before counts; what is refused or cut short is lost.

ours has 8 workers; a secret of its tickets is used for --period seconds. What a server cannot do is left out: HAProxy
is one process, and Node's cluster and Apache are not replaced while they run. Only ours changes its keys by itself."""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

from peers import Failed, build, certificate, note, pairs, progress
from peers.reloaded import PEERS_WITH_TLS, Forkpool, Haproxy, program

# Step: how often, and how many seconds apart at least.
STEPS = {"restart": (20, 0.75), "kill": (80, 0.25), "upgrade": (10, 1)}
LANES = 64


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", default="all", metavar="NAME,...", help=f"of forkpool, {', '.join(PEERS_WITH_TLS)} (default all)")
    parser.add_argument("--rate", type=int, default=180, help="reconnects a second (default 180)")
    parser.add_argument("--period", type=int, default=5, help="seconds for which a secret is used (default 5)")
    parser.add_argument("--workers", type=int, default=8, help="(default 8)")
    parser.add_argument("--tls12", action="store_true", help="TLS 1.2 instead of 1.3")
    parser.add_argument("--trace", action="store_true", help="tell on standard error what was lost")
    parser.add_argument("--quick", action="store_true", help="each step a few times, to see that all can be measured")
    options = parser.parse_args()
    names = ["forkpool", *PEERS_WITH_TLS] if options.servers == "all" else options.servers.split(",")
    unknown = set(names) - {"forkpool", *PEERS_WITH_TLS}
    if unknown:
        parser.error(f"there is no server {min(unknown)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    programs = build("release", examples=["testbed", "load"])
    times = {name: min(count, 2) if options.quick else count for name, (count, _) in STEPS.items()}
    titles = [f"{times['restart']} restarts", f"{times['kill']} SIGKILLs", f"{times['upgrade']} upgrades", "2 changes of keys", "all"]
    print(f"| server | {' | '.join(f'{title}: resumed of reconnects' for title in titles)} | lost in each |")
    print(f"|---|{'---:|' * (len(titles) + 1)}", flush=True)
    failures = 0
    for name in names:
        if name != "forkpool" and not program(name):
            note(f"without {name} (Debian: apt-get install {PEERS_WITH_TLS[name][1]})")
            continue
        try:
            row(name, times, programs, options)
        except Failed as failed:
            note(f"{name}: {failed}")
            failures += 1
    return 1 if failures else 0


def row(name, times, programs, options):
    with tempfile.TemporaryDirectory() as scratch:
        # nginx and Apache let their workers become another user.
        os.chmod(scratch, 0o755)
        server = start(name, scratch, programs, options)
        cells, all_of, again, lost = [], 0, 0, []
        try:
            for step in [*STEPS, "keys"]:
                progress(f"{name}: {step}")
                if not can(server, step):
                    cells.append("–")
                    continue
                client = begin(server, programs, options)
                try:
                    change(server, step, times, options)
                finally:
                    report = end(client)
                resumed, missed = report["resumed"], report["missed"]
                cells.append(f"{resumed} of {resumed + missed}")
                all_of, again = all_of + resumed + missed, again + resumed
                lost.append(str(report["lost"]))
                if report["lost"] and options.trace:
                    note(f"{name}: {step}: {report}")
        finally:
            server.stop()
    progress("")
    print(f"| {name} | {' | '.join(cells)} | **{again} of {all_of}** | {' + '.join(lost)} |", flush=True)


def start(name, scratch, programs, options):
    if name != "forkpool":
        kind = PEERS_WITH_TLS[name][0]
        return type(kind.__name__, (kind,), {"identity": "a"})(scratch, options.workers)
    variables = {
        "FORKPOOL_TLS_LISTEN": "127.0.0.1:0", "FORKPOOL_TLS_CERTIFICATE": certificate("a", "pem"),
        "FORKPOOL_TLS_KEY": certificate("a", "key"), "FORKPOOL_TLS_TICKET_PERIOD": f"{options.period}s",
    }  # fmt: skip
    return Forkpool(programs, scratch, options.workers, variables)


def can(server, step):
    if step == "keys":
        return isinstance(server, Forkpool)
    return not (step == "kill" and isinstance(server, Haproxy)) and (step == "kill" or getattr(server, step) is not None)


def begin(server, programs, options):
    command = [programs / "examples/load", f"127.0.0.1:{server.port}", "--resume", "--connections", str(LANES)]
    command += ["--rate", str(options.rate), "--duration", "600s", "--path", "/plaintext" if isinstance(server, Forkpool) else "/"]
    return subprocess.Popen([*command, *(["--tls12"] if options.tls12 else [])], stdout=subprocess.PIPE, text=True)


def end(client):
    client.terminate()
    line, _ = client.communicate()
    if client.returncode > 1 or not line:
        raise Failed("the client could not run")
    return pairs(line)


def change(server, step, times, options):
    if step == "keys":
        # Each secret is the current one for a period.
        return time.sleep(2 * options.period + 0.5)
    for _ in range(times[step]):
        begun = time.monotonic()
        if step == "kill":
            workers = server.workers()
            if workers:
                os.kill(random.choice(workers), signal.SIGKILL)
        else:
            getattr(server, step)()
        time.sleep(max(0, STEPS[step][1] - (time.monotonic() - begun)))
