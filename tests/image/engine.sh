#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# A container engine without a daemon, for the tests of the image: buildah, podman and crun on a store of its own, in
# private mount and network namespaces, so that nothing of it stays on the machine.
#
#   engine.sh prepare FOLDER              makes the store in FOLDER, with an image of Debian 12; exit code 77 where it cannot
#   engine.sh build FOLDER COMMAND...     runs COMMAND with the engine at hand and the machine's network
#   engine.sh run FOLDER COMMAND...       runs COMMAND with the engine at hand and a network of its own
set -euo pipefail
what=$1
mkdir -p "$2"
folder=$(cd "$2" && pwd)
shift 2

# The name that the Dockerfile asks for, so that the README's commands find it.
base=docker.io/library/debian:bookworm-slim

skip() {
  echo "skipped: $1"
  exit 77
}

# Writes the engine's settings. Limits and control groups stay the machine's: a machine may itself be a container.
write_settings() {
  cat >"$folder/containers.conf" <<TEXT
[containers]
cgroups = "disabled"
default_ulimits = ["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun"
tmp_dir = "$folder/run/libpod"
[network]
network_backend = "netavark"
network_config_dir = "$folder/networks"
TEXT
  cat >"$folder/storage.conf" <<TEXT
[storage]
driver = "overlay"
graphroot = "$folder/store"
runroot = "$folder/run"
TEXT
}

# Debian 12 as its own images are: the smallest variant, and dpkg that neither waits for the disk nor keeps what it unpacked.
# Of this machine it has the mirror, where it names one, and the authorities that it trusts, so that packages can be fetched from inside.
make_base() {
  local mirror
  mirror=$(sed -n 's|^URIs: *\(http[^ ]*/debian\)/* *$|\1|p; s|^deb  *\(http[^ ]*/debian\)/*  *bookworm .*|\1|p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1 || true)
  mmdebstrap --quiet --variant=minbase --include=ca-certificates --dpkgopt=force-unsafe-io \
    --customize-hook='echo "DPkg::Post-Invoke { \"rm -f /var/cache/apt/archives/*.deb\"; };" >"$1/etc/apt/apt.conf.d/clean"' \
    --customize-hook="copy-in /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs" \
    bookworm "$folder/base.tar" ${mirror:+"$mirror"} >"$folder/base.log" 2>&1 ||
    skip "mmdebstrap failed: $(tail -n 1 "$folder/base.log")"
  with_engine podman import --quiet --change ENV=PIP_CERT=/etc/ssl/certs/ca-certificates.crt "$folder/base.tar" "$base" \
    >"$folder/import.log" 2>&1 || skip "podman import failed: $(tail -n 1 "$folder/import.log")"
  rm "$folder/base.tar"
}

# Runs a command where podman finds a control group tree of the one kind that it takes.
with_engine() {
  CONTAINERS_CONF=$folder/containers.conf CONTAINERS_STORAGE_CONF=$folder/storage.conf TMPDIR=$folder/tmp \
    BUILDAH_ISOLATION=chroot DISABLE_HC_SYSTEMD=true unshare "${namespaces[@]}" --propagation private sh -c '
      set -e
      umount -R /sys/fs/cgroup
      mount -t cgroup2 none /sys/fs/cgroup
      # What runs ends with the namespace, so the next one starts as after a boot.
      mount -t tmpfs none "$1"
      mkdir -p /run/netns
      mount -t tmpfs none /run/netns
      ip link set lo up
      shift
      exec "$@"' sh "$folder/run" "$@"
}
namespaces=(--mount)
mkdir -p "$folder/tmp" "$folder/run"

case "$what" in
  prepare)
    for tool in buildah podman crun mmdebstrap; do
      command -v "$tool" >/dev/null || skip "no $tool; deploy/setup.sh image installs it"
    done
    [ "$(id -u)" = 0 ] || skip "the engine needs root"
    write_settings
    with_engine podman info >"$folder/info.log" 2>&1 || skip "podman does not run here: $(tail -n 1 "$folder/info.log")"
    with_engine podman image exists "$base" || make_base
    ;;
  build)
    with_engine true 2>"$folder/probe.log" || skip "the engine does not run here: $(tail -n 1 "$folder/probe.log")"
    with_engine "$@"
    ;;
  run)
    namespaces=(--mount --net)
    if [ ! -f "$folder/containers.conf" ] || ! with_engine podman image exists localhost/swiglu; then skip "there is no image"; fi
    with_engine "$@"
    ;;
  *) exit 2 ;;
esac
