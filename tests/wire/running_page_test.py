#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# docs/operations/running.md against the program: its flags with their defaults, its exit codes and the lines of its log; and
# its figures against the page of measurements that they are taken from.
import json
import pathlib
import re
import unittest

import plain_grpc
import server_process
from plain_grpc import infer_once
from server_process import Server

DOCS = pathlib.Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "operations" / "running.md").read_text()

# Defaults that depend on the machine, which the page says in words.
IN_WORDS = {"io_threads", "memory_budget_bytes"}


def section(title):
    """The text of a section of the page."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL).group(1)


def table(title):
    """The rows of the last table of a section, each a list of its cells, without the head."""
    rows = [line.strip("|").split(" | ") for line in section(title).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows[2:]]


def flags_of_help():
    """From --help: name to default, None for a flag that has none."""
    text = server_process.run(server_process.SERVER, "--help").stdout
    return {name: value or None for name, value in re.findall(r"^  --(\w+)(?:=(.*))?$", text, re.MULTILINE)}


def shape(line):
    """A line with its times and numbers taken out."""
    line = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "TIME", line)
    return re.sub(r"(?<![\w.])\d+(?:\.\d+)*", "N", line)


def examples(language):
    """The lines of the log that the page shows in that language."""
    return re.search(rf"^```{language}\n(.*?)^```$", section("Log"), re.MULTILINE | re.DOTALL).group(1).splitlines()


class FlagTableTest(unittest.TestCase):
    def setUp(self):
        self.rows = {row[0].strip("`-"): row for row in table("Flags")}

    def test_page_has_the_flags_of_the_program_and_no_other(self):
        self.assertEqual(list(self.rows), list(flags_of_help()))

    def test_page_has_the_defaults_of_the_program(self):
        for name, default in flags_of_help().items():
            with self.subTest(name):
                shown = self.rows[name][1]
                if name in IN_WORDS:
                    self.assertNotIn("`", shown)
                else:
                    self.assertEqual(shown, f"`{default}`" if default else "–")

    def test_page_names_no_flag_that_is_not_there(self):
        others = {"name", "connections"}  # "--name=value", and of swiglu-bench
        self.assertLessEqual(set(re.findall(r"--([a-z]\w+)", PAGE)), set(flags_of_help()) | others)

    def test_every_flag_has_a_meaning(self):
        for name, row in self.rows.items():
            self.assertEqual(len(row), 4, name)
            self.assertGreater(len(row[2]), 10, name)


class ExitCodeTest(unittest.TestCase):
    def test_page_has_the_codes_of_the_program(self):
        self.assertEqual([row[0] for row in table("Exit codes")], ["0", "1", "2", "70"])
        lifecycle = (DOCS.parent / "server" / "lifecycle.h").read_text()
        self.assertEqual(set(re.findall(r"kExit\w+ = (\d+)", lifecycle)), {"1", "70"})


class LogExampleTest(unittest.TestCase):
    def log_of(self, *flags):
        """What a server logs that begins to serve and refuses a request."""
        with Server(*flags) as server:
            request = plain_grpc.infer_request("nope", "FP32", [1], {"e": bytes(4)}, "42")
            infer_once(server.address, request, [("x-request-id", "c0ffee")])
            self.assertEqual(server.stop(), 0)
            return server.log

    def test_examples_of_text_are_lines_of_the_program(self):
        log = [shape(line) for line in self.log_of()]
        for line in examples("text"):
            self.assertIn(shape(line), log)

    def test_examples_of_json_are_lines_of_the_program(self):
        log = [shape(line) for line in self.log_of("--log_format=json")]
        for line in examples("json"):
            json.loads(line)
            self.assertIn(shape(line), log)


class CapacityTest(unittest.TestCase):
    def test_figures_are_those_of_the_measurements(self):
        measured = (DOCS / "performance.md").read_text()
        rows = table("Sizes")
        self.assertGreater(len(rows), 3)
        for row in rows:
            with self.subTest(row[0]):
                line = next((line for line in measured.splitlines() if line.startswith("| " + row[0].split(",")[0])), None)
                self.assertIsNotNone(line, f"no measurement begins with '{row[0]}'")
                figures = re.findall(r"\d[\d,.]*\d", row[1] + " " + row[2])
                self.assertTrue(figures)
                whole = measured if "CPU seconds" in row[2] else line
                for figure in figures:
                    self.assertIn(figure, whole)


if __name__ == "__main__":
    server_process.main()
