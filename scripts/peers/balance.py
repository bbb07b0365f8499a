"""What slow requests do to all others, for each way to choose the worker of a connection: builds tests/tools/skew and
what it uses, and runs it with these arguments."""

import os
import subprocess
import sys

from peers import ROOT, TARGET, build


def main():
    if "--help" in sys.argv:
        # Not built for speed, and not at all where it is there: that takes a minute, to say a few lines.
        skew = TARGET / "debug/examples/skew"
        command = [skew] if skew.exists() else ["cargo", "run", "--quiet", "--example", "skew", "--"]
        return subprocess.run([*command, "--help"], cwd=ROOT).returncode
    target = build("release", examples=["testbed", "load", "skew"])
    skew = target / "examples/skew"
    os.execv(skew, [str(skew), *sys.argv[1:]])
