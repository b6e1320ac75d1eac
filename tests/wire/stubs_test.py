#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Makes the stubs of the protocol for Go and Java, and runs their examples against the server, against one whose answers are wrong,
# and where no server is. Of the example in JavaScript, only the syntax is checked, because Debian has no gRPC for it.
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import server_process
from examples_test import NO_SERVER, SOURCES
from python_examples_test import run_all, wrong_server
from server_process import DEADLINE_S, ServerTest

# What each build.sh calls.
TOOLS = {"go": ("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc"), "java": ("grpc_java_plugin", "java", "javac", "protoc")}
LINES = {"go": "forward.go: 1000 elements are right\n", "java": "Forward.java: 1000 elements are right\n"}


def missing(language):
    """Returns why the example of a language cannot be built, or ""."""
    tools = [tool for tool in TOOLS[language] if shutil.which(tool) is None]
    return f"no {', '.join(tools)}; `deploy/setup.sh long` installs what {language} needs" if tools else ""


class StubsTest(ServerTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.programs = {}
        for language in TOOLS:
            if not missing(language):
                out = pathlib.Path(folder.name, language)
                subprocess.run([SOURCES / language / "build.sh", out], check=True, timeout=4 * DEADLINE_S)
                cls.programs[language] = [str(out / "forward")]

    def run_example(self, language, address):
        if language not in self.programs:
            server_process.skip(self, missing(language))
        return run_all({language: self.programs[language]}, address)[language]

    def test_go_is_right(self):
        self.assertEqual(self.run_example("go", self.server.address), (0, LINES["go"], ""))

    def test_java_is_right(self):
        self.assertEqual(self.run_example("java", self.server.address), (0, LINES["java"], ""))

    def test_wrong_answers_are_noticed(self):
        for language in TOOLS:
            with self.subTest(language), wrong_server() as address:
                self.assertEqual(self.run_example(language, address), (1, "", "wrong: h is not SiLU(e) * g\n"))

    def test_error_of_a_call_is_told(self):
        for language in TOOLS:
            with self.subTest(language):
                code, said, complained = self.run_example(language, NO_SERVER)
                self.assertEqual((code, said), (1, ""))
                self.assertRegex(complained, "(?i)unavailable")


class SourcesTest(unittest.TestCase):
    def test_go_is_formatted(self):
        if shutil.which("gofmt") is None:
            server_process.skip(self, missing("go"))
        self.assertEqual(server_process.run("gofmt", "-l", SOURCES / "go").stdout, "")

    def test_javascript_has_no_error_of_syntax(self):
        if shutil.which("node") is None:
            server_process.skip(self, "no node, which is not among the packages of deploy/setup.sh")
        result = server_process.run("node", "--check", SOURCES / "javascript/forward.js")
        self.assertEqual((result.returncode, result.stderr), (0, ""))


if __name__ == "__main__":
    server_process.main()
