"""For shell scripts, by peers/pool.sh: waits until a pool announces where it listens, and prints the address."""

import os
import sys
from pathlib import Path

from peers import Failed, listening, wait_for


def has_ended(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rsplit(") ")[1].startswith("Z")


def main():
    log, pid, *scheme = sys.argv[1:]
    try:
        print(wait_for(Path(log), listening(*scheme), lambda: has_ended(int(pid))))
    except Failed as failed:
        sys.exit(str(failed))


if __name__ == "__main__":
    main()
