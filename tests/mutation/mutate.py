#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Shows that the tests notice bugs: puts each of a committed list of small bugs into the code, builds what that touches, runs the
# tests nearest to it and puts the code back. Prints the survivors, the bugs that no test noticed, and ends with 1 if there are any.
# It changes the working tree while it runs: nothing else may build or commit there meanwhile.
import argparse
import os
import pathlib
import signal
import subprocess
import sys
import time

import mutants

# What the tests of the wire are run with.
PROGRAMS = ["swiglu_server", "swiglu_cli", "swiglu_bench_cli", "fault_server", "weights_server"]
# What the tests of the Python client are run with.
PYTHON_CLIENT = ["swiglu_server", "swiglu_wheel"]


class Tree:
    """A source tree, its build, and the commands that build and test it."""

    def __init__(self, root, preset, build_command, limit_s):
        self.root = pathlib.Path(root)
        self.folder = self.root / "build" / preset
        self._build = [*build_command.split(), preset]
        self._limit_s = limit_s

    def build(self, tests):
        """Builds what `tests` need; returns whether that worked."""
        return self._run([*self._build, *sorted(set(sum(map(targets, tests), [])))], None) == "passed"

    def test(self, test):
        """Runs one test; returns "passed", "failed" or "timed out"."""
        kind, _, name = test.partition(":")
        if kind == "ctest" and name:
            command = ["ctest", "--test-dir", str(self.folder), "-R", f"^{name}$", "--no-tests=error"]
        else:
            program, _, selected = test.partition(" ")
            command = [str(self.folder / "bin" / program), "--gtest_brief=1", "--gtest_fail_fast"]
            command += [f"--gtest_filter={selected}"] if selected else []
        return self._run(command, self._limit_s)

    def selects(self, test):
        """Whether there is a test by that name; GoogleTest is content with a filter that selects none."""
        program, _, selected = test.partition(" ")
        if not selected or test.startswith("ctest:"):
            return True
        command = [str(self.folder / "bin" / program), "--gtest_list_tests", f"--gtest_filter={selected}"]
        # Lines of tests are indented below that of their suite.
        return "\n  " in subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def _run(self, command, limit_s):
        # A session of its own, so that what a test has started ends with it.
        process = subprocess.Popen(command, cwd=self.root, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL, start_new_session=True)
        try:
            return "passed" if process.wait(limit_s) == 0 else "failed"
        except subprocess.TimeoutExpired:
            return "timed out"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def targets(test):
    """What a test needs built."""
    if test.startswith("ctest:python_"):
        return PYTHON_CLIENT
    return PROGRAMS if test.startswith("ctest:") else [test.partition(" ")[0]]


def judge(tree, mutant):
    """Puts the bug in, and out again; returns what became of it."""
    path = tree.root / mutant.file
    original = path.read_text()
    path.write_text(original.replace(mutant.old, mutant.new))
    try:
        if not tree.build(mutant.tests):
            return "does not build"
        for test in mutant.tests:
            result = tree.test(test)
            if result != "passed":
                return f"{result} in {test}"
        return "SURVIVED"
    finally:
        path.write_text(original)


def run(tree, chosen):
    """Judges every mutant; returns those that no test noticed, or that say nothing because they do not build."""
    tests = sorted({test for mutant in chosen for test in mutant.tests})
    if not tree.build(tests):
        sys.exit("mutation: the code does not build as it is")
    if missing := [test for test in tests if not tree.selects(test)]:
        sys.exit(f"mutation: these select no test: {', '.join(missing)}")
    broken = [test for test in tests if tree.test(test) != "passed"]
    if broken:
        sys.exit(f"mutation: these tests fail without any bug put in: {', '.join(broken)}")
    survivors = []
    for number, mutant in enumerate(chosen, 1):
        started = time.monotonic()
        result = judge(tree, mutant)
        print(f"[{number}/{len(chosen)}] {mutant}: {result}, {time.monotonic() - started:.0f} s", flush=True)
        if result in ("SURVIVED", "does not build"):
            survivors.append((mutant, result))
    tree.build(tests)
    return survivors


def main():
    parser = argparse.ArgumentParser(description="Puts small bugs into the code and shows which of them no test notices.")
    parser.add_argument("--check", action="store_true", help="only check that the lists fit the code")
    parser.add_argument("--only", default="", help="only bugs whose area, name or file contains this")
    parser.add_argument("--preset", default="ci", help="the build to use, build/PRESET")
    parser.add_argument("--build_command", default="deploy/build.sh", help="called with PRESET TARGET...")
    parser.add_argument("--limit_s", type=float, default=120, help="the longest that one test may run")
    parser.add_argument("--root", default=mutants.FOLDER.parent.parent)
    parser.add_argument("--lists", default=mutants.FOLDER, help="the folder of the lists")
    flags = parser.parse_args()

    every = mutants.load(flags.lists)
    faults = mutants.faults(flags.root, every)
    if faults:
        sys.exit("mutation: the lists do not fit the code:\n" + "\n".join(faults))
    if flags.check:
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the code is put back
    chosen = [m for m in every if not m.equivalent and flags.only in str(m)]
    survivors = run(Tree(flags.root, flags.preset, flags.build_command, flags.limit_s), chosen)
    print(f"mutation: {len(chosen) - len(survivors)} of {len(chosen)} bugs noticed; "
          f"{sum(bool(m.equivalent) for m in every)} are listed as no bugs at all")
    for mutant, result in survivors:
        print(f"{result}: {mutant}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
