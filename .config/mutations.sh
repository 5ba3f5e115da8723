#!/bin/sh
# Tests the tests: takes each guard that PROTOCOL's mutation check names out, one at a time, and demands that a suite fails.
#
#   .config/mutations.sh            all of them
#   .config/mutations.sh salvage    only those whose name contains the word
#
# Guards of the storage contract are taken out of MemoryStorage at run time (`MemoryStorage::with_mutation`, `TASKER_MUTATION`).
# Guards of the engine are taken out of the source, in a copy of this folder: the code that ships has no switches.
# Exit code 0: every mutation was noticed. Needs about 15 minutes on an idle machine (40 on one that builds meanwhile), most of it building; the copy shares CARGO_TARGET_DIR.
set -u

here=$(cd "$(dirname "$0")/.." && pwd)
only=${1:-}
: "${CARGO_TARGET_DIR:=$here/target}"
export CARGO_TARGET_DIR
# A bounded laboratory is enough to notice.
export TASKER_HISTORIES="${TASKER_HISTORIES:-600}"
copy=$(mktemp -d "${TMPDIR:-/tmp}/tasker-mutations.XXXXXX")
trap 'rm -rf "$copy"' EXIT
# A suite that was stopped has noticed nothing.
trap 'exit 130' INT TERM
missed=""

wanted() { case "$1" in *"$only"*) return 0 ;; *) return 1 ;; esac; }

# note NAME SUITE...: which of the suites that were run failed.
note() {
    name=$1
    shift
    if [ $# -eq 0 ]; then
        echo "MISSED   $name"
        missed="$missed $name"
    else
        echo "noticed  $name by: $*"
    fi
}

# --- guards of the storage contract -------------------------------------------------------------------------------------------
# The conformance suite: `tests/mutations.rs` runs every case on a store without the guard, and fails when no case does.
storage="NoTurnNumber NoEpochOnLoad NoWorkerGuardOnCommit NoWorkerGuardOnClaim NoWakeUnderLock NoUnreadCheck NoDeliveryGuard NoFoldGuard"
ran=""
for mutation in $storage; do
    wanted "$mutation" || continue
    if [ -z "$ran" ]; then
        cd "$here" || exit 2
        ran=$(mktemp "$copy/conformance.XXXXXX")
        cargo test --quiet -p tasker-adaptor --features conformance --test mutations -- --nocapture >"$ran" 2>&1 || {
            cat "$ran"
            echo "the conformance suite does not notice a missing guard"
            exit 1
        }
        cargo test --quiet -p tasker-core --test crash_lab --no-run || exit 2
    fi
    suites=""
    grep -F "$mutation: [\"" "$ran" >/dev/null && suites="conformance"
    TASKER_MUTATION=$mutation cargo test --quiet -p tasker-core --test crash_lab random >/dev/null 2>&1 || suites="$suites crash_lab"
    # shellcheck disable=SC2086 # each word is a suite
    note "$mutation" $suites
done

# --- guards of the engine -----------------------------------------------------------------------------------------------------
(cd "$here" && tar cf - --exclude=./target --exclude=./.git .) | (cd "$copy" && tar xf -)

# mutate NAME FILE PERL SUITES: changes the copy, runs the suites, puts the file back. A change that changes nothing is an error.
mutate() {
    name=$1 file=$2 change=$3 suites=$4
    wanted "$name" || return 0
    cp "$copy/$file" "$copy/original"
    perl -0pi -e "$change" "$copy/$file"
    if cmp -s "$copy/original" "$copy/$file"; then
        echo "the source has changed: $name does not apply to $file any more"
        exit 2
    fi
    noticed=""
    for suite in $suites; do
        case $suite in
        unit) run="--lib run::" ;;
        *) run="--test $suite" ;;
        esac
        # A mutant that does not build proves nothing.
        # shellcheck disable=SC2086 # words of a command line
        (cd "$copy" && cargo test --quiet -p tasker-core $run --no-run) || exit 2
        # shellcheck disable=SC2086 # words of a command line
        (cd "$copy" && cargo test --quiet -p tasker-core $run >/dev/null 2>&1) || noticed="$noticed $suite"
    done
    cp "$copy/original" "$copy/$file"
    # shellcheck disable=SC2086 # each word is a suite
    note "$name" $noticed
}

mutate salvage tasker-core/src/run/frame.rs \
    's/if let ReadySource::Local\(epoch\) = ready\.source \{\s*effects\.push\(Effect::Record/if let ReadySource::Local(epoch) = ready.source \&\& false {\n                effects.push(Effect::Record/' \
    "unit crash_lab"
mutate output-commit tasker-core/src/run/frame.rs \
    's/let \(turn, phase\) = self\.commit\(time, consumed, made, dropped, logs, next\);/for child in \&made { effects.push(Effect::Begin { seq: CallSeq(self.made + 1), row: child.clone() }); }\n                let (turn, phase) = self.commit(time, consumed, made, dropped, logs, next);/' \
    "unit crash_lab"
mutate early-answer tasker-core/src/run/frame.rs \
    's/expected => \{/expected => {\n                if expected.is_none() { return; }/' \
    "unit"
mutate owned-repair tasker-core/src/engine/claims.rs \
    's/self\.want_repair = true;/self.want_repair = false;/g' \
    "crash_lab"
mutate held-outcomes tasker-core/src/engine/claims.rs \
    's/\|\| held\.contains\(&row\.id\)//' \
    "crash_lab"
mutate send-again tasker-core/src/engine/core.rs \
    's/Err\(error\) if !error\.is_retryable\(\) => \{/Err(error) if true || !error.is_retryable() => {/' \
    "crash_lab"
mutate poisoned-calls tasker-core/src/engine/calls.rs \
    's/if row\.take_overs > self/if false \&\& row.take_overs > self/' \
    "killers"
mutate last-try-alone tasker-core/src/engine/claims.rs \
    's/let is_last = call/let is_last = false \&\& call/' \
    "killers"
mutate suspect-alone tasker-core/src/engine/claims.rs \
    's/is_suspect\(frame\) &&/false \&\& is_suspect(frame) \&\&/' \
    "killers"

if [ -n "$missed" ]; then
    echo "not noticed:$missed"
    exit 1
fi
