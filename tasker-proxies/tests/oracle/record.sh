#!/bin/sh
# Records what the providers' own clients send. Needs Node, Python and their registries; the tests that read the recordings
# need none of them. Run it from anywhere; a difference in the *.json files beside it is a change of a client. The versions
# are those of package-lock.json and requirements.txt, with all that the clients need.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/record.mjs" "$here/package.json" "$here/package-lock.json" "$work/"
cd "$work"
npm ci --silent --no-audit --no-fund --ignore-scripts
node record.mjs "$here"
python3 -m venv v
v/bin/pip install -q --no-deps -r "$here/requirements.txt"
v/bin/python "$here/record_google.py" "$here"
v/bin/python "$here/record_google_auth.py" "$here"
