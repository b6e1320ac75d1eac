#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Runs the C++ examples of client/examples against the server, and where no server is. python_examples_test.py has them on wrong
# answers.
import pathlib
import random
import re
import shutil
import struct
import tempfile
import unittest

import server_process
import tensor_files
from server_process import Server, ServerTest

SOURCES = pathlib.Path(__file__).resolve().parents[2] / "client/examples"
NAMES = sorted(source.stem for source in SOURCES.glob("*.cc"))
NO_SERVER = "127.0.0.1:1"
# What an example takes beside the server's address.
ARGUMENTS = {"mlp": ("tiny",)}
USAGES = {"mlp": "HOST:PORT NAME", "several_servers": "HOST:PORT,HOST:PORT"}


def run_example(name, address):
    return server_process.run(f"{server_process.EXAMPLES}/{name}", address, *ARGUMENTS.get(name, ()))


def write_weights(path, hidden, intermediate):
    """Writes random FP16 weights of one layer, from -1/8 to 1/8."""
    source = random.Random(1)
    sizes = {"gate": (intermediate, hidden), "up": (intermediate, hidden), "down": (hidden, intermediate)}
    tensor_files.write_safetensors(path, **{
        f"{name}_proj.weight": ("FP16", shape, struct.pack(f"<{shape[0] * shape[1]}e", *(
            source.uniform(-0.125, 0.125) for _ in range(shape[0] * shape[1])))) for name, shape in sizes.items()})


class ExamplesTest(ServerTest):
    SERVER_FLAGS = ("--system_shared_memory=on",)

    def test_each_is_right(self):
        self.assertGreaterEqual(len(NAMES), 4)
        for name in sorted(set(NAMES) - {"mlp"}):
            with self.subTest(name):
                result = run_example(name, self.server.address)
                self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)

    def test_errors_are_of_the_kinds_that_the_example_names(self):
        said = run_example("error_handling", self.server.address).stdout
        self.assertEqual([line.split()[:2] for line in said.splitlines()], [
            ["local:", "INVALID_ARGUMENT:"], ["deadline:", "DEADLINE_EXCEEDED:"], ["permanent:", "NOT_FOUND:"],
            ["retryable:", "UNAVAILABLE:"], ["call:", "OK;"]])

    def answers_of_servers(self, addresses):
        """Runs the example of several servers. Gives how many answers came from each."""
        result = run_example("several_servers", ",".join(addresses))
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)
        return {server: int(count) for server, count in re.findall(r"(?m)^(\S+): (\d+) answers$", result.stdout)}

    def test_several_servers_share_the_calls(self):
        with Server() as other:
            answers = self.answers_of_servers([self.server.address, other.address])
            self.assertEqual((set(answers), sum(answers.values())), ({self.server.address, other.address}, 100))

    def test_one_of_several_servers_may_be_missing(self):
        self.assertEqual(self.answers_of_servers([NO_SERVER, self.server.address]), {self.server.address: 100})

    def test_each_fails_where_no_server_is(self):
        for name in NAMES:
            with self.subTest(name):
                result = run_example(name, NO_SERVER)
                self.assertEqual(result.returncode, 1)
                self.assertIn(f"UNAVAILABLE: no connection to {NO_SERVER}", result.stdout + result.stderr)

    def test_each_says_how_it_is_called(self):
        for name in NAMES:
            with self.subTest(name):
                result = server_process.run(f"{server_process.EXAMPLES}/{name}")
                usage = f"usage: {name} {USAGES.get(name, 'HOST:PORT')}\n"
                self.assertEqual((result.returncode, result.stderr), (2, usage))


class MlpExampleTest(unittest.TestCase):
    def test_it_is_right(self):
        folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, folder)
        path = pathlib.Path(folder, "m.safetensors")
        write_weights(path, 64, 176)
        server = Server("--device=cpu", f"--mlp=tiny={path}")
        self.addCleanup(server.kill)
        server.wait_for("all weights are loaded")
        result = run_example("mlp", server.address)
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)
        self.assertEqual(result.stdout, "mlp: the gradient of 5 tokens is right\n")
        result = server_process.run(f"{server_process.EXAMPLES}/mlp", server.address, "other")
        self.assertEqual(result.returncode, 1)
        self.assertIn("NOT_FOUND: unknown model 'mlp_other_0_forward'", result.stderr)


if __name__ == "__main__":
    server_process.main()
