# shellcheck shell=bash
# Sourced by the scripts that make file systems: what goes into them. Each function takes the new root as its first argument.
linux=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")

# What a test may ask for with modules=a,b: the dependencies are found and packed too. What a kernel has built in
# (ext4 in Debian's cloud kernel) is passed over.
# shellcheck disable=SC2034 # it is used where this is sourced
guest_modules=(
    virtio_mmio virtio_blk virtio_net virtio_balloon virtio_rng vmw_vsock_virtio_transport ext4 overlay
    pvpanic-mmio button evdev
)

# copy_modules ROOT KERNEL MODULE...: those modules, what they depend on, and an index of them.
copy_modules() {
    local root=$1 kernel=$2 release index file
    shift 2
    release=$(ls "$kernel/lib/modules")
    index=lib/modules/$release
    mkdir -p "$root/$index"
    modprobe -d "$kernel" -S "$release" --show-depends -a "$@" | sed -n 's/^insmod \([^ ]*\).*/\1/p' |
        sort -u | while read -r file; do
            install -Dm 644 "$file" "$root/${file#"$kernel/"}"
        done
    cp "$kernel/$index"/modules.{order,builtin} "$root/$index/"
    depmod -b "$root" "$release" 2>/dev/null
    # Of the indexes busybox reads the text, and of that what it needs.
    find "$root/$index" -name 'modules.*' ! -name modules.dep ! -name modules.alias ! -name modules.builtin -delete
}

# install_guest_init ROOT BUSYBOX INIT: busybox, process 1 at INIT, and what reports its status.
install_guest_init() {
    local root=$1 busybox=$2 init=$3
    mkdir -p "$root"/{bin,sbin,proc,sys,dev,tmp}
    install -m 755 "$busybox/bin/busybox" "$root/bin/busybox"
    ln -s busybox "$root/bin/sh"
    # What the kernel itself starts to load a module.
    ln -s ../bin/busybox "$root/sbin/modprobe"
    install -m 755 "$linux/initramfs/init" "$root$init"
    # Without the standard library: one page, which every boot of the test initramfs unpacks.
    rustc --edition 2024 -C opt-level=s -C panic=abort -C strip=symbols -C relocation-model=static \
        -C link-args='-nostdlib -static -no-pie -Wl,--build-id=none,-z,noseparate-code' \
        -o "$root/bin/report-status" "$linux/initramfs/report-status.rs"
}

# install_tool ROOT NAME: one of the programs in tools/, for the guest and its host alike, so a static one.
install_tool() {
    mkdir -p "$1/usr/bin"
    rustc --edition 2024 -C opt-level=2 -C panic=abort -C strip=symbols -C target-feature=+crt-static \
        -o "$1/usr/bin/$2" "$linux/tools/$2.rs"
}

# copy_programs ROOT FILE...: programs of this machine, with the libraries they are linked to.
copy_programs() {
    local root=$1 file
    shift
    for file; do ldd "$file"; done | sed -nE 's,^(.* => )?\s*(/[^ ]*) \(0x.*,\2,p' | sort -u | cat - <(printf '%s\n' "$@") |
        while read -r file; do
            install -D "$(readlink -f -- "$file")" "$root$file"
        done
}
