#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Runs clang-tidy over every source that a build folder's compile_commands.json holds, one process per core, generated
# files excepted. Fails if it finds anything.
import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys


def main():
    root = pathlib.Path(__file__).resolve().parents[2]
    build = pathlib.Path(sys.argv[1]).resolve()
    commands = json.loads((build / "compile_commands.json").read_text())
    sources = sorted({entry["file"] for entry in commands if entry["file"].endswith(".cc")})
    sources = [path for path in sources if path.startswith(str(root)) and not path.startswith(str(root / "build"))]
    if len(sys.argv) > 2:
        sources = [path for path in sources if any(part in path for part in sys.argv[2:])]

    def tidy(path):
        command = ["clang-tidy-14", "-p", str(build), "--quiet", path]
        return path, subprocess.run(command, capture_output=True, text=True)

    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, result in pool.map(tidy, sources):
            if result.returncode != 0:
                failed += 1
                print(f"{path}:\n{result.stdout}", flush=True)
    print(f"clang-tidy: {len(sources) - failed} of {len(sources)} sources are clean")
    return 1 if failed or not sources else 0


if __name__ == "__main__":
    sys.exit(main())
