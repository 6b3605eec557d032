#!/usr/bin/env bash
# Three containers, a replica set and the carrier simulator on this machine, under faults of every kind; at the end every
# promise is judged. Arguments go to `ringmaster chaos`, such as --minutes N and --seed S; see its --help.
# With --full-disk as the first one the database lives on a small disk of its own, which is filled up again and again.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

need_toolchain
MONGOD=$("$ROOT/scripts/mongod.sh")
cargo build --locked --release
RINGMASTER=${CARGO_TARGET_DIR:-target}/release/ringmaster
if [[ ${1:-} == --full-disk ]]; then
    shift
    small=$(mktemp -d)
    trap 'rmdir "$small"' EXIT
    # In a name space of its own, so that nobody has to be root, and the disk is gone when the run is over.
    unshare --user --map-root-user --mount sh -c \
        'mount -t tmpfs -o size=1g small "$0" && exec "$@"' "$small" \
        "$RINGMASTER" chaos --mongod "$MONGOD" --full-disk "$small" "$@"
else
    exec "$RINGMASTER" chaos --mongod "$MONGOD" "$@"
fi
