"""What slow requests do to all others, for each way to choose the worker of a connection: builds tests/tools/skew and what it
uses, and runs it with these arguments."""

import os
import subprocess
import sys

from peers import ROOT, build


def main():
    if "--help" in sys.argv:
        # Not built for speed: that takes a minute, to say a few lines.
        return subprocess.run(["cargo", "run", "--quiet", "--example", "skew", "--", "--help"], cwd=ROOT).returncode
    target = build("release", examples=["testbed", "load", "skew"])
    skew = target / "examples/skew"
    os.execv(skew, [str(skew), *sys.argv[1:]])
