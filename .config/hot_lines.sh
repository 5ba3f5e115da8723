#!/usr/bin/env bash
# Finds which cache lines of an image turns touch, and writes them into tasker-core/src/vm/raw/hot_lines.rs. To be run when the test
# what_turns_touch_is_known_of_each_kind_of_image says so. Needs valgrind, Python 3 and some minutes.
#
# A program of the tests turns a frame in each kind of image and marks where a turn begins and ends; valgrind writes down each access
# to memory. What the later half of the turns touches counts: the first ones make what stays.
set -euo pipefail
cd "$(dirname "$0")/.."

for program in valgrind python3 setarch; do
    command -v "$program" >/dev/null || {
        echo "hot_lines.sh: $program is not there; install it" >&2
        exit 1
    }
done

tests=$(cargo test -p tasker-core --all-features --lib --no-run --message-format=json | python3 -c '
import json, sys
for line in sys.stdin:
    message = json.loads(line)
    if message.get("executable") and message["target"]["name"] == "tasker_core":
        print(message["executable"])')
folder=$(mktemp -d "${TMPDIR:-/tmp}/tasker-hot-lines.XXXXXX")
trap 'rm -rf "$folder"' EXIT

# Without random addresses, and on one thread: two runs lay everything out alike.
turns() {
    setarch -R valgrind --tool=lackey "$@" "$tests" --ignored --exact --nocapture --test-threads 1 vm::raw::template::tests::turns_to_trace
}
turns 2>/dev/null >"$folder/said"
mkfifo "$folder/trace"
turns --trace-mem=yes --log-file="$folder/trace" >"$folder/said_again" &
python3 - "$folder/said" "$folder/trace" tasker-core/src/vm/raw/hot_lines.rs <<'PYTHON'
import sys

said, trace, file = sys.argv[1:]
LINE = 64
mark, images = None, []
for line in open(said):
    words = line.split()
    if words[:1] == ["mark"]:
        mark = int(words[1], 16)
    elif words[:1] == ["image"]:
        kind, layout, start, size = words[1], words[2], int(words[3], 16), int(words[4])
        images.append((kind, layout, start, start + size))
if mark is None or not images:
    sys.exit("hot_lines.sh: the program did not say where its images are")

# Turns are marked in pairs, and those of each image follow each other.
marked = tuple(f" {how} {mark:08x}," for how in "SM")
turns, inside = [], False
with open(trace) as accesses:
    for line in accesses:
        if line.startswith(marked):
            inside = not inside
            if inside:
                turns.append(set())
        elif inside and line[1] in "SLM":
            address, size = line[3:].split(",")
            address = int(address, 16)
            turns[-1].update(range(address // LINE, (address + int(size) - 1) // LINE + 1))
each = len(turns) // len(images)
if inside or each < 2 or each * len(images) != len(turns):
    sys.exit(f"hot_lines.sh: {len(turns)} turns for {len(images)} images")

text = open(file).read()
head, begin, _ = text.partition("// Made by .config/hot_lines.sh from here on.\n")
made = [f"static ALL: [HotLines; {len(images)}] = ["]
for n, (kind, layout, start, end) in enumerate(images):
    later = set().union(*turns[n * each + each // 2:(n + 1) * each])
    lines = sorted((line * LINE - start) // LINE for line in later if start <= line * LINE < end)
    print(f"{kind}: {len(lines)} of {(end - start) // LINE} lines")
    made += [f"    // {kind}", "    HotLines {", f"        layout: 0x{layout[:4]}_{layout[4:8]}_{layout[8:12]}_{layout[12:]},", "        lines: &["]
    for at in range(0, len(lines), 20):
        made.append("            " + " ".join(f"{line}," for line in lines[at:at + 20]))
    made += ["        ],", "    },"]
made.append("];")
open(file, "w").write(head + begin + "#[rustfmt::skip]\n" + "\n".join(made) + "\n")
PYTHON
wait
