#!/usr/bin/env bash
# A private PostgreSQL server for the tests.
#
#   .config/postgres.sh run COMMAND…   starts a server, runs COMMAND with TASKER_TEST_POSTGRES_URL set, stops the server
#   .config/postgres.sh serve          starts a server of its own whatever is set, prints its URL; each line read restarts
#                                      it at once, as a crash does, and is answered by a line; the end of input stops it
#   .config/postgres.sh serve CERT KEY the same with TLS, which clients may use: PEM files
#   .config/postgres.sh pgbouncer      starts PgBouncer in transaction mode before the server of TASKER_TEST_POSTGRES_URL,
#                                      prints its URL, stops it at the end of input
#   . .config/postgres.sh              defines tasker_postgres_start and tasker_postgres_stop for another script
#
# A TASKER_TEST_POSTGRES_URL that is set already is used as it is: nothing is started and nothing is stopped.
# The server's programs come from PATH, Debian's, Homebrew's and PGDG's folders; where none is found, the
# distribution's package is installed if this user may do that. The data folder is a fresh one under TMPDIR,
# the port a free one on 127.0.0.1, and the server is stopped by its own process id.

# Prints the folder that has initdb and postgres, newest version first; fails when there is none.
tasker_postgres_bin() {
    local program folder
    if program=$(command -v postgres); then
        folder=$(dirname "$(readlink -f "$program" 2>/dev/null || echo "$program")")
        [ -x "$folder/initdb" ] && { echo "$folder"; return 0; }
    fi
    while read -r folder; do
        [ -x "$folder/initdb" ] && [ -x "$folder/postgres" ] && { echo "$folder"; return 0; }
    done < <(printf '%s\n' /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/local/pgsql/bin \
        /opt/homebrew/opt/postgresql*/bin /usr/local/opt/postgresql*/bin \
        /Applications/Postgres.app/Contents/Versions/*/bin | sort -rV)
    return 1
}

# Installs packages of the distribution, as far as this user may.
tasker_postgres_install() {
    local sudo=
    if [ "$(id -u)" -ne 0 ]; then
        sudo=false
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then sudo="sudo -n"; fi
    fi
    if command -v apt-get >/dev/null && [ "$sudo" != false ]; then
        echo "postgres.sh: installing $* with apt-get" >&2
        $sudo apt-get update -q >&2 && DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -q "$@" >&2
    elif command -v dnf >/dev/null && [ "$sudo" != false ]; then
        $sudo dnf install -y "${@/%postgresql/postgresql-server}" >&2
    elif command -v brew >/dev/null; then
        brew install "$@" >&2
    else
        return 1
    fi
}

# How often a server is started on another port because somebody took its port between the look and the start.
TASKER_PORT_TRIES=5

# Prints a TCP port of 127.0.0.1 on which nobody answers.
tasker_postgres_free_port() {
    local port tries
    for tries in $(seq 100); do
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
        (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || { echo "$port"; return 0; }
    done
    echo "postgres.sh: no free port found after $tries tries" >&2
    return 1
}

# Runs a command as the user that the server runs as (PostgreSQL refuses to run as root); replaces this shell.
tasker_postgres_exec() {
    if [ "$(id -u)" -ne 0 ]; then
        exec "$@"
    elif command -v setpriv >/dev/null; then
        exec setpriv --reuid="$TASKER_POSTGRES_USER" --regid="$(id -g "$TASKER_POSTGRES_USER")" --clear-groups -- "$@"
    else
        exec su -s /bin/sh "$TASKER_POSTGRES_USER" -c 'exec "$0" "$@"' -- "$@"
    fi
}

tasker_postgres_start() {
    if [ -n "${TASKER_TEST_POSTGRES_URL:-}" ]; then
        export TASKER_TEST_POSTGRES_URL
        return 0
    fi
    local bin
    if ! bin=$(tasker_postgres_bin); then
        tasker_postgres_install postgresql || true
        if ! bin=$(tasker_postgres_bin); then
            echo "postgres.sh: no PostgreSQL server found and none could be installed." >&2
            echo "Install it (Debian: apt-get install postgresql; macOS: brew install postgresql)," >&2
            echo "or set TASKER_TEST_POSTGRES_URL to a database that the tests may fill and empty." >&2
            return 1
        fi
    fi
    if ! PATH="$PATH:/usr/sbin" command -v pgbouncer >/dev/null; then
        tasker_postgres_install pgbouncer || true
    fi
    TASKER_POSTGRES_USER=$(id -un)
    if [ "$(id -u)" -eq 0 ]; then
        TASKER_POSTGRES_USER=nobody
        if id postgres >/dev/null 2>&1; then TASKER_POSTGRES_USER=postgres; fi
    fi
    local folder
    folder=$(mktemp -d "${TMPDIR:-/tmp}/tasker-postgres.XXXXXX") || return 1
    TASKER_POSTGRES_FOLDER=$folder
    if [ "$(id -u)" -eq 0 ]; then
        chown "$TASKER_POSTGRES_USER" "$folder" || return 1
    fi
    if ! (cd "$folder" && tasker_postgres_exec "$bin/initdb" --pgdata="$folder/data" --username=tasker \
        --auth=trust --encoding=UTF8 --locale=C) >"$folder/initdb.log" 2>&1; then
        cat "$folder/initdb.log" >&2
        tasker_postgres_stop
        return 1
    fi
    if [ -n "${TASKER_POSTGRES_TLS[*]:-}" ]; then
        # The server reads its key only from a file of its own that nobody else may read.
        install -m 600 -o "$TASKER_POSTGRES_USER" "${TASKER_POSTGRES_TLS[0]}" "$folder/data/server.crt" || return 1
        install -m 600 -o "$TASKER_POSTGRES_USER" "${TASKER_POSTGRES_TLS[1]}" "$folder/data/server.key" || return 1
        echo "ssl = on" >>"$folder/data/postgresql.conf"
    fi
    local attempt
    for attempt in $(seq "$TASKER_PORT_TRIES"); do
        TASKER_POSTGRES_PORT=$(tasker_postgres_free_port) || return 1
        tasker_postgres_launch "$bin" && break
        # The log is that of this attempt and of those before, which had the same fault.
        if [ "$attempt" -eq "$TASKER_PORT_TRIES" ] || ! grep -q "could not bind" "$folder/server.log"; then
            echo "postgres.sh: the server did not start (attempt $attempt):" >&2
            cat "$folder/server.log" >&2
            tasker_postgres_stop
            return 1
        fi
    done
    export TASKER_TEST_POSTGRES_URL="postgres://tasker@127.0.0.1:$TASKER_POSTGRES_PORT/postgres?sslmode=disable"
    echo "postgres.sh: $("$bin/postgres" --version) on port $TASKER_POSTGRES_PORT, data in $folder" >&2
}

# Starts the server on its data folder and port, and waits until it answers; what kept it from that is in its log.
# fsync and synchronous_commit stay on: the tests are about durability.
tasker_postgres_launch() {
    local bin=$1 folder=$TASKER_POSTGRES_FOLDER tries
    (cd "$folder" && tasker_postgres_exec "$bin/postgres" -D "$folder/data" -h 127.0.0.1 -p "$TASKER_POSTGRES_PORT" \
        -k "$folder" -c max_connections=400 -c shared_buffers=256MB -c max_wal_size=2GB -c checkpoint_timeout=30min) \
        >>"$folder/server.log" 2>&1 </dev/null &
    TASKER_POSTGRES_PID=$!
    for tries in $(seq 1800); do
        # Not only an answer on the port: another server may be there, and ours about to give up.
        grep -q '^ready' "$folder/data/postmaster.pid" 2>/dev/null &&
            "$bin/pg_isready" -q -h 127.0.0.1 -p "$TASKER_POSTGRES_PORT" -U tasker -d postgres && return 0
        kill -0 "$TASKER_POSTGRES_PID" 2>/dev/null || break
        sleep 0.1
    done
    return 1
}

# Starts a server and restarts it for every line read, as after a crash: `immediate`, so that it recovers from its log.
# With the files of a certificate and its key it speaks TLS too.
tasker_postgres_serve() {
    unset TASKER_TEST_POSTGRES_URL
    TASKER_POSTGRES_TLS=("$@")
    tasker_postgres_start || return 1
    local bin
    bin=$(tasker_postgres_bin)
    echo "$TASKER_TEST_POSTGRES_URL"
    while read -r _; do
        kill -QUIT "$TASKER_POSTGRES_PID"
        wait "$TASKER_POSTGRES_PID" 2>/dev/null
        if ! tasker_postgres_launch "$bin"; then
            echo "postgres.sh: the server did not start again:" >&2
            cat "$TASKER_POSTGRES_FOLDER/server.log" >&2
            return 1
        fi
        echo restarted
    done
}

# Waits until PgBouncer (process $bouncer) answers on its port $listen; fails when it has ended.
tasker_pgbouncer_answers() {
    local tries
    for tries in $(seq 600); do
        # A moment first: on a port that another has taken an answer comes before PgBouncer has given up.
        sleep 0.1
        kill -0 "$bouncer" 2>/dev/null || return 1
        (exec 3<>"/dev/tcp/127.0.0.1/$listen") 2>/dev/null && return 0
    done
    return 1
}

# Runs PgBouncer in transaction mode before the server of TASKER_TEST_POSTGRES_URL until the end of input.
tasker_pgbouncer_serve() {
    PATH="$PATH:/usr/sbin"
    command -v pgbouncer >/dev/null || tasker_postgres_install pgbouncer || true
    if ! command -v pgbouncer >/dev/null; then
        echo "postgres.sh: no pgbouncer found and none could be installed (Debian: apt-get install pgbouncer)" >&2
        return 1
    fi
    local rest user password host port database folder listen attempt
    rest=${TASKER_TEST_POSTGRES_URL#*://}
    rest=${rest%%\?*}
    database=${rest##*/}
    rest=${rest%/*}
    user=${rest%@*}
    host=${rest##*@}
    port=${host##*:}
    [ "$port" = "$host" ] && port=5432
    host=${host%:*}
    password=
    [ "${user#*:}" != "$user" ] && password="password=${user#*:}"
    user=${user%%:*}
    folder=$(mktemp -d "${TMPDIR:-/tmp}/tasker-pgbouncer.XXXXXX") || return 1
    TASKER_POSTGRES_USER=$(id -un)
    if [ "$(id -u)" -eq 0 ]; then
        TASKER_POSTGRES_USER=nobody
        chown nobody "$folder"
    fi
    bouncer=
    trap 'kill "$bouncer" 2>/dev/null; rm -rf "'"$folder"'"' EXIT
    for attempt in $(seq "$TASKER_PORT_TRIES"); do
        listen=$(tasker_postgres_free_port) || return 1
        cat >"$folder/pgbouncer.ini" <<INI
[databases]
* = host=$host port=$port user=$user $password
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $listen
unix_socket_dir =
auth_type = any
pool_mode = transaction
max_client_conn = 500
default_pool_size = 6
INI
        (cd "$folder" && tasker_postgres_exec pgbouncer "$folder/pgbouncer.ini") >"$folder/log" 2>&1 </dev/null &
        bouncer=$!
        tasker_pgbouncer_answers && break
        if [ "$attempt" -eq "$TASKER_PORT_TRIES" ] || ! grep -q "Address already in use" "$folder/log"; then
            echo "postgres.sh: pgbouncer did not start (attempt $attempt):" >&2
            cat "$folder/log" >&2
            return 1
        fi
    done
    echo "postgres://$user@127.0.0.1:$listen/$database?sslmode=disable"
    cat >/dev/null
}

# Stops the server that tasker_postgres_start started, and removes its folder. A server of the caller's stays.
tasker_postgres_stop() {
    if [ -n "${TASKER_POSTGRES_PID:-}" ]; then
        kill -INT "$TASKER_POSTGRES_PID" 2>/dev/null
        wait "$TASKER_POSTGRES_PID" 2>/dev/null
        TASKER_POSTGRES_PID=
    fi
    if [ -n "${TASKER_POSTGRES_FOLDER:-}" ]; then
        rm -rf "$TASKER_POSTGRES_FOLDER"
        TASKER_POSTGRES_FOLDER=
    fi
    return 0
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -uo pipefail
    trap tasker_postgres_stop EXIT
    trap 'exit 130' INT TERM
    case "${1:-}" in
    run)
        shift
        tasker_postgres_start || exit 1
        "$@"
        exit $?
        ;;
    serve)
        shift
        tasker_postgres_serve "$@"
        ;;
    pgbouncer) tasker_pgbouncer_serve ;;
    *)
        echo "usage: $0 run COMMAND… | serve [CERT KEY] | pgbouncer" >&2
        exit 2
        ;;
    esac
fi
