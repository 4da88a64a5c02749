# shellcheck shell=bash
# Sourced by the scripts here and in ci/: results that are made once a machine, and the packages they need.
#
# A result is a directory $cache_root/NAME-KEY, where KEY is the hash of everything that went into it. It is made
# beside its place and renamed, so it is whole or absent, however many runs want it at once.

shopt -s inherit_errexit
cache_root=${XDG_CACHE_HOME:-${HOME:?}/.cache}/mote/linux

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$@"; exit 1; }
# This machine cannot have what is needed, through no fault of the product: tests that need it are skipped.
unavailable=77
die_unavailable() { say "$@"; exit "$unavailable"; }

# hash_of FILE_OR_WORD...: one short hash over the contents of the files and the other words themselves.
hash_of() {
    local item
    for item; do
        if [[ -f $item ]]; then sha256sum <"$item"; else printf '%s\n' "$item"; fi
    done | sha256sum | cut -c1-16
}

# cached NAME KEY COMMAND...: prints the directory NAME-KEY; where it is absent, runs `COMMAND... DIRECTORY` to fill it.
# A statement of its own (dir=$(cached ...), never under `if` or `||`), so that `set -e` ends the script when COMMAND fails.
cached() {
    local place=$cache_root/$1-$2
    shift 2
    if [[ ! -d $place ]]; then
        mkdir -p "$cache_root"
        (make_once "$place" "$@") >&2
    fi
    printf '%s\n' "$place"
}

# Runs in its own subshell: the lock ends with it, and the unfinished directory goes away with any failure.
make_once() {
    local place=$1
    shift
    exec {lock}>"$place.lock"
    flock "$lock"
    [[ ! -d $place ]] || return 0
    unfinished=$(mktemp -d "$place.XXXXXX")
    trap 'rm -rf "$unfinished"' EXIT
    chmod 755 "$unfinished"
    "$@" "$unfinished"
    mv -T "$unfinished" "$place"
}

# need_packages PACKAGE...: installs those Debian packages that are missing, or says which.
need_packages() {
    local installed missing=() package
    command -v dpkg-query >/dev/null || no_debian "$@"
    installed=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' "$@" 2>/dev/null || true)
    for package; do
        grep -qx "$package installed" <<<"$installed" || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    [[ $(id -u) == 0 ]] || die_unavailable "needs Debian packages; as root: apt-get install ${missing[*]}"
    say "installing ${missing[*]}"
    install_packages "${missing[@]}" || { apt-get -qq update >&2 && install_packages "${missing[@]}"; } ||
        die_unavailable "cannot install ${missing[*]}: is Debian's archive reachable?"
}

install_packages() {
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y "$@" >/dev/null
}

no_debian() {
    die_unavailable "needs what these packages of Debian hold: $*. There is no dpkg here: run it on Debian, or in its container."
}
