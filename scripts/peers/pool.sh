# For the shell scripts, which run in the repository's directory.

command -v python3 >/dev/null || {
    echo "${0##*/}: it needs python3 (Debian: apt-get install python3)" >&2
    exit 1
}

# listening LOG PID [https]: waits until the pool PID says in LOG where it listens, and sets $url and $address. Fails if
# it ends before that.
listening() {
    address=$(PYTHONPATH=scripts PYTHONDONTWRITEBYTECODE=1 python3 -m peers.listening "$@") || return 1
    url=${3:-http}://$address
}
