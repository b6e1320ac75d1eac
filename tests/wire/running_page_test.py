#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# docs/operations/running.md against the program: its flags with their defaults, its settings, its exit codes and the lines of
# its log; and its figures against the page of measurements that they are taken from.
import json
import pathlib
import re
import tempfile
import unittest

import flag_tables
import plain_grpc
import server_process
from plain_grpc import infer_once
from server_process import Server

DOCS = pathlib.Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "operations" / "running.md").read_text()

TRACE_PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
# Defaults that depend on the machine, which the page says in words.
IN_WORDS = {"io_threads", "memory_budget_bytes", "max_pinned_bytes"}


def section(title):
    """The text of a section of the page."""
    return flag_tables.section(PAGE, title)


def table(title):
    """The rows of the last table of a section, each a list of its cells, without the head."""
    return flag_tables.tables(PAGE, title)[-1]


def shape(line):
    """A line with its times and numbers taken out."""
    line = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "TIME", line)
    return re.sub(r"(?<![\w.])\d+(?:\.\d+)*", "N", line)


def examples(language):
    """The lines of the log that the page shows in that language."""
    return re.search(rf"^```{language}\n(.*?)^```$", section("Log"), re.MULTILINE | re.DOTALL).group(1).splitlines()


class FlagTableTest(unittest.TestCase):
    def setUp(self):
        self.rows = flag_tables.flags_of_page(PAGE, "Flags")
        self.flags = flag_tables.flags_of_help(server_process.SERVER)

    def test_page_has_the_flags_of_the_program_and_no_other(self):
        self.assertEqual(list(self.rows), list(self.flags))

    def test_page_has_the_defaults_of_the_program(self):
        for name, default in self.flags.items():
            with self.subTest(name):
                shown = self.rows[name][1]
                if name in IN_WORDS:
                    self.assertNotIn("`", shown)
                else:
                    self.assertEqual(shown, default)

    def test_page_names_no_flag_that_is_not_there(self):
        others = {"name", "connections"}  # "--name=value", and of swiglu-bench
        self.assertLessEqual(set(re.findall(r"--([a-z]\w+)", PAGE)), set(self.flags) | others)

    def test_every_flag_has_a_meaning(self):
        for name, row in self.rows.items():
            self.assertEqual(len(row), 4, name)
            self.assertGreater(len(row[2]), 10, name)


class SettingsTest(unittest.TestCase):
    def health(self, *arguments, **variables):
        """What the server says that asks nobody for health: a mistake of the settings comes before that."""
        return server_process.run(server_process.SERVER, "--health", "--grpc_address=127.0.0.1:1", *arguments, env=variables)

    def test_file_of_the_page_is_right(self):
        text = re.search(r"^```toml\n(.*?)^```$", section("Flags"), re.MULTILINE | re.DOTALL).group(1)
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            self.assertEqual(self.health(f"--config={file.name}").returncode, 1)
            file.write("io_threads = 0\n")
            file.flush()
            self.assertEqual(self.health(f"--config={file.name}").returncode, 2)

    def test_every_flag_but_those_that_the_page_names_has_a_variable(self):
        excepted = re.findall(r"`--(\w+)`", re.search(r"Every flag but (.*?) can also be set", PAGE, re.DOTALL).group(1))
        self.assertEqual(len(excepted), 5)
        for name in flag_tables.flags_of_help(server_process.SERVER):
            with self.subTest(name):
                variable = f"SWIGLU_SERVER_{name.upper()}"
                result = self.health(**{variable: "no such value"})
                self.assertEqual(result.returncode, 1 if name in excepted else 2)
                if name not in excepted:
                    self.assertTrue(result.stderr.startswith(f"swiglu-server: {variable}=no such value: want "), result.stderr)


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
            infer_once(server.address, request, [("x-request-id", "c0ffee"), ("traceparent", TRACE_PARENT)])
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
