#!/usr/bin/env bash
# Three containers, a replica set and the carrier simulator on this machine, under faults of every kind; at the end every
# promise is judged. Arguments go to `ringmaster chaos`, such as --minutes N and --seed S; see its --help.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

need_toolchain
MONGOD=$("$ROOT/scripts/mongod.sh")
cargo build --locked --release
exec "${CARGO_TARGET_DIR:-target}/release/ringmaster" chaos --mongod "$MONGOD" "$@"
