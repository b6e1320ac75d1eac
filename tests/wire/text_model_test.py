#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The example that generates text (client/examples/python/text) on the real model, SmolLM2-135M-Instruct: the text that README.md
# shows, by a server and in the process. text_example_test.py has the rest on a tiny model.
import contextlib
import io
import pathlib
import shutil
import sys
import tempfile
import unittest
import unittest.mock

import server_process
from examples_test import SOURCES

sys.path.insert(0, str(SOURCES / "python/text"))
# Before numpy, whose threads it limits.
import generate_text  # noqa: E402
import llama  # noqa: E402
import numpy  # noqa: E402

README = pathlib.Path(__file__).resolve().parents[2] / "README.md"


def run_example(*arguments):
    """The answer, the two lines that follow it, and the scores that the model gave for each token."""
    out, scores = io.StringIO(), []

    class RecordingLlama(llama.Llama):
        def next_logits(self, tokens):
            scores.append(super().next_logits(tokens))
            return scores[-1]

    with contextlib.redirect_stdout(out), unittest.mock.patch("llama.Llama", RecordingLlama):
        generate_text.main(arguments)
    answer, _, summary = out.getvalue().rpartition("\n\n")
    return answer, summary.splitlines(), numpy.array(scores)


class TextModelTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = tempfile.mkdtemp()
        cls.addClassCleanup(shutil.rmtree, folder)
        model = f"--model={folder}/smollm2"
        cls.by_server = run_example(model, f"--server_program={server_process.SERVER}")
        cls.in_process = run_example(model, "--in_process")

    def test_the_server_and_the_process_write_the_same_text(self):
        self.assertEqual(self.by_server[0], "The capital of Japan is Tokyo.")
        self.assertEqual(self.in_process[0], self.by_server[0])
        # 8 passes over 30 layers, the last of which ends the answer.
        self.assertRegex(self.by_server[1][1], r"^240 MLPs computed by the server; weights_sha256 of layer 0: [0-9a-f]{64}$")
        self.assertEqual(self.in_process[1][1], self.by_server[1][1].replace("by the server", "in this process"))

    def test_the_readme_shows_this_text(self):
        answer, (_, last_line), _ = self.by_server
        self.assertIn(f"\n{answer}\n\n37 tokens read, 7 written in ", README.read_text())
        self.assertIn(f" tokens/s\n{last_line}\n", README.read_text())

    def test_the_text_does_not_depend_on_last_bits(self):
        """The best score leads by far more than the server and the process differ in this lead."""
        best = numpy.argsort(self.in_process[2])[:, -2:]
        leads = [numpy.diff(numpy.take_along_axis(scores, best, axis=1)) for _, _, scores in (self.by_server, self.in_process)]
        self.assertGreater(leads[1].min(), 0.8)
        self.assertLess(numpy.abs(leads[0] - leads[1]).max(), 0.4)


if __name__ == "__main__":
    server_process.main()
