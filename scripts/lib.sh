# shellcheck shell=bash
# Shared by the scripts of this folder; to be sourced. Works in bash 5.

# The repository's root, whatever folder the script was called from.
# shellcheck disable=SC2034 # the scripts that source this one use it
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# note TEXT...: a line for the person who watches, never on standard output, which some scripts use for their answer.
note() {
    printf '%s\n' "$*" >&2
}

# die TEXT...: says why and stops.
die() {
    note "${0##*/}: $*"
    exit 1
}

# need COMMAND SENTENCE: stops with the sentence where the command is missing.
need() {
    command -v "$1" >/dev/null 2>&1 || die "$2"
}

# need_toolchain: everything that building the crate takes.
need_toolchain() {
    need cargo "cargo is missing: install Rust 1.95 or newer (rustup is the usual way) and put cargo on the PATH."
    local compiler=${CC:-cc}
    need "${compiler%% *}" "no C compiler: the TLS library is built from C. Install one (Debian: apt-get install gcc libc6-dev)."
}

# as_root COMMAND...: runs it as root, through sudo where we are somebody else; fails where neither is possible.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        # Without a terminal sudo must not wait for a password that nobody can type.
        if [ -t 0 ]; then sudo "$@"; else sudo -n "$@"; fi
    else
        return 1
    fi
}

# apt_install PACKAGE...: installs Debian packages; the lists of a bare machine are empty or old, hence the second try.
apt_install() {
    command -v apt-get >/dev/null 2>&1 || return 1
    note "installing $*"
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@")
    as_root "${install[@]}" >&2 || { as_root apt-get update -q >&2 && as_root "${install[@]}" >&2; }
}
