#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The completion of swiglu and swiglu-bench in bash, as a shell calls it when somebody presses Tab.
import os
import pathlib
import re
import subprocess
import tempfile
import unittest

import server_process

COMMANDS = ["forward", "backward", "mlp", "status", "metadata", "statistics", "regions", "bench"]
# Loads both scripts, takes the words of a command line from its arguments, and prints what the last of them can become.
SHELL = """
swiglu_program=$1 bench_program=$2
shift 2
source <("$swiglu_program" --completion=bash)
source <("$bench_program" --completion=bash)
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
[[ $(complete -p "$1") =~ -F\\ ([^ ]+) ]]
"${BASH_REMATCH[1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def flags_of(program, *command):
    """The flags that --help lists."""
    return set(re.findall(r"^  --(\w+)", server_process.run(program, *command, "--help").stdout, re.MULTILINE))


class CompletionTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def complete(self, *words):
        """What the last of `words` can become. bash has split the line: `--kind=` is two words."""
        result = subprocess.run(["bash", "-c", SHELL, "bash", server_process.CLIENT, server_process.BENCH, *words],
                                cwd=self.folder, capture_output=True, text=True, check=True)
        self.assertEqual(result.stderr, "")
        return result.stdout.split("\n")[:-1] if result.stdout.strip() else []

    def test_commands_come_first(self):
        found = self.complete("swiglu", "")
        self.assertEqual(found[:len(COMMANDS)], COMMANDS)
        self.assertEqual(self.complete("swiglu", "st"), ["status", "statistics"])

    def test_flags_are_those_of_the_command(self):
        for command in COMMANDS[:-1]:
            found = self.complete("swiglu", command, "--")
            self.assertEqual({flag.strip("-=") for flag in found}, flags_of(server_process.CLIENT, command), command)
        found = self.complete("swiglu-bench", "--")
        self.assertEqual({flag.strip("-=") for flag in found}, flags_of(server_process.BENCH))

    def test_a_flag_that_needs_a_value_ends_with_an_equals_sign(self):
        self.assertEqual(self.complete("swiglu", "forward", "--o"), ["--overwrite", "--out="])

    def test_values_of_a_few_words_are_offered_in_every_form(self):
        for words in (("--kind", "=", ""), ("--kind", "=")):
            self.assertEqual(self.complete("swiglu", "regions", *words), ["both", "system", "cuda"], words)
        for words in (("--kind", "=", "c"), ("--kind", "c")):
            self.assertEqual(self.complete("swiglu", "regions", *words), ["cuda"], words)
        # Where COMP_WORDBREAKS has no "=".
        self.assertEqual(self.complete("swiglu", "regions", "--kind=c"), ["--kind=cuda"])
        self.assertEqual(self.complete("swiglu-bench", "--model", "=", "swiglu_b"),
                         [f"swiglu_backward_{dtype}" for dtype in ("fp16", "bf16", "fp32")])

    def test_a_flag_without_a_value_does_not_take_the_next_word(self):
        self.assertEqual(self.complete("swiglu", "status", "--json", "--ver"), ["--version"])
        self.assertEqual(self.complete("swiglu", "--json", "reg"), ["regions"])

    def test_files_and_folders_are_offered_where_a_flag_names_one(self):
        for name in ("a one.npy", "b.npy"):
            (self.folder / name).touch()
        os.mkdir(self.folder / "a folder")
        self.assertEqual(sorted(self.complete("swiglu", "forward", "--e", "=", "a")), ["a folder", "a one.npy"])
        self.assertEqual(self.complete("swiglu", "backward", "--out_dir", "a"), ["a folder"])
        self.assertEqual(self.complete("swiglu", "forward", "--server", "a"), [])

    def test_bench_is_completed_by_the_other_program(self):
        self.assertEqual(self.complete("swiglu", "bench", "--server"), ["--server=", "--server_pid="])
        self.assertEqual(self.complete("swiglu", "bench", "--client", "=", "l"), ["library"])


if __name__ == "__main__":
    server_process.main()
