#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Runs clang-tidy over every source that a build folder's compile_commands.json holds, one process per core, generated
# files excepted, and looks for unused includes in these sources and in all headers. Fails if it finds anything.
# `tidy.py BUILD_FOLDER [PART_OF_A_PATH]...`, in an environment with the packages of tidy_requirements.txt.
import concurrent.futures
import json
import os
import pathlib
import shlex
import subprocess
import sys

import source_tree

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Finds unused includes alone. Clang-tidy 14 does not have the check.
INCLUDE_CLEANER = [
    f"{sys.prefix}/bin/clang-tidy", "--quiet", "--checks=-*,misc-include-cleaner", "--warnings-as-errors=*", "--config", json.dumps({
        "CheckOptions": {
            "misc-include-cleaner.MissingIncludes": "false",
            # What they declare lies in headers that they include.
            "misc-include-cleaner.IgnoreHeaders": "CLI/CLI.hpp;pybind11/pybind11.h;pybind11/stl.h;cuda_runtime_api.h;grpc/support/time.h;spdlog/fmt/fmt.h;signal.h;netinet/in.h",
        }
    })
]


def sources_of(commands):
    """Returns the sources of a build that nobody generates."""
    sources = sorted({entry["file"] for entry in commands if entry["file"].endswith(".cc")})
    return [path for path in sources if path.startswith(f"{ROOT}/") and not path.startswith(f"{ROOT}/build")]


def headers_of(commands):
    """Returns the headers, and the options with which the build compiles each of them alone; without those of CUDA where it is built
    without, and those of Highway, which are read several times in one source."""
    alone = [entry for entry in commands if "/tests/style/headers/" in entry["file"]]
    has_cuda = any("cuda" in entry["file"] for entry in alone)
    headers = [str(path) for path in source_tree.cpp_files(ROOT) if path.suffix == ".h" and not path.name.endswith("-inl.h")]
    options = shlex.split(alone[0]["command"])[1:]
    return [header for header in headers if has_cuda or "cuda" not in header], options[:options.index("-o")]


def main():
    build = pathlib.Path(sys.argv[1]).resolve()
    commands = json.loads((build / "compile_commands.json").read_text())
    headers, options = headers_of(commands)
    jobs = [(path, [*tool, "-p", str(build), path]) for path in sources_of(commands)
            for tool in (["clang-tidy-14", "--quiet"], INCLUDE_CLEANER)]
    jobs += [(path, [*INCLUDE_CLEANER, path, "--", "-x", "c++", *options]) for path in headers]
    jobs = [job for job in jobs if len(sys.argv) < 3 or any(part in job[0] for part in sys.argv[2:])]

    def tidy(job):
        return job[0], subprocess.run(job[1], capture_output=True, text=True, cwd=ROOT, check=False)

    failed = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for path, result in pool.map(tidy, jobs):
            if result.returncode != 0:
                failed += 1
                print(f"{path}:\n{result.stdout}", flush=True)
    print(f"clang-tidy: {len(jobs) - failed} of {len(jobs)} runs are clean")
    return 1 if failed or not jobs else 0


if __name__ == "__main__":
    sys.exit(main())
