#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The rules pass promtool's linter, each alert has what people need who are woken by it, and each fires in one test and keeps
# silent in another. live_test.py shows that the series exist that they read.
#
#   rules_test.py --prometheus=FOLDER
import argparse
import pathlib
import re
import subprocess
import sys
import unittest

import yaml

import prometheus_programs
import rule_files
from rule_files import DEPLOYED, ROOT, alerts

TESTS = sorted(pathlib.Path(__file__).parent.glob("rules/*_test.yml"))
MONITORING_PAGE = ROOT / "docs/operations/monitoring.md"
SEVERITIES = {"critical", "warning", "info"}
RUNBOOK_SECTIONS = ["What it means", "What to look at", "What to do"]

PROMTOOL = ""


def run(*command):
    """Runs a program; returns its exit code and all that it said."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=240)
    return result.returncode, result.stdout + result.stderr


class PromtoolTest(unittest.TestCase):
    def assert_passes(self, *arguments):
        code, said = run(PROMTOOL, *arguments)
        self.assertEqual(code, 0, said)

    def test_rules_pass_the_linter(self):
        self.assert_passes("check", "rules", "--lint=all", "--lint-fatal", *map(str, rule_files.PATHS))

    def test_configuration_finds_the_rules(self):
        code, said = run(PROMTOOL, "check", "config", str(DEPLOYED / "prometheus.yml"))
        self.assertEqual(code, 0, said)
        self.assertIn(f"{len(rule_files.PATHS)} rule files found", said)

    def test_alerts_fire_and_keep_silent(self):
        self.assert_passes("test", "rules", *map(str, TESTS))


class CoverageTest(unittest.TestCase):
    def test_each_alert_has_a_test_in_which_it_fires_and_one_in_which_it_does_not(self):
        rules, fired, silent = self.rules(), set(), set()
        for path in TESTS:
            for test in yaml.safe_load(path.read_text())["tests"]:
                for case in test["alert_rule_test"]:
                    told = [{*alert["exp_labels"].items()} for alert in case["exp_alerts"]]
                    for rule in rules:
                        if rule[0] == case["alertname"]:
                            (fired if any(rule[1] <= labels for labels in told) else silent).add(rule)
        self.assertEqual(rules - fired, set(), "never fired")
        self.assertEqual(rules - silent, set(), "never silent")

    @staticmethod
    def rules():
        """Every alerting rule, by the alert's name and the labels that tell rules of one name apart."""
        return {(rule["alert"], frozenset(rule["labels"].items())) for rule in alerts()}


class AlertTest(unittest.TestCase):
    def test_each_has_severity_summary_description_and_runbook(self):
        for rule in alerts():
            with self.subTest(rule["alert"]):
                self.assertIn(rule["labels"]["severity"], SEVERITIES)
                self.assertEqual(sorted(rule["annotations"]), ["description", "runbook_url", "summary"])
                self.assertTrue(rule["annotations"]["summary"])
                self.assertTrue(rule["annotations"]["description"].endswith("."))
                self.assertEqual(rule["annotations"]["runbook_url"], f"docs/runbooks/{rule['alert']}.md")

    def test_each_has_a_runbook_page_with_every_section(self):
        pages = {path.stem: path.read_text() for path in ROOT.glob("docs/runbooks/*.md")}
        self.assertEqual(set(pages), {rule["alert"] for rule in alerts()})
        for name, text in pages.items():
            with self.subTest(name):
                self.assertTrue(text.startswith(f"# {name}\n"))
                self.assertEqual(re.findall("^## (.*)$", text, re.MULTILINE), RUNBOOK_SECTIONS)

    def test_runbooks_name_only_what_there_is(self):
        metrics = {line.partition("{")[0] for line in (ROOT / "tests/metrics/golden_metrics.txt").read_text().splitlines()}
        flags = set(re.findall(r'"(\w+)"', (ROOT / "server/flags.cc").read_text()))
        panels = (ROOT / "deploy/grafana/dashboards/swiglu.json").read_text()
        for path in ROOT.glob("docs/runbooks/*.md"):
            with self.subTest(path.name):
                text = path.read_text()
                named = re.findall(r"\b(?:\w+:)?(?:swiglu|nv|process)_[a-z_]+(?::\w+)?", text)
                self.assertEqual(set(named) - metrics - rule_files.records(), set())
                self.assertEqual(set(re.findall(r"`--(\w+)", text)) - flags, set())
                titles = re.findall(r"panel \*([^*]+)\*", text)
                self.assertEqual([title for title in titles if f'"title": "{title}"' not in panels], [])

    def test_monitoring_page_lists_each_with_its_severities(self):
        row = r"^\| \[(\w+)\]\(\.\./runbooks/(\w+)\.md\) \| ([\w, ]+) \|"
        rows = re.findall(row, MONITORING_PAGE.read_text(), re.MULTILINE)
        listed = {(name, page, severity) for name, page, severities in rows for severity in severities.split(", ")}
        self.assertEqual(listed, {(rule["alert"], rule["alert"], rule["labels"]["severity"]) for rule in alerts()})

    def test_latency_bound_is_one_and_a_bucket_of_the_server(self):
        bounds = set(re.findall(r'le="([^"]+)"', (DEPLOYED / "rules/objectives.yml").read_text()))
        self.assertEqual(bounds, {"0.1"})
        buckets = re.search(r"kDurationBuckets = \{(.*?)\}", (ROOT / "server/metrics/names.h").read_text(), re.DOTALL)[1]
        self.assertIn("0.1", re.split(r"[,\s]+", buckets))

    def test_failures_are_the_same_codes_everywhere(self):
        sources = ("prometheus/rules/objectives.yml", "prometheus/consoles/swiglu.html", "grafana/dashboard.py")
        for name in sources:
            codes = set(re.findall(r'"(UNKNOWN\|[A-Z_|]+)"', (ROOT / "deploy" / name).read_text()))
            self.assertEqual(codes, {"UNKNOWN|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|DATA_LOSS"}, name)


class KubernetesTest(unittest.TestCase):
    def test_prometheus_rule_has_the_same_rules(self):
        code, said = run(str(DEPLOYED / "prometheus_rule.sh"))
        self.assertEqual(code, 0, said)
        manifest = yaml.safe_load(said)
        self.assertEqual((manifest["apiVersion"], manifest["kind"]), ("monitoring.coreos.com/v1", "PrometheusRule"))
        self.assertEqual(manifest["spec"]["groups"], rule_files.groups())


def main():
    """Takes the folder of Prometheus's programs from the command line and leaves the rest to unittest."""
    global PROMTOOL
    parser = argparse.ArgumentParser()
    parser.add_argument("--prometheus", required=True)
    own, rest = parser.parse_known_args()
    _, PROMTOOL = prometheus_programs.fetch(own.prometheus)
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
