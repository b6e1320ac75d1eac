#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Runs the C++ examples of client/examples against the server, and where no server is. python_examples_test.py has them on wrong
# answers.
import pathlib

import server_process
from server_process import ServerTest

SOURCES = pathlib.Path(__file__).resolve().parents[2] / "client/examples"
NAMES = sorted(source.stem for source in SOURCES.glob("*.cc"))
NO_SERVER = "127.0.0.1:1"


def run_example(name, *arguments):
    return server_process.run(f"{server_process.EXAMPLES}/{name}", *arguments)


class ExamplesTest(ServerTest):
    SERVER_FLAGS = ("--system_shared_memory=on",)

    def test_each_is_right(self):
        self.assertGreaterEqual(len(NAMES), 4)
        for name in NAMES:
            with self.subTest(name):
                result = run_example(name, self.server.address)
                self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)

    def test_errors_are_of_the_kinds_that_the_example_names(self):
        said = run_example("error_handling", self.server.address).stdout
        self.assertEqual([line.split()[:2] for line in said.splitlines()], [
            ["local:", "INVALID_ARGUMENT:"], ["deadline:", "DEADLINE_EXCEEDED:"], ["permanent:", "NOT_FOUND:"],
            ["retryable:", "UNAVAILABLE:"], ["call:", "OK;"]])

    def test_each_fails_where_no_server_is(self):
        for name in NAMES:
            with self.subTest(name):
                result = run_example(name, NO_SERVER)
                self.assertEqual(result.returncode, 1)
                self.assertIn(f"UNAVAILABLE: no connection to {NO_SERVER}", result.stdout + result.stderr)

    def test_each_says_how_it_is_called(self):
        for name in NAMES:
            with self.subTest(name):
                result = run_example(name)
                self.assertEqual((result.returncode, result.stderr), (2, f"usage: {name} HOST:PORT\n"))


if __name__ == "__main__":
    server_process.main()
