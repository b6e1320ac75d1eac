#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Prints a header with its comments as Doxygen reads them: filter.py HEADER. The headers have plain // comments. A comment before a
# declaration becomes its documentation, and that of the declarations that follow it without a blank line, unless they have one of
# their own. A comment behind a declaration documents it. Every line keeps its number.
import re
import sys

SCOPE = re.compile(r"\b(namespace|class|struct|union|enum|extern)\b[^()=]*$")
NOT_DOCUMENTATION = re.compile(r"(namespace|NOLINT)\b")


class Filter:
    """Takes the lines of a header in order and turns each into one for Doxygen."""

    def __init__(self):
        self._scopes = []  # for each open brace, whether it encloses declarations
        self._statement = ""  # what has come of the statement so far
        self._comment = []  # the comment that documents the declarations that follow
        self._in_comment = False  # the line before was a comment on its own
        self._in_formula = False  # and one of a formula

    def line(self, text):
        indent, code, comment = re.match(r"(\s*)(.*?)\s*(?://\s?(.*))?$", text).groups()
        if not code:
            return self._comment_line(indent, comment) if comment is not None else self._blank_line()
        if comment and NOT_DOCUMENTATION.match(comment):
            comment = None
        prefix = self._prefix(code, comment)
        self._in_comment = False
        self._read(code)
        if comment and self._declares_members():
            return f"{indent}{prefix}{code} ///< {comment}"
        return f"{indent}{prefix}{code}"

    def _comment_line(self, indent, comment):
        if not self._in_comment:
            self._comment = []
        self._in_comment = True
        # Indented lines after an empty one are formulas, which keep their lines as code.
        begins = bool(self._comment) and not self._comment[-1]
        self._in_formula = comment.startswith("  ") and (begins or self._in_formula)
        self._comment.append(comment)
        return f"{indent}/// {'    ' if self._in_formula else ''}{comment}"

    def _blank_line(self):
        self._comment = []
        self._in_comment = False
        return ""

    def _prefix(self, code, comment):
        """Returns the documentation of a declaration that has none of its own, but follows one that has."""
        begins = not self._statement and not re.match(r"[#}]|(public|protected|private):", code)
        if self._in_comment or comment or not self._comment or not begins or not self._declares_members():
            return ""
        return f"/** {' '.join(self._comment)} */ "

    def _declares_members(self):
        return all(self._scopes)

    def _read(self, code):
        if code.startswith("#"):
            return
        for character in code:
            if character == "{":
                self._scopes.append(bool(SCOPE.search(self._statement)))
                self._statement = ""
            elif character == "}":
                self._scopes.pop()
                self._statement = ""
            elif character == ";":
                self._statement = ""
            else:
                self._statement += character
        if re.match(r"(public|protected|private):$", code):
            self._statement = ""
            self._comment = []


def main(path):
    with open(path, encoding="utf-8") as file:
        lines = file.read().splitlines()
    convert = Filter()
    # The paragraph at the top is about the file.
    print("/// \\file")
    for line in lines[1:]:
        print(convert.line(line))


if __name__ == "__main__":
    main(sys.argv[1])
