#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Makes the wheel of the Python client: `wheel.py PACKAGE VERSION FOLDER` takes the folder of the package with its extension
# module, unpacks the wheel into FOLDER/unpacked, and packs it into FOLDER. Every shared library that the module needs comes with it,
# but for those of glibc and of the compiler. The bundled libraries have names of their own, so that they are found beside each other
# and are never taken for those of the machine. The same files give the same bytes. Needs patchelf and binutils.
import base64
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
NAME = "swiglu_client"
LIBRARIES = f"{NAME}.libs"
# What comes with every machine that has the glibc which the wheel's name demands.
OF_THE_MACHINE = re.compile(r"(ld-linux-x86-64|libanl|libc|libdl|libgcc_s|libm|libmvec|libpthread|libresolv|librt|libstdc\+\+|libutil)\.so")
METADATA = """\
Metadata-Version: 2.4
Name: swiglu-client
Version: {version}
Summary: Client of swiglu-server: SwiGLU forward and backward, and whole MLPs
License-Expression: Apache-2.0
{licenses}Requires-Python: >={python}
Requires-Dist: numpy>=1.22
Provides-Extra: bf16
Requires-Dist: ml-dtypes; extra == "bf16"
Provides-Extra: torch
Requires-Dist: torch>=1.13; extra == "torch"
Description-Content-Type: text/markdown

{description}"""
WHEEL = """\
Wheel-Version: 1.0
Generator: swiglu
Root-Is-Purelib: false
Tag: {tag}
"""


def run(*command):
    """Runs a program and returns what it printed."""
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def needed(path):
    """The names of the libraries that a file names."""
    return re.findall(r"\(NEEDED\).*\[(.+)\]", run("readelf", "--dynamic", "--wide", str(path)))


def found(path):
    """Where the dynamic linker finds each library that a file needs, by name."""
    places = {}
    for line in run("ldd", str(path)).splitlines():
        match = re.match(r"\s*(\S+) => (.*?)(?: \(0x[0-9a-f]+\))?$", line)
        if match:
            if match.group(2) == "not found":
                sys.exit(f"wheel: {match.group(1)} is not there")
            places[match.group(1)] = os.path.realpath(match.group(2))
    return {name: place for name, place in places.items() if not OF_THE_MACHINE.match(name)}


def own_name(name, place):
    """A name that no library of the machine has: libz.so.1 becomes libz-0123abcd.so.1."""
    digest = hashlib.sha256(pathlib.Path(place).read_bytes()).hexdigest()[:8]
    stem, dot, rest = name.partition(".so")
    return f"{stem}-{digest}{dot}{rest}"


def bundle(module, folder):
    """Copies the libraries that the module needs into the folder, and makes all of them find each other. Returns where from."""
    places = found(module)
    names = {name: own_name(name, place) for name, place in places.items()}
    folder.mkdir()
    for name, place in places.items():
        shutil.copyfile(place, folder / names[name])
    run("strip", "--strip-unneeded", str(module))
    for path, rpath in [(module, f"$ORIGIN/../{LIBRARIES}"), *((folder / name, "$ORIGIN") for name in names.values())]:
        renamed = [argument for name in needed(path) if name in names for argument in ("--replace-needed", name, names[name])]
        # One kind of change at a time: patchelf 0.14 mixes up the texts of several.
        for change in (renamed, [] if path == module else ["--set-soname", path.name], ["--set-rpath", rpath]):
            if change:
                run("patchelf", *change, str(path))
    return sorted(places.values())


def package_of(place):
    """The package of the distribution that a file is from. Packages name files of /usr/lib also by /lib."""
    for path in (place, place.removeprefix("/usr")):
        result = subprocess.run(["dpkg-query", "--search", path], capture_output=True, text=True, check=False)
        if result.returncode == 0:
            return result.stdout.split(":")[0]
    return sys.exit(f"wheel: {place} is of no package, so its licence is not known")


def copy_licenses(places, folder):
    """Copies the project's licence, and those of the packages that the libraries are from."""
    folder.mkdir()
    shutil.copyfile(ROOT / "LICENSE", folder / "LICENSE")
    for package in sorted({package_of(place) for place in places}):
        shutil.copyfile(f"/usr/share/doc/{package}/copyright", folder / f"{package}.txt")


def newest_glibc(paths):
    """The newest version of glibc that any of the files asks for, as (2, 36)."""
    text = "".join(run("objdump", "--dynamic-syms", str(path)) for path in paths)
    return max((int(major), int(minor)) for major, minor in re.findall(r"GLIBC_(\d+)\.(\d+)", text))


def record(root, own):
    """The list of all files with their hashes."""
    lines = []
    for path in sorted(path for path in root.rglob("*") if path.is_file()):
        digest = base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
        lines.append(f"{path.relative_to(root)},sha256={digest},{path.stat().st_size}\n")
    return "".join(lines) + f"{own.relative_to(root)},,\n"


def pack(root, wheel):
    """Packs a folder. The files of the package's description come last."""
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((path for path in root.rglob("*") if path.is_file()), key=lambda path: (".dist-info" in str(path), path)):
            entry = zipfile.ZipInfo(str(path.relative_to(root)), (2020, 1, 1, 0, 0, 0))
            entry.external_attr = (0o100755 if ".so" in path.name else 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())


def main(package, version, folder):
    package, folder = pathlib.Path(package), pathlib.Path(folder)
    shutil.rmtree(folder, ignore_errors=True)
    root = folder / "unpacked"
    shutil.copytree(package, root / "swiglu", ignore=shutil.ignore_patterns("__pycache__"))
    [module] = (root / "swiglu").glob("_core.*.so")
    places = bundle(module, root / LIBRARIES)

    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    glibc = newest_glibc([module, *(root / LIBRARIES).iterdir()])
    machine = sysconfig.get_platform().rpartition("-")[2]
    tag = f"{python}-{python}-manylinux_{glibc[0]}_{glibc[1]}_{machine}"
    info = root / f"{NAME}-{version}.dist-info"
    info.mkdir()
    copy_licenses(places, info / "licenses")
    licenses = "".join(f"License-File: {path.name}\n" for path in sorted((info / "licenses").iterdir()))
    description = (ROOT / "client/python/README.md").read_text(encoding="utf-8")
    (info / "METADATA").write_text(METADATA.format(version=version, licenses=licenses, description=description,
                                                   python=".".join(map(str, sys.version_info[:2]))), encoding="utf-8")
    (info / "WHEEL").write_text(WHEEL.format(tag=tag), encoding="utf-8")
    (info / "RECORD").write_text(record(root, info / "RECORD"), encoding="utf-8")
    wheel = folder / f"{NAME}-{version}-{tag}.whl"
    pack(root, wheel)
    print(f"{wheel.name}: {len(places)} libraries, {wheel.stat().st_size >> 10} KiB")


if __name__ == "__main__":
    main(*sys.argv[1:])
