#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# What docs/doxygen/filter.py makes of comments.
import importlib.util
import pathlib
import unittest

PATH = pathlib.Path(__file__).resolve().parents[2] / "docs/doxygen/filter.py"
SPEC = importlib.util.spec_from_file_location("filter", PATH)
MODULE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(MODULE)


def filtered(*lines):
    convert = MODULE.Filter()
    return [convert.line(line) for line in lines]


class FilterTest(unittest.TestCase):
    def test_comment_before_declaration_documents_it(self):
        self.assertEqual(filtered("// What it does.", "int F();"), ["/// What it does.", "int F();"])

    def test_comment_holds_until_blank_line(self):
        self.assertEqual(filtered("// Sizes.", "int Width();", "int Height();", "", "int Other();"),
                         ["/// Sizes.", "int Width();", "/** Sizes. */ int Height();", "", "int Other();"])

    def test_comment_behind_member_documents_it(self):
        self.assertEqual(filtered("struct S {", "  int size;  // in bytes", "};"), ["struct S {", "  int size; ///< in bytes", "};"])

    def test_comment_of_class_holds_for_none_of_its_sections(self):
        self.assertEqual(filtered("// A class.", "class C {", " public:", "  int F();", "};"),
                         ["/// A class.", "class C {", " public:", "  int F();", "};"])

    def test_lines_of_bodies_and_of_long_declarations_stay(self):
        body = ["void F() {", "  int x = 1;  // one", "  Use(x);", "}"]
        self.assertEqual(filtered("// Does it.", *body)[1:], ["void F() {", "  int x = 1;", "  Use(x);", "}"])
        self.assertEqual(filtered("// Does it.", "int F(int a,", "      int b);")[1:], ["int F(int a,", "      int b);"])

    def test_formulas_are_code(self):
        self.assertEqual(filtered("// With:", "//", "//   h = f * g"), ["/// With:", "/// ", "///       h = f * g"])

    def test_note_to_linter_documents_nothing(self):
        self.assertEqual(filtered("// Converts.", "S(int x);", "S(char x);  // NOLINT(explicit)")[2], "/** Converts. */ S(char x);")


if __name__ == "__main__":
    unittest.main()
