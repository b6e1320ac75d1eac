#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Boots the systemd of a root folder as a machine of its own: boot.sh ROOT. Runs as the first process of new namespaces of
# mounts, processes, network, host name, IPC and control groups, and makes what a container engine would make.
set -euo pipefail
root=$1

# 1. What a kernel offers, and a few devices.
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for folder in dev run tmp; do mount -t tmpfs tmpfs "$root/$folder"; done
for device in null:3 zero:5 full:7 random:8 urandom:9; do
  mknod --mode=0666 "$root/dev/${device%:*}" c 1 "${device#*:}"
done
mknod --mode=0666 "$root/dev/tty" c 5 0
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ip link set lo up

# 2. The folder becomes the root, and nothing of the host is left in sight.
cd "$root"
pivot_root . mnt
umount -l mnt
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=journal --show-status=no
