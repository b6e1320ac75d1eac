#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# perf_analyzer, the protocol's stock load generator, runs against every model without an error. What it measures does not
# matter here.
import os
import pathlib
import re
import subprocess
import sys
import sysconfig

import server_process
from server_process import ServerTest, skip

INPUTS = {"forward": ("e", "g"), "backward": ("DW", "e", "g")}
PROGRAM = pathlib.Path(sys.prefix, "bin", "perf_analyzer")
CUDA_RUNTIME = pathlib.Path(sysconfig.get_path("purelib"), "nvidia", "cuda_runtime", "lib")
ENVIRONMENT = {**os.environ, "LD_LIBRARY_PATH": str(CUDA_RUNTIME)}


def missing_libraries():
    """The shared libraries that the program needs and this machine lacks."""
    listed = subprocess.run(["ldd", PROGRAM], capture_output=True, text=True, check=True, env=ENVIRONMENT).stdout
    return re.findall(r"(\S+) => not found", listed)


class PerfAnalyzerTest(ServerTest):
    def setUp(self):
        if missing_libraries():
            skip(self, f"perf_analyzer needs {', '.join(missing_libraries())}; Debian's package is libb64-0d")

    def test_every_model_without_an_error(self):
        for op, inputs in INPUTS.items():
            for dtype in ("fp16", "bf16", "fp32"):
                model = f"swiglu_{op}_{dtype}"
                with self.subTest(model):
                    shapes = [f"--shape={name}:1,4,64" for name in inputs]
                    # Two windows at the least; any spread is stable enough.
                    result = server_process.run(
                        PROGRAM, "-i", "grpc", "-u", self.server.address, "-m", model, *shapes,
                        "--measurement-mode=count_windows", "--measurement-request-count=50", "-s", "999", env=ENVIRONMENT)
                    self.assertEqual(result.returncode, 0, result.stdout + result.stderr)
                    self.assertNotRegex(result.stdout + result.stderr, "(?i)error|failed")
                    self.assertRegex(result.stdout, r"Throughput: [1-9]")
                    self.assertGreater(self.server.metric("swiglu_requests_total", model=model, code="OK"), 50)


if __name__ == "__main__":
    server_process.main()
