#!/usr/bin/env bash
# Attacks the API with what its own document allows and forbids: schemathesis, with all checks, against a real
# `ringmaster serve` on a throw-away MongoDB with the carrier simulator. Everything listens on loopback and dies with this.
#
#   scripts/schemathesis.sh [--examples N] [--seed S] [--minutes N] [ARGUMENT...]
#
# The seed is printed: a run can be repeated with it. Further arguments go to `schemathesis run`, e.g.
# --include-path=/v1/campaigns. The exit code is 0 when nothing was found.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

# Pinned: another version makes other requests of the same seed.
PACKAGES=(schemathesis==4.32.5 pymongo==4.20.1)

need_toolchain
need python3 "python3 is missing: install Python 3.10 or newer (Debian: apt-get install python3-venv)."

environment="$ROOT/.ringmaster/schemathesis"
if [ "$(cat "$environment/packages" 2>/dev/null)" != "${PACKAGES[*]}" ]; then
    note "installing ${PACKAGES[*]}"
    python3 -m venv --clear "$environment"
    "$environment/bin/pip" install --quiet --disable-pip-version-check "${PACKAGES[@]}"
    echo "${PACKAGES[*]}" >"$environment/packages"
fi

MONGOD=$("$ROOT/scripts/mongod.sh")
export MONGOD
cargo build --locked
exec "$environment/bin/python" "$ROOT/scripts/schemathesis/run.py" "$@"
