#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The mutation tester over a tree of one file, whose "test program" is a shell script that reads it.
import contextlib
import io
import pathlib
import sys
import tempfile
import unittest
from unittest import mock

import mutants
import mutate

ENTRY = """
[[mutant]]
name = "{name}"
file = "code.txt"
old = "{old}"
new = "{new}"
tests = ["{test}"]
"""


class MutateTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = pathlib.Path(folder.name)
        self.code = self.root / "code.txt"
        self.code.write_text("one two three\n")
        (self.root / "build/ci/bin").mkdir(parents=True)
        self.script("sees_one", "grep -q one code.txt")
        self.script("hangs_without_two", "grep -q two code.txt || sleep 600")
        # Builds everything but a tree without "three".
        self.builder = self.root / "builder"
        self.builder.write_text("#!/bin/sh\ngrep -q three code.txt\n")
        self.builder.chmod(0o755)

    def script(self, name, command):
        path = self.root / "build/ci/bin" / name
        path.write_text(f"#!/bin/sh\n{command}\n")
        path.chmod(0o755)

    def run_with(self, *entries, arguments=()):
        """Returns the exit status, or sentence, and what was printed."""
        (self.root / "list.toml").write_text("".join(ENTRY.format(**entry) for entry in entries))
        printed = io.StringIO()
        argv = ["mutate.py", f"--root={self.root}", f"--lists={self.root}", f"--build_command={self.builder}", "--limit_s=2"]
        with mock.patch.object(sys, "argv", [*argv, *arguments]), contextlib.redirect_stdout(printed):
            try:
                status = mutate.main()
            except SystemExit as end:
                status = end.code
        return status, printed.getvalue()

    def test_tells_noticed_bugs_from_survivors_and_puts_the_code_back(self):
        status, printed = self.run_with(
            dict(name="noticed", old="one", new="1", test="sees_one"),
            dict(name="unnoticed", old="two", new="2", test="sees_one"),
            dict(name="no program", old="three", new="3", test="sees_one"),
            dict(name="for ever", old="two", new="2", test="hangs_without_two"))
        self.assertEqual(status, 1)
        for expected in ("noticed (code.txt): failed in sees_one", "unnoticed (code.txt): SURVIVED",
                         "no program (code.txt): does not build", "for ever (code.txt): timed out in hangs_without_two",
                         "2 of 4 bugs noticed", "\nSURVIVED: list: unnoticed (code.txt)\n",
                         "\ndoes not build: list: no program (code.txt)\n"):
            self.assertIn(expected, printed)
        self.assertEqual(self.code.read_text(), "one two three\n")

    def test_ends_with_0_when_every_bug_is_noticed_or_none(self):
        status, printed = self.run_with(dict(name="noticed", old="one", new="1", test="sees_one"),
                                        dict(name="other", old="two", new="2", test="sees_one"), arguments=["--only=noticed"])
        self.assertEqual((status, "1 of 1 bugs noticed" in printed), (0, True))
        status, printed = self.run_with(
            dict(name="same", old="two", new="2", test='sees_one"]\nequivalent = "no one reads it"\n#'))
        self.assertEqual((status, "0 of 0 bugs noticed; 1 are listed" in printed), (0, True))

    def test_refuses_filters_that_select_no_test(self):
        self.script("gtest", """test "$1" = --gtest_list_tests || exit 0
        test "$2" != --gtest_filter=Suite.* || printf 'Suite.\\n  Test\\n'""")
        self.assertEqual(self.run_with(dict(name="bug", old="one", new="1", test="gtest Other.*"))[0],
                         "mutation: these select no test: gtest Other.*")
        self.assertEqual(self.run_with(dict(name="bug", old="one", new="1", test="gtest Suite.*"))[0], 1)

    def test_refuses_tests_that_fail_anyway(self):
        self.script("broken", "exit 1")
        status, _ = self.run_with(dict(name="some", old="one", new="1", test="broken"))
        self.assertEqual(status, "mutation: these tests fail without any bug put in: broken")

    def test_a_list_that_does_not_fit_the_code_is_told(self):
        for entry, words in [(dict(name="gone", old="four", new="4", test="sees_one"), "occurs 0 times"),
                             (dict(name="twice", old="t", new="T", test="sees_one"), "occurs 2 times"),
                             (dict(name="same", old="one", new="one", test="sees_one"), "old and new are the same")]:
            status, _ = self.run_with(entry, arguments=["--check"])
            self.assertIn(words, status)
        entry = dict(name="same name", old="one", new="1", test="sees_one")
        self.assertIn("there is another one of that name", self.run_with(entry, entry, arguments=["--check"])[0])
        self.assertEqual(self.run_with(entry, arguments=["--check"])[0], 0)

    def test_an_entry_needs_its_fields_and_no_others(self):
        (self.root / "list.toml").write_text('[[mutant]]\nname = "x"\nfiles = "y"\n')
        with self.assertRaisesRegex(ValueError, r"list.toml: x: missing \['file', 'new', 'old', 'tests'\], unknown \['files'\]"):
            mutants.load(self.root)


if __name__ == "__main__":
    unittest.main()
