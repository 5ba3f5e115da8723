#!/usr/bin/env bash
# Sets up and runs all tests. Needs Rust and a C compiler. Python 3.10 and Node 18 or later (the tests of `tasker serve` start services
# written in both, and Schemathesis, which .config/schemathesis.sh installs) are installed where that may be done. Postgres is the one of
# TASKER_TEST_POSTGRES_URL, else a private one on a free loopback port, whose programs are found or installed by
# .config/postgres.sh and which is stopped at the end. Nothing is skipped: what cannot be started fails the run.
set -euo pipefail
cd "$(dirname "$0")"

for program in cargo cc; do
    command -v "$program" >/dev/null || {
        echo "test.sh: $program is not there; install Rust (https://rustup.rs) and a C compiler" >&2
        exit 1
    }
done
for program in python3 node; do
    command -v "$program" >/dev/null && continue
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "test.sh: installing Python and Node" >&2
        apt-get update -qq && apt-get install -y -qq python3 python3-venv nodejs >&2
    fi
    command -v "$program" >/dev/null || {
        echo "test.sh: $program is not there and could not be installed; install Python 3 and Node" >&2
        exit 1
    }
done
if [ "${1:-}" != --with-postgres ]; then
    exec .config/postgres.sh run ./test.sh --with-postgres
fi

# Snapshots are compared, never rewritten.
export INSTA_UPDATE=no

echo "test.sh: all tests" >&2
cargo test --workspace --all-features --no-fail-fast

# Everything that runs on an engine of the test kit twice more: with every frame parked as soon as it waits, and with the VMs in
# child processes. The same packages and features as above, so that nothing is built anew.
modes=()
while read -r file; do
    modes+=(--test "$(basename "$file" .rs)")
done < <(grep -lE 'TestEngine|test_wall|TASKER_TEST_MODE' tasker-core/tests/*.rs)
if [ "${#modes[@]}" -eq 0 ]; then
    echo "test.sh: no engine tests found in tasker-core/tests" >&2
    exit 1
fi
echo "test.sh: engine tests with parking: ${modes[*]}" >&2
TASKER_TEST_MODE=park cargo test --workspace --all-features "${modes[@]}"
echo "test.sh: engine tests behind the process wall: ${modes[*]}" >&2
TASKER_TEST_MODE=process cargo test --workspace --all-features "${modes[@]}"
echo "test.sh: all tests passed" >&2
