#!/usr/bin/env bash
# Schemathesis, which asks a server what its OpenAPI document allows and forbids, in a Python environment of its own.
#
#   .config/schemathesis.sh        makes the environment where it is not there yet, and prints the path of the program
#
# Needs python3 (3.10 or later) with venv and pip, and the package index on the first call. The version is pinned: another
# version asks other things, and a test that passed must go on passing.
set -euo pipefail
version=4.32.5
home=${TASKER_SCHEMATHESIS_HOME:-${TMPDIR:-/tmp}/tasker-schemathesis-$version-$(id -u)}
program=$home/bin/schemathesis

fails() {
    echo "schemathesis.sh: $*" >&2
    exit 1
}

if [ ! -e "$home/ready" ]; then
    command -v python3 >/dev/null || fails "python3 is not there; install Python 3.10 or later with venv and pip"
    # Two tests may begin at once: one makes it, the other waits.
    exec 9>"$home.lock"
    flock 9
    if [ ! -e "$home/ready" ]; then
        rm -rf "$home"
        python3 -m venv "$home" >&2 || fails "python3 -m venv failed; install the package python3-venv"
        "$home/bin/pip" install -q --disable-pip-version-check "schemathesis==$version" >&2 \
            || fails "pip could not install schemathesis $version; is the package index reached?"
        touch "$home/ready"
    fi
fi
echo "$program"
