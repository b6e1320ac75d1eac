#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The console page of servers whose history is made up, so that every figure on it is known: that they agree with each other, that
# zeros are zeros, that numbers are plain, and that the span fits what there is. live_test.py draws the page of a real server.
#
#   console_test.py --prometheus=FOLDER
import argparse
import re
import sys
import tempfile
import time
import unittest

import prometheus_programs
import rule_files
from backfill import History
from console_page import ConsolePage
from prometheus_process import Prometheus

PROMETHEUS, PROMTOOL = "", ""

# Seconds since the first scrape, and the span and window that fit.
SPANS = {"hours": (4 * 3600, "1h", "5m"), "half:1": (1200, "30m", "2m"), "young:1": (300, "10m", "1m"), "new:1": (5, "1m", "1m")}

# An hour of a server that gets fewer requests after three quarters, and is so old besides.
OLD_S = 70 * 60
BUSY_S = 50 * 60


def slower(before, after):
    """A counter that grows by `before` a second while it is busy, then by `after`."""
    return lambda seconds: before * min(seconds, BUSY_S) + after * max(seconds - BUSY_S, 0)


def steady(rate):
    """A counter that grows by `rate` a second."""
    return lambda seconds: rate * seconds


def constant(value):
    """A gauge."""
    return lambda _: value


def add_histogram(history, name, labels, since_s, rate, mean_s, last_empty_le):
    """Adds a histogram of `rate` observations a second, which are all in the bucket after the one that ends at `last_empty_le`."""
    bounds = [10e-6, 20e-6, 50e-6, 0.1, 5, 10]
    for bound in bounds:
        history.add(f"{name}_bucket", labels | {"le": f"{bound:g}"}, since_s, steady(rate if bound > last_empty_le else 0))
    history.add(f"{name}_bucket", labels | {"le": "+Inf"}, since_s, steady(rate))
    history.add(f"{name}_count", labels, since_s, steady(rate))
    history.add(f"{name}_sum", labels, since_s, steady(rate * mean_s))


def add_old_server(history, now):
    """A server with all figures of the page."""
    it = {"job": "swiglu", "instance": "old:1"}
    history.add("swiglu_build_info", it | {"version": "1", "commit": "abc"}, OLD_S, constant(1))
    history.add("swiglu_ready", it, OLD_S, constant(1))
    history.add("process_start_time_seconds", it, OLD_S, constant(now - 93784))
    for code, counter in {"OK": slower(3, 0.5), "INTERNAL": steady(1 / 60), "INVALID_ARGUMENT": steady(0.1),
                          "UNAVAILABLE": constant(0)}.items():
        history.add("swiglu_requests_total", it | {"model": "forward", "code": code}, OLD_S, counter)
    history.add("swiglu_requests_total", it | {"model": "unknown", "code": "NOT_FOUND"}, OLD_S, steady(0.00005))
    history.add("swiglu_elements_total", it | {"model": "forward"}, OLD_S, steady(21.7e6))
    for direction, rate in {"in": 3.0 * 2**20, "out": 0.376 * 2**20}.items():
        history.add("swiglu_request_bytes_total", it | {"direction": direction}, OLD_S, steady(rate))
    history.add("process_resident_memory_bytes", it, OLD_S, constant(37.66 * 2**20))
    for reason, rate in {"invalid": 0.1, "budget": 0}.items():
        history.add("swiglu_rejected_total", it | {"reason": reason}, OLD_S, steady(rate))
    for phase, (mean_s, last_empty_le) in {"copy_in": (0, 0), "queue": (742e-9, 0), "compute": (30e-6, 20e-6), "send": (12, 10)}.items():
        add_histogram(history, "swiglu_phase_duration_seconds", it | {"model": "forward", "phase": phase}, OLD_S, 0.5, mean_s, last_empty_le)
    add_histogram(history, "swiglu_request_duration_seconds", it | {"model": "forward"}, OLD_S, 0.6, 30e-6, 20e-6)
    history.add("instance:swiglu_memory_budget_used:ratio", it | {"half": "tensors"}, OLD_S, constant(0.755))
    history.add("instance:swiglu_queue_used:ratio", it, OLD_S, constant(0.0))


class ConsoleTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        now = int(time.time())
        history = History(now)
        add_old_server(history, now)
        for instance, (age_s, _, _) in SPANS.items():
            history.add("swiglu_build_info", {"instance": instance}, age_s, constant(1))
            history.add("swiglu_requests_total", {"instance": instance, "model": "forward", "code": "OK"}, age_s, constant(7))
        for code, rate in {"OK": 1000, "INTERNAL": 0.3}.items():
            history.add("swiglu_requests_total", {"instance": "most:1", "model": "forward", "code": code}, 300, steady(rate))
        history.add("instance:swiglu_queue_used:ratio", {"instance": "most:1"}, 300, constant(float("inf")))
        history.add("swiglu_build_info", {"instance": "rare:1"}, 300, constant(1), step_s=60)
        history.write(PROMTOOL, folder)
        cls.prometheus = cls.enterClassContext(Prometheus(PROMETHEUS, folder, []))
        # At once, for the youngest is in the first of its spans for a minute only.
        cls.young = {instance: cls.page(instance=instance) for instance in reversed([*SPANS, "rare:1"])}
        cls.old = cls.page(instance="old:1")

    @classmethod
    def page(cls, **parameters):
        """The page with these parameters."""
        status, text = cls.prometheus.get("/consoles/swiglu.html?" + "&".join(f"{name}={value}" for name, value in parameters.items()))
        if status != 200:
            raise AssertionError(text)
        return ConsolePage(text)

    def test_span_and_window_fit_what_there_is(self):
        for instance, (_, span, window) in SPANS.items():
            self.assertIn(f"the last {span}, rates over {window},", self.young[instance].heading, instance)
        self.assertIn("the last 10m, rates over 5m,", self.young["rare:1"].heading)

    def test_span_and_window_can_be_chosen(self):
        for span in ("1m", "10m", "30m", "1h", "6h", "24h", "7d"):
            page = self.page(instance="hours", span=span)
            self.assertIn(f"the last {span},", page.heading)
            self.assertGreaterEqual(len(page.graph("Requests per second").points), 1, span)
        self.assertIn("the last 1h, rates over 7m,", self.page(instance="hours", rate="7m", span="1y").heading)
        self.assertIn("rates over 5m,", self.page(instance="hours", rate="x").heading)

    def test_axes_end_now_and_begin_a_span_ago(self):
        (begin, middle, end), = {tuple(graph.times) for graph in self.old.graphs().values()}
        minutes = [int(told[:2]) * 60 + int(told[3:]) for told in (begin, middle, end)]
        self.assertEqual([(later - earlier) % 1440 for earlier, later in zip(minutes, minutes[1:])], [30, 30])
        self.assertEqual([back for back, _ in self.old.graph("Requests per second").points], list(range(59, -1, -1)))

    def test_number_above_a_graph_is_its_last_point_and_none_is_above_the_axis(self):
        graph = self.old.graph("Requests per second")
        self.assertAlmostEqual(graph.points[-1][1], 0.5 + 1 / 60 + 0.1 + 0.00005, 4)
        self.assertAlmostEqual(max(value for _, value in graph.points), 3 + 1 / 60 + 0.1 + 0.00005, 4)
        self.assertEqual((graph.now, graph.top), ("0.617", "3.12"))

    def test_tables_add_up_to_the_numbers_above_the_graphs(self):
        ends = {row["code"]: (row["per second"], row["share"]) for row in self.old.table("How requests ended")}
        self.assertEqual(ends, {"OK": ("0.5", "81.1 %"), "INVALID_ARGUMENT": ("0.1", "16.2 %"), "INTERNAL": ("0.0167", "2.7 %"),
                                "NOT_FOUND": ("< 0.0001", "< 0.01 %")})
        self.assertEqual(self.old.graph("Requests failed by the server").now, "2.7 %")
        forward, unknown = self.old.table("Models")
        self.assertEqual((forward["requests/s"], forward["failed/s"], forward["callers' errors/s"]), ("0.617", "0.0167", "0.1"))
        self.assertEqual((unknown["requests/s"], unknown["failed/s"], unknown["callers' errors/s"]), ("< 0.0001", "–", "< 0.0001"))
        [replica] = self.old.table("Replicas")
        self.assertEqual((replica["requests/s"], replica["ready"], replica["resident"]), ("0.617", "yes", "37.6 MiB"))
        self.assertRegex(replica["up for"], r"^1 d 2 h \d+ min$")

    def test_large_numbers_are_of_what_is_large(self):
        self.assertEqual(self.old.table("Models")[0]["elements/s"], "21.7 M")
        self.assertEqual(self.old.graph("Message bytes per second, in and out").now, "3.37 MiB")

    def test_zeros_are_zeros(self):
        self.assertEqual(self.old.table("Refused or dropped"), [{"reason": "invalid", "per second": "0.1"},
                                                                {"reason": "budget", "per second": "0"}])
        idle = self.page(instance="half:1")
        self.assertEqual(idle.graph("Requests per second").now, "0")
        self.assertEqual(idle.graph("Requests failed by the server").now, "no requests")
        self.assertEqual((self.old.graph("Queue used, fullest").now, self.old.graph("Queue used, fullest").top), ("0 %", "100 %"))
        self.assertEqual(self.old.graph("Memory budget used, fullest half").now, "75.5 %")

    def test_what_is_not_quite_all_is_not_told_as_all(self):
        page = self.page(instance="most:1")
        self.assertEqual({row["code"]: row["share"] for row in page.table("How requests ended")}, {"OK": "> 99.9 %", "INTERNAL": "0.03 %"})

    def test_what_is_no_number_is_not_shown(self):
        graph = self.page(instance="most:1").graph("Queue used, fullest")
        self.assertEqual((graph.now, graph.points), ("no data yet", []))

    def test_mean_median_and_p99_of_a_phase_agree(self):
        phases = {row["phase"]: (row["mean"], row["median"], row["p99"]) for row in self.old.table("Phases of served requests")}
        self.assertEqual(phases, {
            "copy_in": ("0 s", "0 s", "0 s"), "queue": ("742 ns", "< 10 µs", "< 10 µs"),
            "compute": ("30 µs", "35 µs", "49.7 µs"), "send": ("12 s", "> 10 s", "> 10 s")})

    def test_ends_of_the_histogram_are_the_servers(self):
        page = (rule_files.DEPLOYED / "consoles/swiglu.html").read_text()
        buckets = re.search(r"kDurationBuckets = \{(.*?)\}", (rule_files.ROOT / "server/metrics/names.h").read_text(), re.DOTALL)[1]
        bounds = [float(bound) for bound in buckets.split(",")]
        told = re.search(r'"quantile" .*?le [.]arg0 ([0-9.]+) .*?ge [.]arg0 ([0-9.]+) ', page, re.DOTALL)
        self.assertEqual([float(bound) for bound in told.groups()], [bounds[0], bounds[-1]])

    def test_nothing_is_told_in_thousandths(self):
        for title, section in self.old.sections.items():
            for told in [section.graph.now, section.graph.top, *(cell for row in section.rows for cell in row)]:
                self.assertIsNone(re.search(r"\d m?[mk]?$|\dm\b", told), f"{title}: {told}")

    def test_of_nothing_it_says_so(self):
        page = self.page(instance="nowhere")
        self.assertEqual({graph.now for graph in page.graphs().values()}, {"no data yet", "no requests", "no batches"})
        self.assertEqual({tuple(graph.points) for graph in page.graphs().values()}, {()})
        self.assertEqual(page.sections["Replicas"].rows[1:], [["no server is scraped"]])


def main():
    """Takes the folder of Prometheus's programs from the command line and leaves the rest to unittest."""
    global PROMETHEUS, PROMTOOL
    parser = argparse.ArgumentParser()
    parser.add_argument("--prometheus", required=True)
    own, rest = parser.parse_known_args()
    PROMETHEUS, PROMTOOL = prometheus_programs.fetch(own.prometheus)
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
