#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Runs README's docker commands as they stand there, by the docker command against podman's socket: readme_test.py ROOT DOCKER
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import unittest

import engine_process
from engine_process import DEADLINE_S

ROOT, DOCKER = pathlib.Path(), ""


def commands(page):
    """Returns the commands of the blocks that a comment marks as run here, joined where a backslash ends a line."""
    blocks = re.findall(r"^<!-- run by tests/image -->\n```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", "").splitlines()]


class Engine:
    """podman's service of docker's protocol, for as long as the block lasts."""

    def __enter__(self):
        self._folder = tempfile.TemporaryDirectory()
        socket = pathlib.Path(self._folder.name, "docker.sock")
        self._process = subprocess.Popen(["podman", "system", "service", "--time=0", f"unix://{socket}"],
                                         stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        path = f"{pathlib.Path(DOCKER).parent}:{os.environ['PATH']}"
        self.environment = os.environ | {"DOCKER_HOST": f"unix://{socket}", "DOCKER_BUILDKIT": "0", "PATH": path}
        deadline = time.monotonic() + DEADLINE_S
        while engine_process.run("docker", "version", env=self.environment).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError("podman's service does not answer")
        return self

    def __exit__(self, *_):
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()


class ReadmeTest(unittest.TestCase):
    def test_every_docker_command_does_what_it_says(self):
        lines = commands((ROOT / "README.md").read_text())
        self.assertEqual([line.split()[1] for line in lines], ["build", "run", "exec", "logs", "cp", "stop", "rm"])
        said = {}
        with Engine() as engine, tempfile.TemporaryDirectory() as folder:
            self.addCleanup(engine_process.run, "podman", "rm", "--force", "--time=0", "swiglu")
            for line in lines:
                verb = line.split()[1]
                # The build takes the sources; everything else may leave a file where it runs.
                done = engine_process.run("sh", "-c", line, env=engine.environment, cwd=ROOT if verb == "build" else folder)
                print(f"$ {line}\n{done.stdout[-600:]}{done.stderr[-600:]}", flush=True)
                self.assertEqual(done.returncode, 0, line)
                said[verb] = done.stdout + done.stderr
                if verb == "run":
                    engine_process.wait_until_healthy("swiglu")
            self.assertIn("ready", said["exec"])
            self.assertIn("serving gRPC on", said["logs"])
            self.assertIn('"spdxVersion": "SPDX-2.3"', pathlib.Path(folder, "sbom.spdx.json").read_text())


if __name__ == "__main__":
    DOCKER = sys.argv.pop()
    ROOT = pathlib.Path(sys.argv.pop())
    unittest.main()
