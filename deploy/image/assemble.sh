#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
#
# Gathers the files of the image in a new folder: the programs, every library they load (glibc and its loader among them),
# what NVIDIA's driver asks of glibc, the certificates of public authorities, users, licences, and the bill of materials of
# it all. Runs in the build stage of the Dockerfile.
set -euo pipefail

if [ $# -ne 2 ] || [ "$1" = --help ] || [ "$1" = -h ]; then
  echo "usage: deploy/image/assemble.sh BUILD FOLDER      takes the component \"service\" of the build BUILD into FOLDER"
  [ $# -ge 1 ] && [ "$1" != "${1#-}" ] && exit 0 || exit 2
fi
build=$1 root=$2
here=$(cd "$(dirname "$0")" && pwd)
multiarch=/usr/lib/x86_64-linux-gnu
mkdir "$root"

# 1. The folders of a Debian system that the loader and the NVIDIA container runtime know.
mkdir -p "$root$multiarch" "$root/usr/lib64" "$root/etc/ld.so.conf.d" "$root/etc/ssl/certs" "$root/usr/share/doc"
ln -s usr/lib "$root/lib"
ln -s usr/lib64 "$root/lib64"
cp "$here"/etc/* "$root/etc/"

# 2. The programs, and every library but glibc's.
cmake --install "$build" --component service --strip --prefix "$root/opt/swiglu" >"$build/install.log"

# 3. glibc: the loader, what our files load, and what libcuda.so.1 and libnvidia-ml.so.1 load.
loader=/lib64/ld-linux-x86-64.so.2
wanted=(libc.so.6 libm.so.6 libdl.so.2 libpthread.so.0 librt.so.1)
while read -r name; do wanted+=("$name"); done < <(
  LD_LIBRARY_PATH=$root/opt/swiglu/lib ldd "$root"/opt/swiglu/bin/* "$root"/opt/swiglu/lib/*.so* |
    sed -n "s|.* => \(/usr\)\{0,1\}/lib/x86_64-linux-gnu/\([^ ]*\) .*|\2|p" | sort -u)
for name in "${wanted[@]}"; do
  cp --dereference "$multiarch/$name" "$root$multiarch/$name"
done
cp --dereference "$loader" "$root$multiarch/$(basename "$loader")"
ln -s "../lib/x86_64-linux-gnu/$(basename "$loader")" "$root/usr/lib64/$(basename "$loader")"

# 4. The certificates as their package has them, not those that the build machine trusts besides.
find /usr/share/ca-certificates/mozilla -name '*.crt' -print0 | LC_ALL=C sort -z |
  xargs -0 cat >"$root/etc/ssl/certs/ca-certificates.crt"

# 5. The bill of materials, with the licences of the packages that it names.
python3 -B "$here/sbom.py" "$root" "$build"

chmod -R u=rwX,go=rX "$root"
echo "image: $(find "$root" -type f | wc -l) files, $(($(find "$root" -type f -printf '%s+')0)) bytes"
