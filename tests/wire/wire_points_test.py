#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The driver of the wire's table, run for a moment on the CPU, and its arithmetic.
import json
import math
import os
import pathlib
import sys
import tempfile
import unittest
import unittest.mock

import server_process

DRIVER = pathlib.Path(__file__).resolve().parent.parent / "bench" / "wire" / "wire_points.py"
sys.path.insert(0, str(DRIVER.parent))
import contestants  # noqa: E402
import points  # noqa: E402
import summary  # noqa: E402


def run_driver(*flags, server=None):
    """Runs the driver to its end, with the shortest runs."""
    return server_process.run(sys.executable, "-B", str(DRIVER), f"--bench={server_process.BENCH}",
                              f"--server_program={server or server_process.SERVER}", "--server_flag=--device=cpu",
                              "--requests=64", "--warm_up=0", *flags)


class MetricTest(unittest.TestCase):
    def test_result_without_the_number_has_none_and_is_the_worst(self):
        for result in ({}, {"server": None}, {"server": {}}, {"server": {"cpu_seconds_per_gb": None}}):
            self.assertIsNone(points.CPU.read(result), result)
            self.assertEqual(points.CPU.worth(result), -math.inf, result)
        self.assertEqual(points.CPU.worth({"server": {"cpu_seconds_per_gb": 2}}), -2.0)
        self.assertEqual(points.RATE.worth({"requests_per_s": 3}), 3.0)


class SummaryTest(unittest.TestCase):
    def test_median_needs_every_round(self):
        self.assertEqual(summary.median([3.0, 1.0, 2.0]), 2.0)
        self.assertIsNone(summary.median([3.0, None, 2.0]))
        self.assertIsNone(summary.median([]))

    def test_ratio_is_of_medians_and_its_spread_of_rounds(self):
        self.assertEqual(summary.ratio([1.0, 2.0, 6.0], [2.0, 2.0, 2.0]), {"ratio": 1.0, "least": 0.5, "most": 3.0})
        self.assertIsNone(summary.ratio([1.0, None], [1.0, 1.0]))
        self.assertIsNone(summary.ratio([1.0, 1.0], [1.0, None]))
        self.assertIsNone(summary.ratio([1.0, 1.0], [1.0, 0.0]))

    def test_lines_compare_the_server_with_everyone(self):
        lines = summary.lines("b", "64 KiB", "requests/s", False, {"server": [1000.0], "echo T=2": [2000.0], "rival": [None]})
        self.assertEqual(lines, ["b   64 KiB, requests/s",
                                 "      server     1,000 (1,000 - 1,000)",
                                 "      echo T=2   2,000 (2,000 - 2,000)",
                                 "      rival      failed",
                                 "      server / echo T=2   0.50 (0.50 - 0.50)",
                                 "      server / rival      -"])


class DriverTest(unittest.TestCase):
    def test_points_are_measured_printed_and_written(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "table.json")
            result = run_driver("--points=b,h", "--rounds=2", f"--json={path}")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(result.stderr, "")
            table = json.loads(path.read_text())
        self.assertEqual(list(table["points"]), ["b", "a"])
        self.assertIn("swiglu-server ", table["machine"]["server"])
        units = [metric["unit"] for metric in table["points"]["a"]["metrics"]]
        self.assertEqual(units, ["requests/s", "CPU s/GB"])
        for metric in table["points"]["b"]["metrics"]:
            (echo, rounds), = [(who, rounds) for who, rounds in metric["values"].items() if who != "server"]
            self.assertEqual((len(rounds), len(metric["values"]["server"])), (2, 2))
            self.assertGreater(metric["server_to"][echo]["ratio"], 0)
        self.assertIn("64 KiB in, 32 KiB out, 8 connections, 64 in flight, requests/s", result.stdout)

    def test_regions_are_compared_with_another_server(self):
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "table.json")
            result = run_driver("--points=s1", "--rounds=1", f"--other_program={server_process.SERVER}", f"--json={path}")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(result.stderr, "")
            table = json.loads(path.read_text())
        self.assertEqual(list(table["points"]), ["s1"])
        self.assertEqual(table["machine"]["other"], table["machine"]["server"])
        for point in table["points"].values():
            for metric in point["metrics"]:
                self.assertEqual(list(metric["values"]), ["server", "other"])
            self.assertEqual(point["runs"]["other"][0]["configuration"]["shared_memory"], "system")
            self.assertEqual(point["runs"]["other"][0]["requests"], 64)

    def test_server_that_ends_fails_it_with_its_log(self):
        result = run_driver("--points=b", "--server_flag=--device=nonsense")
        self.assertEqual(result.returncode, 1)
        self.assertIn("wire_points: server ended with 2; the end of its log:\n", result.stderr)
        self.assertIn("--device=nonsense: want auto, cpu or cuda", result.stderr)

    def test_unknown_point_is_refused(self):
        result = run_driver("--points=b,z")
        self.assertEqual(result.returncode, 2)
        self.assertIn("no such point: z", result.stderr)


class ContestantTest(unittest.TestCase):
    def test_ends_a_program_that_ignores_the_signal(self):
        with unittest.mock.patch.object(contestants, "STOP_S", 0.1):
            with contestants.Contestant("stubborn", ["sh", "-c", "trap '' TERM; read -r _ </dev/zero"], 1) as stubborn:
                stubborn.check_runs()
            self.assertRaises(ProcessLookupError, os.kill, stubborn.pid, 0)


if __name__ == "__main__":
    server_process.main()
