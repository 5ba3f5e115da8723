#!/bin/sh
# Writes apis.json beside it: the methods of the common Google APIs, taken from the discovery documents that
# google-api-python-client carries. Needs Python and the PyPI registry; building the crate needs neither.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/v"
"$work/v/bin/pip" install -q google-api-python-client==2.202.0
"$work/v/bin/python" "$here/generate.py" "$here/apis.json"
