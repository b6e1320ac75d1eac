#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# docs/operations/commands.md against the programs swiglu and swiglu-bench: their flags, defaults, commands and exit codes.
import pathlib
import re
import unittest

import server_process
from flag_tables import flags_of_help, flags_of_page, section, tables

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations/commands.md").read_text()
# Those that read the flags of swiglu.
COMMANDS = ("forward", "backward", "mlp", "status", "metadata", "statistics", "regions")


class SwigluTest(unittest.TestCase):
    def setUp(self):
        self.rows = flags_of_page(PAGE, "swiglu")
        self.helps = {command: flags_of_help(server_process.CLIENT, command) for command in COMMANDS}

    def test_page_has_the_flags_of_each_command_in_their_order(self):
        for command, flags in self.helps.items():
            of_page = [name for name, row in self.rows.items() if row[2] == "all" or command in row[2].split(", ")]
            self.assertEqual(of_page, list(flags), command)

    def test_page_has_no_flag_of_no_command(self):
        self.assertEqual(set(self.rows), {name for flags in self.helps.values() for name in flags})

    def test_page_has_the_defaults(self):
        for flags in self.helps.values():
            self.assertEqual({name: self.rows[name][1] for name in flags}, flags)

    def test_overview_has_the_flags_of_every_command(self):
        of_all = [name for name, row in self.rows.items() if row[2] == "all"]
        self.assertEqual(list(flags_of_help(server_process.CLIENT)), of_all)

    def test_page_names_the_flags_that_are_needed(self):
        named = re.findall(r"`--(\w+)`", re.search(r"^(`--.*?)need a value", section(PAGE, "swiglu"), re.M | re.S).group(1))
        for command, flags in self.helps.items():
            optional = ["model"] if command in ("metadata", "statistics") else []
            needed = [name for name in flags if name in named and name not in optional]
            for missing in needed:
                arguments = [f"--{name}=1" for name in needed if name != missing] + [f"--{missing}="]
                result = server_process.run(server_process.CLIENT, command, *arguments)
                self.assertEqual((result.returncode, result.stderr),
                                 (2, f"swiglu: --{missing} is missing; see swiglu --help\n"))

    def test_page_names_the_commands(self):
        help_text = server_process.run(server_process.CLIENT, "--help").stdout
        commands = re.findall(r"^  swiglu (\w+)", help_text, re.MULTILINE)
        self.assertEqual(tuple(commands), (*COMMANDS, "bench"))
        sentence = re.search(r"^The commands are (.*?)\.", section(PAGE, "swiglu"), re.M | re.S).group(1)
        self.assertEqual(re.findall(r"`(\w+)`", sentence), commands)

    def test_page_has_the_exit_codes(self):
        header = (ROOT / "client/cli/exit_code.h").read_text()
        self.assertEqual([row[0] for row in tables(PAGE, "swiglu")[1]], re.findall(r"^  k\w+ = (\d)", header, re.MULTILINE))


class BenchTest(unittest.TestCase):
    def test_page_has_the_flags_with_their_defaults_in_their_order(self):
        of_page = [(name, row[1]) for name, row in flags_of_page(PAGE, "swiglu-bench").items()]
        self.assertEqual(of_page, list(flags_of_help(server_process.BENCH).items()))


if __name__ == "__main__":
    server_process.main()
