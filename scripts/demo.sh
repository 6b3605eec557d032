#!/usr/bin/env bash
# The whole system on this machine, without an account anywhere: an embedded MongoDB, the carrier simulator and the
# server, running a campaign of examples/contacts.csv. Arguments go to `ringmaster demo`; see its --help.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

need_toolchain
MONGOD=$("$ROOT/scripts/mongod.sh")
export MONGOD
cargo build --locked --release
exec "${CARGO_TARGET_DIR:-target}/release/ringmaster" demo --mongod "$MONGOD" --contacts examples/contacts.csv "$@"
