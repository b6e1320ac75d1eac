#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Fails on a source, a script, a protocol file, a YAML file or an example in another language that does not begin with the licence
# line and a paragraph that says what the file is for, and on a header without #pragma once.
import pathlib
import re
import sys

import source_tree

SLASHES = source_tree.CPP | {".go", ".java", ".js", ".proto"}
SPDX = "SPDX-License-Identifier: Apache-2.0"


def fault(text, path):
    """Returns what is wrong with the head of the file `path`, whose text this is, or None."""
    lines = text.splitlines()
    if lines and lines[0].startswith("#!"):
        lines = lines[1:]
    mark = "//" if path.suffix in SLASHES else "#"
    if not lines or lines[0] != f"{mark} {SPDX}":
        return f"does not begin with '{mark} {SPDX}'"
    paragraph = []
    for line in lines[2:]:
        if not line.startswith(mark + " "):
            break
        paragraph.append(line)
    if len(lines) < 3 or lines[1] != mark or len(" ".join(paragraph)) < 20:
        return f"has no paragraph after the licence line and a '{mark}' line"
    once = path.suffix in {".h", ".cuh"} and not path.name.endswith("-inl.h")
    if once and not re.search(r"^#pragma once$", text, re.MULTILINE):
        return "has no #pragma once"
    return None


def violations(root):
    """Returns a sentence for every file below `root` whose head is wrong."""
    root = pathlib.Path(root)
    others = [path for path in source_tree.files(root) if path.suffix in SLASHES - source_tree.CPP | {".yaml", ".yml"}]
    found = []
    for path in source_tree.cpp_files(root) + others + list(source_tree.scripts(root)):
        wrong = fault((root / path).read_text(), path)
        if wrong:
            found.append(f"{path}: {wrong}")
    return found


if __name__ == "__main__":
    found = violations(sys.argv[1])
    print("\n".join(found))
    sys.exit(1 if found else 0)
