# shellcheck shell=bash
# Sourced by ci/io-cost, ci/perf-gate and ci/perf-planted: what counts instructions, and what causes them.

# build_load DIRECTORY: makes the plugin for QEMU, libinstructions.so, there. Sets $load_files, the options of ci/testbed
# that take io-load to the nested host, and to its guests as a piece of initramfs.
build_load() {
    local into=$1 here
    here=$(dirname -- "${BASH_SOURCE[0]}")
    local compile=(rustc --edition 2024 -C opt-level=3 -C panic=abort -C strip=symbols --out-dir "$into")
    need_packages cpio gcc libc6-dev
    "${compile[@]}" --crate-type cdylib "$here/instructions.rs"
    # A place of its own, by which the plugin knows it on the host.
    "${compile[@]}" -C target-feature=+crt-static -C relocation-model=static -C link-arg=-Wl,--image-base=0x10000000 \
        "$here/io-load.rs"
    mkdir "$into/bin"
    ln "$into/io-load" "$into/bin/io-load"
    (cd "$into" && printf 'bin/io-load' | cpio --quiet --create --format=newc --owner=0:0) >"$into/io-load.cpio"
    # shellcheck disable=SC2034 # the scripts use it
    load_files=(--file "$here/io-tasks:/testbed/io-tasks" --file "$into/io-load.cpio:/testbed/io-load.cpio"
        --file "$into/io-load:/usr/bin/io-load")
}

# count_in_testbed DIRECTORY ARGUMENTS OPTION...: runs ci/testbed with what build_load has made there. The counts go to
# DIRECTORY/counts; ARGUMENTS are more of the plugin's, each with a comma before it. Standard input is how the plugin says
# that a guest stands still.
count_in_testbed() {
    local into=$1 arguments=$2 stalls status=0
    shift 2
    rm -f "$into/counts" "$into/stalls"
    mkfifo "$into/stalls"
    # For both directions: neither end waits for the other.
    exec {stalls}<>"$into/stalls"
    # shellcheck disable=SC2154 # the scripts' own
    "$top/ci/testbed" --icount --plugin "$into/libinstructions.so,out=$into/counts,stalled=$into/stalls$arguments" \
        "${load_files[@]}" "$@" <&"$stalls" || status=$?
    exec {stalls}<&-
    return "$status"
}

# build_mote TREE FILE: the release build of that work tree. All trees share a folder for what they have in common, so one
# is built at a time. A subshell, whose lock ends with it.
build_mote() (
    # shellcheck disable=SC2154 # cache.sh's
    target=$cache_root/perf-gate-target
    mkdir -p "$target"
    exec {lock}>"$target/mote.lock"
    flock "$lock"
    cd "$1" || exit
    CARGO_TARGET_DIR=$target cargo build --quiet --release --bin mote
    cp "$target/x86_64-unknown-linux-gnu/release/mote" "$2"
)
