#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Fails on a code block of a Markdown page that says where it comes from (a comment "<!-- from PATH -->" on the line before)
# and is no longer there word for word, on a block of a programming language that does not say it, on a link to a missing file, and on an
# index (a page with a folder of its name beside it) that leaves out a page of its folder.
import pathlib
import re
import sys

import source_tree

BLOCK = re.compile(r"^(?:<!-- from (?P<source>\S+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://|#)([^)#]+)")
MUST_COME_FROM_A_FILE = {"cpp", "go", "java", "js", "python"}


def faults(root, page):
    """Returns a sentence for every block or link of `page` that does not hold."""
    text = (root / page).read_text()
    found = []
    for block in BLOCK.finditer(text):
        source, number = block["source"], text.count("\n", 0, block.start()) + 1
        if source is None:
            if block["language"] in MUST_COME_FROM_A_FILE:
                found.append(f"{page}:{number}: a block of {block['language']} that does not say which file it is from")
        elif not (root / source).is_file() or block["text"] not in (root / source).read_text():
            found.append(f"{page}:{number}: the block is not in {source}")
    links = LINK.findall(BLOCK.sub("", text))
    for link in links:
        if not (root / page.parent / link).exists():
            found.append(f"{page}: link to {link}, which is not there")
    for listed in sorted((root / page).with_suffix("").glob("*.md")):
        if str(listed.relative_to((root / page).parent)) not in links:
            found.append(f"{page}: no link to {listed.name} of its folder")
    return found


def violations(root):
    """Returns the faults of every Markdown page below `root`."""
    root = pathlib.Path(root)
    pages = [path for path in source_tree.files(root) if path.suffix == ".md"]
    return [fault for page in pages for fault in faults(root, page)]


if __name__ == "__main__":
    found = violations(sys.argv[1])
    print("\n".join(found))
    sys.exit(1 if found else 0)
