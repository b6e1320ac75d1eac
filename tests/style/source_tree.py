# SPDX-License-Identifier: Apache-2.0
#
# Walks the sources of a tree for the style checks, past what builds and tools leave behind.
import pathlib

SKIPPED = {".git", ".venv", ".cache", "build", "out", "__pycache__"}
CPP = {".h", ".cc", ".cu", ".cuh"}


def files(root):
    """Yields every file below `root`, as sorted paths relative to it."""
    root = pathlib.Path(root)
    found = []
    pending = [root]
    while pending:
        for entry in pending.pop().iterdir():
            if entry.name in SKIPPED:
                continue
            if entry.is_dir() and not entry.is_symlink():
                pending.append(entry)
            elif entry.is_file():
                found.append(entry.relative_to(root))
    return sorted(found)


def cpp_files(root):
    """Yields the C++ and CUDA sources and headers below `root`."""
    return [path for path in files(root) if path.suffix in CPP]


def scripts(root):
    """Yields the shell and Python programs below `root`: by suffix, or by their first line where there is none."""
    for path in files(root):
        if path.suffix in {".sh", ".py"}:
            yield path
        elif path.suffix == "" or path.parent.name == ".ci":
            with open(pathlib.Path(root) / path, "rb") as file:
                if file.read(2) == b"#!":
                    yield path
