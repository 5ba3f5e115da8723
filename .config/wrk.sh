#!/usr/bin/env bash
# wrk against `tasker serve` beside a bare axum handler, in one run on loopback.
#
#   .config/wrk.sh [SECONDS]       each line for so long (10); builds both in release first
#
# Needs wrk (Debian: apt-get install wrk; as root it is installed when it is not there) and curl. `tasker serve` is as it is
# deployed: wall of processes, SQLite with synchronous=FULL, a new database in a folder of its own for each line. The bare handler
# is that of `cargo bench --bench http`. wrk takes processor time from the server: compare the two columns, not machines.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-10}
target=${CARGO_TARGET_DIR:-target}

fails() {
    echo "wrk.sh: $*" >&2
    exit 1
}

if ! command -v wrk >/dev/null; then
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || fails "wrk is not there; install it (Debian: apt-get install wrk)"
    { apt-get update && apt-get install -y wrk; } >/dev/null || fails "apt-get could not install wrk"
fi
cargo build --release --locked -p tasker-cli --bin tasker
bench=$(cargo bench --locked -p tasker-cli --bench http --no-run --message-format json |
    sed -n 's/.*"name":"http".*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
[ -x "$bench" ] || fails "the program of the bare handler was not built"

folder=$(mktemp -d)
server=
bare=
ends() {
    # shellcheck disable=SC2086 # no id is no argument
    kill $server $bare 2>/dev/null || true
    wait 2>/dev/null || true
    rm -rf "$folder"
}
trap ends EXIT

"$bench" --bare 127.0.0.1:0 >"$folder/bare" &
bare=$!
for _ in $(seq 100); do
    [ -s "$folder/bare" ] && break
    sleep 0.1
done
bare_url=$(cat "$folder/bare")
[ -n "$bare_url" ] || fails "the bare handler did not start"

# A server on a database of its own; its address is in $url.
starts() {
    local work=$folder/$1
    mkdir -p "$work/tasks"
    echo '/** @task nothing */ module.exports = async (input) => input;' >"$work/tasks/nothing.js"
    local tasker
    tasker=$(realpath "$target/release/tasker")
    (cd "$work" && "$tasker" publish --all >/dev/null)
    (cd "$work" && exec "$tasker" serve --json --port 0 --services task-executor) >"$work/said" 2>"$work/log" &
    server=$!
    for _ in $(seq 100); do
        [ -s "$work/said" ] && break
        sleep 0.1
    done
    url=$(sed 's/.*"url":"\([^"]*\)".*/\1/' "$work/said")
    curl -fsS "$url/health" >/dev/null || fails "tasker serve did not start: $(cat "$work/log")"
}

stops() {
    # What was submitted and not run is of no interest.
    kill -KILL "$server"
    wait "$server" 2>/dev/null || true
    server=
}

cat >"$folder/post.lua" <<'LUA'
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = '{"taskName":"nothing","input":{"n":1}}'
LUA

# Requests a second, p50 and p99 of wrk; fails where an answer was no success.
asks() {
    local said
    said=$(wrk --latency -t 1 -c "$1" -d "${seconds}s" "${@:3}" "$2")
    if grep -q 'Non-2xx' <<<"$said"; then
        fails "not every answer was a success: $said"
    fi
    awk '/Requests\/sec/ { rate = $2 } $1 == "50%" { half = $2 } $1 == "99%" { most = $2 }
        END { printf "%d | %s | %s\n", rate, half, most }' <<<"$said"
}

echo "| request | connections | bare axum /s | p50 | p99 | tasker /s | p50 | p99 |"
echo "|---|---|---|---|---|---|---|---|"
line=0
for connections in 1 64; do
    for request in "GET /health" "POST /execute" "POST /execute?wait=30"; do
        read -r method path <<<"$request"
        script=()
        [ "$method" = POST ] && script=(-s "$folder/post.lua")
        theirs=$(asks "$connections" "$bare_url${path%%\?*}" "${script[@]}")
        line=$((line + 1))
        starts "$line"
        ours=$(asks "$connections" "$url$path" "${script[@]}")
        stops
        echo "| $request | $connections | $theirs | $ours |"
    done
done
