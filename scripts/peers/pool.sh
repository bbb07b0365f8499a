# For the shell scripts: waits until a pool listens.

# listening LOG PID: waits until the pool PID says in LOG where it listens, and sets $url and $address. Fails if it ends
# before that.
listening() {
    until grep -q 'listening on http' "$1"; do
        kill -0 "$2" 2>/dev/null || return 1
        sleep 0.01
    done
    url=$(grep -o 'http://[^ ]*' "$1" | head -1)
    address=${url#http://}
}
