#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Runs the image as an operator should: nothing writable, no capability, no new privileges, an ordinary user; and sees it
# serve, answer its health check, find the driver's libraries where container runtimes put them, and stop.
# run_test.py --bench=PROGRAM
import pathlib
import subprocess
import sys
import tempfile
import unittest

import engine_process
from engine_process import HARDENED, Container, podman

BENCH = ""


class RunTest(unittest.TestCase):
    def test_a_hardened_container_serves_and_stops(self):
        with Container("hardened", *HARDENED, "--publish=127.0.0.1:8001:8001", "swiglu") as container:
            engine_process.wait_until_healthy(container.name)
            load = engine_process.run(BENCH, "--server=127.0.0.1:8001", "--requests=10", "--warm_up=0")
            self.assertEqual(load.returncode, 0, load.stdout + load.stderr)
            podman("exec", container.name, "swiglu", "status")
            podman("stop", container.name)
            state = engine_process.inspect("container", container.name)["State"]
            self.assertEqual(state["ExitCode"], 0, engine_process.logs(container.name))

    def test_the_process_may_do_nothing(self):
        with Container("confined", *HARDENED, "swiglu") as container:
            engine_process.wait_until_healthy(container.name)
            process = pathlib.Path("/proc", str(engine_process.inspect("container", container.name)["State"]["Pid"]))
            status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
            self.assertEqual(status["Uid"].split(), ["65532"] * 4)
            self.assertEqual(status["Gid"].split(), ["65532"] * 4)
            self.assertEqual({status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}, {"0" * 16})
            self.assertEqual(status["NoNewPrivs"], "1")
            self.assertEqual(status["Seccomp"], "2")
            root = next(fields for fields in map(str.split, (process / "mountinfo").read_text().splitlines()) if fields[4] == "/")
            self.assertIn("ro", root[5].split(","))

    def test_the_health_check_fails_where_nothing_serves(self):
        with Container("deaf", *HARDENED, "swiglu", "--grpc_address=127.0.0.1:9001") as container:
            self.assertEqual(engine_process.run("podman", "healthcheck", "run", container.name).returncode, 1)

    def test_a_driver_is_found_in_every_folder_that_runtimes_use(self):
        if "cuda none" in podman("run", "--rm", "swiglu", "--version"):
            print("skipped: the image is built without CUDA", flush=True)
            self.skipTest("no CUDA")
        with tempfile.TemporaryDirectory() as folder:
            library = self._fake_driver(folder)
            for place in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/local/nvidia/lib64"):
                done = engine_process.run("podman", "run", "--rm", *HARDENED, f"--volume={library}:{place}/libcuda.so.1:ro",
                                          "swiglu", "--device=cuda")
                self.assertIn("this driver is a fake", done.stderr, place)
                self.assertEqual(done.returncode, 1, done.stderr)
        without = engine_process.run("podman", "run", "--rm", *HARDENED, "swiglu", "--device=cuda")
        self.assertEqual(without.returncode, 1)
        self.assertNotIn("fake", without.stderr)

    @staticmethod
    def _fake_driver(folder):
        """Builds a library that says that it was loaded, and that needs of glibc what NVIDIA's driver needs."""
        source, library = pathlib.Path(folder, "fake.c"), pathlib.Path(folder, "libcuda.so.1")
        source.write_text("""
            #include <stdio.h>
            __attribute__((constructor)) static void Loaded(void) { fputs("this driver is a fake\\n", stderr); }
        """)
        needed = [f"-l:{name}" for name in ("libdl.so.2", "libpthread.so.0", "librt.so.1", "libm.so.6")]
        subprocess.run(["cc", "-shared", "-fPIC", str(source), "-o", str(library), "-Wl,--no-as-needed", *needed], check=True)
        return library


if __name__ == "__main__":
    BENCH = sys.argv.pop().removeprefix("--bench=")
    unittest.main()
