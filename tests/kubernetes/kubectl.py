# SPDX-License-Identifier: Apache-2.0
#
# Renders folders of manifests with kubectl's kustomize.
import yaml

import facts
import packed_tools

FOLDER = facts.ROOT / "deploy/kubernetes"


def render(overlay):
    """Returns the objects that `kubectl kustomize` makes of one of the folders."""
    result = packed_tools.run("kubectl", "kustomize", FOLDER / overlay)
    if result.returncode != 0 or result.stderr:
        raise AssertionError(f"kubectl kustomize {overlay}: exit {result.returncode}\n{result.stderr}")
    return list(yaml.safe_load_all(result.stdout))
