# SPDX-License-Identifier: Apache-2.0
#
# Where a test's Prometheus and promtool come from.
import pathlib
import subprocess
import sys

FETCH = pathlib.Path(__file__).resolve().parents[1] / "metrics/fetch_prometheus.sh"
SKIPPED = 77


def fetch(folder):
    """Puts both programs into `folder`, if they are not there; returns their paths. Ends the test where they cannot be had."""
    result = subprocess.run([FETCH, folder], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=280)
    print(result.stdout, end="", flush=True)
    if result.returncode == SKIPPED:
        sys.exit(SKIPPED)
    result.check_returncode()
    return pathlib.Path(folder) / "prometheus", pathlib.Path(folder) / "promtool"
