#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Runs README's docker commands as they stand there, by the docker command against podman's socket: readme_test.py ROOT DOCKER
import os
import pathlib
import re
import sys
import tempfile
import unittest

import engine_process
from engine_process import Service

ROOT, DOCKER = pathlib.Path(), ""


def commands(page):
    """Returns the commands of the blocks that a comment marks as run here, joined where a backslash ends a line."""
    blocks = re.findall(r"^<!-- run by tests/image -->\n```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", "").splitlines()]


class ReadmeTest(unittest.TestCase):
    def test_every_docker_command_does_what_it_says(self):
        lines = commands((ROOT / "README.md").read_text())
        self.assertEqual([line.split()[1] for line in lines], ["build", "run", "exec", "logs", "cp", "stop", "rm"])
        said = {}
        with Service() as service, tempfile.TemporaryDirectory() as folder:
            environment = service.environment | {"PATH": f"{pathlib.Path(DOCKER).parent}:{os.environ['PATH']}"}
            self.addCleanup(engine_process.run, "podman", "rm", "--force", "--time=0", "swiglu")
            for line in lines:
                verb = line.split()[1]
                # The build takes the sources; everything else may leave a file where it runs.
                done = engine_process.run("sh", "-c", line, env=environment, cwd=ROOT if verb == "build" else folder)
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
