#!/usr/bin/env bash
# Looks at the files in docs/deploy as far as that goes without a cluster or a container: what they say is of the right form.
#
#   .config/deploy.sh
#
# Needs python3 with venv and pip, and the package index on the first call (kubernetes-validate, pinned). systemd-analyze and
# docker compose (or docker-compose) look at their files where they are there; it says what it left out.
set -euo pipefail
cd "$(dirname "$0")/../docs/deploy"
version=1.37.0
home=${TMPDIR:-/tmp}/tasker-kubernetes-validate-$version-$(id -u)

fails() {
    echo "deploy.sh: $*" >&2
    exit 1
}

if [ ! -e "$home/ready" ]; then
    command -v python3 >/dev/null || fails "python3 is not there; install Python 3 with venv and pip"
    rm -rf "$home"
    python3 -m venv "$home" || fails "python3 -m venv failed; install the package python3-venv"
    "$home/bin/pip" install -q --disable-pip-version-check "kubernetes-validate==$version" ||
        fails "pip could not install kubernetes-validate $version; is the package index reached?"
    touch "$home/ready"
fi
said=$("$home/bin/kubernetes-validate" --strict kubernetes.yaml 2>&1) || fails "kubernetes.yaml: $said"
echo "kubernetes.yaml: $(grep -c passed <<<"$said") resources have the form of the newest schemas"

if command -v systemd-analyze >/dev/null; then
    # It asks whether the program is there: one that is everywhere stands in.
    unit=$(mktemp -d)/tasker.service
    sed 's#^ExecStart=[^ ]*#ExecStart=/bin/true#' tasker.service >"$unit"
    said=$(systemd-analyze verify "$unit" 2>&1) && [ -z "$said" ] || fails "tasker.service: $said"
    rm -r "$(dirname "$unit")"
    echo "tasker.service: systemd-analyze verify has nothing to say"
else
    echo "tasker.service: left out, systemd-analyze is not there"
fi

if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
elif command -v docker-compose >/dev/null; then
    compose=(docker-compose)
else
    echo "compose.yaml: left out, docker compose is not there"
    exit 0
fi
POSTGRES_PASSWORD=p TASKER_TOKEN=t TASKER_MASTER_KEY=k "${compose[@]}" -f compose.yaml config -q ||
    fails "compose.yaml: see above"
if env -u TASKER_TOKEN POSTGRES_PASSWORD=p TASKER_MASTER_KEY=k "${compose[@]}" -f compose.yaml config -q 2>/dev/null; then
    fails "compose.yaml starts without a token"
fi
echo "compose.yaml: ${compose[*]} config reads it, and asks for a token"
