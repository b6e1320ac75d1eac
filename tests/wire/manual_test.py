#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The manual pages of the three programs: groff has no warning about them, and they have every flag.
import re
import shutil
import subprocess
import unittest

import server_process
from server_process import run


class ManualTest(unittest.TestCase):
    def page(self, program):
        """The page of a program as a terminal shows it, after groff has found no fault in it."""
        if shutil.which("groff") is None:
            server_process.skip(self, "this machine has no groff")
        source = run(program, "--manual")
        self.assertEqual((source.returncode, source.stderr), (0, ""))
        shown = subprocess.run(["groff", "-ww", "-man", "-Tascii", "-P-cbou"], input=source.stdout, capture_output=True,
                               text=True, check=True)
        self.assertEqual(shown.stderr, "")
        return shown.stdout

    def test_each_has_the_sections_and_every_flag_of_the_help(self):
        for program, name in ((server_process.CLIENT, "SWIGLU(1)"), (server_process.BENCH, "SWIGLU-BENCH(1)"),
                              (server_process.SERVER, "SWIGLU-SERVER(8)")):
            page = self.page(program)
            self.assertTrue(page.lstrip().startswith(name))
            sections = re.findall(r"^([A-Z][A-Z ]+)$", page, re.MULTILINE)
            self.assertEqual([title for title in sections if title != "COMMANDS"],
                             ["NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "NOTES", "SEE ALSO"])
            commands = re.findall(r"^  swiglu (\w+)", run(program, "--help").stdout, re.MULTILINE)
            flags = set()
            for arguments in [[], *[[command] for command in commands if command != "bench"]]:
                flags.update(re.findall(r"^  (--\w+)", run(program, *arguments, "--help").stdout, re.MULTILINE))
            self.assertEqual(set(re.findall(r"^       (--\w+)", page, re.MULTILINE)), flags)

    def test_a_flag_has_its_help_its_values_its_default_and_its_commands(self):
        self.assertIn("""       --kind=VALUE
              Which regions.
              Takes both, system or cuda.  Default: both.  Belongs to regions.
""", self.page(server_process.CLIENT))

    def test_the_page_of_the_server_is_the_same_on_every_machine(self):
        page = self.page(server_process.SERVER)
        defaults = dict(re.findall(r"^  --(\w+)=(.*)$", run(server_process.SERVER, "--help").stdout, re.MULTILINE))
        for flag in ("io_threads", "memory_budget_bytes", "max_pinned_bytes"):
            paragraph = re.search(rf"--{flag}=VALUE\n(.*?)\n\n", page, re.DOTALL).group(1)
            self.assertNotIn("Default", paragraph)
            self.assertIn(flag, defaults)


if __name__ == "__main__":
    server_process.main()
