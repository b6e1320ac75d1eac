#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# tests/bench/plot_bench.py draws what swiglu-bench writes.
import pathlib
import subprocess
import sys
import tempfile

import server_process
from server_process import ServerTest

SCRIPT = pathlib.Path(__file__).parents[1] / "bench" / "plot_bench.py"


class PlotTest(ServerTest):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def bench(self, *flags):
        """Runs a short load and returns what it prints."""
        result = server_process.run(server_process.BENCH, f"--server={self.server.address}", "--requests=50", "--warm_up=0", *flags)
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return result.stdout

    def draw(self, *files):
        """Draws files, and checks that a picture comes out."""
        picture = self.folder / "picture.png"
        result = subprocess.run([sys.executable, "-B", SCRIPT, picture, *files], capture_output=True, text=True, check=False)
        self.assertEqual((result.returncode, result.stdout), (0, ""), result.stderr)
        self.assertEqual(picture.read_bytes()[:8], b"\x89PNG\r\n\x1a\n")

    def test_histograms(self):
        files = [self.folder / name for name in ("one.hdr", "other.hdr")]
        for file in files:
            self.bench(f"--histogram={file}")
        self.draw(*files)

    def test_sweeps(self):
        file = self.folder / "sweep.json"
        file.write_text(self.bench("--sweep=1KiB,16KiB", "--json"))
        self.draw(file)

    def test_a_histogram_of_nothing_is_named(self):
        empty = self.folder / "empty.hdr"
        empty.write_text("Value Percentile TotalCount 1/(1-Percentile)\n\n#[Mean = 0]\n")
        result = subprocess.run([sys.executable, "-B", SCRIPT, self.folder / "picture.png", empty], capture_output=True, text=True,
                                check=False)
        self.assertEqual((result.returncode, result.stderr), (1, "plot_bench.py: empty has no latencies\n"))


if __name__ == "__main__":
    server_process.main()
