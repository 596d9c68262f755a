#!/usr/bin/env bash
# Makes a fresh checkout ready: system packages that the lab needs, a virtual environment in .venv with the
# locked dependencies, and swarmpy itself (editable). Running it again when all is there takes no time.
# With the word `qemu` it installs instead what `python -m tests.qemu` needs beside that: a virtual machine.
#
# What belongs here: installing. What does not: running anything of swarmpy.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/sbin:/sbin"

say() { printf 'setup: %s\n' "$*"; }
warn() { printf 'setup: %s\n' "$*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }

# ---------------------------------------------------------------- system packages (Debian, Ubuntu)

# A program is asked for, not its package: an Engine from elsewhere (docker-ce, say) is as good.
missing_packages() {
    local pair
    for pair in dockerd:docker.io containerd:containerd runc:runc docker-registry:docker-registry \
        ip:iproute2 nft:nftables iptables:iptables modprobe:kmod \
        nsenter:util-linux setsid:util-linux ps:procps; do
        has "${pair%%:*}" || echo "${pair##*:}"
    done
    # a kernel of its own for tests; Debian builds it for this machine type only
    if [ "$(uname -m)" = x86_64 ]; then has linux.uml || echo user-mode-linux; fi
    has mkfs.ext4 || echo e2fsprogs # its power is cut while it writes to a disk of its own
    # It needs a helper on processors with AMX: tests/uml/registers.c
    if grep -qw amx_tile /proc/cpuinfo; then has cc || printf '%s\n' gcc libc6-dev; fi
    static_busybox || echo busybox-static
    has_library libnftables.so.1 || echo libnftables1
    if grep -qs Y /sys/module/apparmor/parameters/enabled && ! has apparmor_parser; then
        echo apparmor
    fi
}

# For machines with a kernel of their own, which few need: 25 MB that `make setup` leaves out.
missing_for_qemu() {
    local pair
    for pair in qemu-system-x86_64:qemu-system-x86 debootstrap:debootstrap mke2fs:e2fsprogs \
        ssh:openssh-client ssh-keygen:openssh-client; do
        has "${pair%%:*}" || echo "${pair##*:}"
    done
}

# A library is asked for by its name too. ldconfig knows where this machine keeps libraries.
has_library() {
    ldconfig -p 2>/dev/null | grep "^[[:space:]]*$1 " >/dev/null
}

# A dynamic busybox cannot run in an image that holds nothing else. ldd fails on a static program.
static_busybox() {
    has busybox && ! ldd "$(command -v busybox)" >/dev/null 2>&1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

can_install() {
    has apt-get && { [ "$(id -u)" = 0 ] || { has sudo && sudo -n true 2>/dev/null; }; }
}

# Debian starts and enables what it installs. The lab runs its own engines and registry, so nothing that is
# installed here needs to run on this machine by itself.
apt_install() {
    local policy=/usr/sbin/policy-rc.d blocked="" package status=0
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
        blocked=1
    fi
    { as_root apt-get update -qq || true; } 2>&1 | sed 's/^/setup:   /'
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" \
        </dev/null 2>&1 | sed 's/^/setup:   /' || status=1
    if [ -n "$blocked" ]; then as_root rm -f "$policy"; fi
    if has systemctl; then
        for package in "$@"; do
            case "$package" in
            docker.io) as_root systemctl disable --quiet docker.service docker.socket || true ;;
            docker-registry) as_root systemctl disable --quiet docker-registry.service || true ;;
            esac
        done
    fi
    return "$status"
}

install_packages() {
    local wanted
    wanted=$(missing_packages | sort -u | tr '\n' ' ')
    if [ -z "$wanted" ]; then return 0; fi
    if ! can_install; then
        warn "the lab needs these packages, and they cannot be installed here (not root, or no apt-get): $wanted"
        warn "  without them all but the lab and its tests works; as root: apt-get install $wanted"
        return 0
    fi
    say "installing $wanted(installed, but not started: the lab runs its own)"
    # shellcheck disable=SC2086 # package names are words
    if ! apt_install $wanted; then
        warn "apt-get could not install all of: $wanted"
        warn "  its own words are above; the lab will name what it still misses"
    fi
}

install_for_qemu() {
    local wanted
    wanted=$(missing_for_qemu | sort -u | tr '\n' ' ')
    if [ -z "$wanted" ]; then return 0; fi
    if ! can_install; then
        warn "the virtual machine needs these packages, and they cannot be installed here (not root, or no apt-get):"
        warn "  as root: apt-get install --no-install-recommends $wanted"
        exit 1
    fi
    say "installing $wanted"
    # shellcheck disable=SC2086 # package names are words
    if ! apt_install $wanted; then
        warn "apt-get could not install all of: $wanted; its own words are above"
        exit 1
    fi
}

# ---------------------------------------------------------------- Python

# 3.11 or newer, able to make a virtual environment with pip inside.
suitable() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    local name
    for name in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if has "$name" && suitable "$name"; then
            command -v "$name"
            return 0
        fi
    done
    return 1
}

need_python() {
    if find_python >/dev/null; then return 0; fi
    if can_install; then
        say "installing Python with its venv module"
        apt_install python3 python3-venv || true
        find_python >/dev/null || apt_install python3.11 python3.11-venv || true
    fi
    if ! find_python >/dev/null; then
        warn "no Python 3.11 or newer with the venv module was found, and none could be installed."
        warn "  on Debian or Ubuntu: apt-get install python3 python3-venv (or python3.11 python3.11-venv);"
        warn "  or name one yourself: make setup PYTHON=/path/to/python3.12"
        exit 1
    fi
}

# The stamp holds what was installed from: when that is unchanged, there is nothing to do.
fingerprint() {
    cat requirements.lock pyproject.toml tools/setup.sh | sha256sum | cut -d' ' -f1
    pwd
}

install_python() {
    if [ -x .venv/bin/swarmpy ] && [ "$(cat .venv/setup-stamp 2>/dev/null)" = "$(fingerprint)" ]; then
        return 0
    fi
    if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
        need_python
        say "making .venv with $(find_python)"
        rm -rf .venv
        "$(find_python)" -m venv .venv
    fi
    say "installing the locked Python packages (about 15 seconds on a good connection)"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input \
        --require-hashes -r requirements.lock
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps -e .
    fingerprint >.venv/setup-stamp
    say "done: .venv/bin/swarmpy is ready"
}

if [ "${1:-}" = qemu ]; then
    install_for_qemu
else
    install_packages
    install_python
fi
