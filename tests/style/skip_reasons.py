#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Reads CTest's LastTest.log and prints which tests skipped something and why, since CTest shows neither for a program of
# which only some tests skip. Understands GoogleTest's "Skipped" followed by the reason, and a line "skipped: REASON".
import collections
import re
import sys


def reasons(log):
    """Returns how often each pair of (test, reason) stands in the text of a log."""
    found = collections.Counter()
    test = "?"
    previous = ""
    for line in log.splitlines():
        match = re.match(r"\d+/\d+ Testing: (.*)", line)
        if match:
            test = match.group(1)
        elif previous.endswith(": Skipped") and line:
            found[test, line] += 1
        elif line.startswith("skipped: "):
            found[test, line.removeprefix("skipped: ")] += 1
        previous = line
    return found


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8", errors="replace") as file:
        for (test, reason), count in reasons(file.read()).items():
            print(f"skipped: {test}: {reason}" + (f" ({count} tests)" if count > 1 else ""))
