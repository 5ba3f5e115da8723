#!/bin/sh
# Records what the providers' own clients send. Needs Node, Python and their registries; the tests that read the recordings
# need none of them. Run it from anywhere; a difference in the *.json files beside it is a change of a client.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$here/record.mjs" "$work/"
cd "$work"
printf '{"private":true,"type":"module"}' > package.json
npm install --silent --no-audit --no-fund --save-exact openai@6.49.0 @supabase/supabase-js@2.109.0
node record.mjs "$here"
python3 -m venv v
v/bin/pip install -q google-api-python-client==2.202.0
v/bin/python "$here/record_google.py" "$here"
