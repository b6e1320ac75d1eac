# SPDX-License-Identifier: Apache-2.0
#
# The flags of a program as its --help lists them and as a page's table has them, for the tests that compare both.
import re

import server_process


def section(page, title):
    """The text of a section of a page."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL).group(1)


def tables(page, title):
    """The tables of a section: each a list of rows, each a list of its cells, without the head."""
    found = []
    for block in re.findall(r"(?:^\|.*\n)+", section(page, title), re.MULTILINE):
        rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines()]
        found.append(rows[2:])
    return found


def flags_of_page(page, title):
    """The rows of the first table of a section, by the flag's name."""
    return {row[0].strip("`-"): row for row in tables(page, title)[0]}


def flags_of_help(program, *command):
    """From --help: name to default as a page shows it, "–" for a flag that has none."""
    text = server_process.run(program, *command, "--help").stdout
    flags = re.findall(r"^  --(\w+)(?:=(.*))?$", text, re.MULTILINE)
    return {name: f"`{value}`" if value else "–" for name, value in flags}
