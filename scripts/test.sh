#!/usr/bin/env bash
# Everything that CI runs: format, lints, documentation, dependencies, and all tests against a real MongoDB.
#
#   scripts/test.sh                everything
#   scripts/test.sh ARGUMENT...    only the tests; the arguments go to the test runner, e.g. a part of the tests' names
#
# One MongoDB server serves the whole run, unless TEST_MONGODB_URI names one. It dies with this script.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$ROOT"

# step COMMAND...: says what it does, and does it.
step() {
    note "> $*"
    "$@"
}

# free_port: prints a loopback port that nobody listens on, below those that outgoing connections get.
free_port() {
    local port
    while :; do
        port=$((20000 + RANDOM % 12000))
        listens "$port" || break
    done
    echo "$port"
}

# listens PORT
listens() {
    (: <"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# guard PORT FOLDER: runs the server; prints its process id; kills it and removes the folder when standard input closes,
# which it does when this script ends, however it ends.
guard() {
    # The limits of memory and disk are those of the embedded server. The last options give the tests fail points, and let
    # the server give up a dead process's transaction in 10 s instead of 60.
    "$MONGOD" --replSet rs0 --dbpath "$2" --port "$1" --bind_ip 127.0.0.1 --nounixsocket \
        --wiredTigerCacheSizeGB 0.25 --oplogSize 512 --setParameter diagnosticDataCollectionEnabled=false \
        --setParameter enableTestCommands=1 --setParameter transactionLifetimeLimitSeconds=10 </dev/null >"$2/mongod.log" 2>&1 &
    echo $!
    trap '' HUP INT TERM
    read -r || true
    # Its data are thrown away, so it need not shut down; the shell's word about the killed job is of no interest.
    kill -KILL $! 2>/dev/null || true
    wait $! 2>/dev/null || true
    rm -rf "$2"
}

# start_mongod: starts the server and exports its address. It has no replica-set configuration yet: the tests give it
# one, since bash does not speak MongoDB's protocol.
start_mongod() {
    local port folder server
    port=$(free_port)
    folder=$(mktemp -d "${TMPDIR:-/tmp}/ringmaster-test.XXXXXX")
    # The shell keeps its ends of a coprocess's pipes from every other child, so that only this script holds the guard.
    coproc GUARD { guard "$port" "$folder"; }
    leash=${GUARD[1]}
    guard_process=$GUARD_PID
    trap stop_mongod EXIT
    read -r server <&"${GUARD[0]}"
    until listens "$port"; do
        kill -0 "$server" 2>/dev/null || die "mongod did not start: $(grep -v '"s":"I"' "$folder/mongod.log" | tail -n 5)"
        sleep 0.1
    done
    export TEST_MONGODB_URI="mongodb://127.0.0.1:$port/?replicaSet=rs0"
}

stop_mongod() {
    exec {leash}>&-
    wait "$guard_process" || true
}

need_toolchain

if [ $# -eq 0 ]; then
    step cargo fmt --check
    step cargo clippy --locked --all-targets --all-features -- -D warnings
    # As it ships: without what only tests have.
    step cargo clippy --locked -- -D warnings
    RUSTDOCFLAGS=-Dwarnings step cargo doc --locked --all-features --no-deps --document-private-items
    if cargo deny --version >/dev/null 2>&1; then
        step cargo deny --offline check bans licenses sources
    else
        note "> cargo-deny is not installed: dependencies are not checked"
    fi
fi

# The tests of wrong clocks fake one with it.
compgen -G "/usr/lib/*/faketime/libfaketimeMT.so.1" >/dev/null || apt_install faketime ||
    note "faketime cannot be installed here: the tests in tests/it/clocks.rs will fail. Debian: apt-get install faketime"

MONGOD=$("$ROOT/scripts/mongod.sh")
export MONGOD
[ -n "${TEST_MONGODB_URI:-}" ] || start_mongod

# Last, so that the runner's closing lines close the output.
if cargo nextest --version >/dev/null 2>&1; then
    step cargo nextest run --locked "$@"
else
    step cargo test --locked "$@"
fi
