"""What stands in the way of many connections over loopback."""

import resource
from pathlib import Path

# What a connection takes of the kernel: two sockets, two files, an item of epoll. Measured, and rounded up.
KERNEL_BYTES = 11 << 10


def descriptors():
    """Raises RLIMIT_NOFILE for all that are started as far as it goes, and returns how far."""
    most = int(Path("/proc/sys/fs/nr_open").read_text())
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    except (ValueError, PermissionError):
        # It takes CAP_SYS_RESOURCE (setrlimit(2)), which containers seldom have.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def processes(connections, most):
    """How many workers and how many clients it takes to hold the two ends."""
    # The kernel's choice of the worker is not quite even, and each has other descriptors too.
    return -(-connections // int(most * 0.75)), -(-connections // (most - 100))


def obstacle(connections):
    """Why this machine has no room for them, and what to do about it; None if it has."""
    files = int(Path("/proc/sys/fs/file-max").read_text())
    if connections * 2 > files:
        return f"both ends need {connections * 2} files: sysctl fs.file-max={connections * 2 + 100_000}"
    available = meminfo()["MemAvailable"]
    if connections * KERNEL_BYTES > available * 0.9:
        need = connections * KERNEL_BYTES >> 20
        return f"{connections} connections need some {need} MiB, and {available >> 20} MiB are available"
    return None


def meminfo():
    lines = Path("/proc/meminfo").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
