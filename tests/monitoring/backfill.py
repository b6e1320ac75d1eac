# SPDX-License-Identifier: Apache-2.0
#
# A history for a Prometheus that has not seen one: series with chosen values, written as OpenMetrics and made into blocks by
# promtool.
import pathlib
import subprocess

STEP_S = 15


class History:
    """Samples every 15 s of series that begin at different times. Times are seconds before now; the samples go on for ten minutes
    after it, so that the time a test takes makes no difference."""

    def __init__(self, now):
        self._now = now
        self._samples = {}

    def add(self, name, labels, since_s, value, step_s=STEP_S):
        """Adds a series whose value is that of the function `value` of the seconds since its start."""
        text = ",".join(f'{label}="{told}"' for label, told in labels.items())
        self._samples.setdefault(name, []).append((text, since_s, value, step_s))

    def write(self, promtool, folder):
        """Makes blocks of everything in the folder `folder`/data."""
        path = pathlib.Path(folder) / "history.txt"
        with path.open("w") as file:
            for name, series in self._samples.items():
                file.write(f"# TYPE {name} unknown\n")
                for text, since_s, value, step_s in series:
                    for seconds in range(0, since_s + 600, step_s):
                        file.write(f"{name}{{{text}}} {value(seconds)!r} {self._now - since_s + seconds}\n")
            file.write("# EOF\n")
        result = subprocess.run([promtool, "tsdb", "create-blocks-from", "openmetrics", path, f"{folder}/data"],
                                capture_output=True, text=True, timeout=120)
        if result.returncode != 0:
            raise AssertionError(result.stdout + result.stderr)
