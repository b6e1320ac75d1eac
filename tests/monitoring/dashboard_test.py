#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The committed dashboard is what its source prints, the source passes its library's types, and every panel keeps the rules
# that make it work in somebody else's Grafana. live_test.py shows that the queries have answers.
import re
import subprocess
import sys
import unittest

import dashboard_file
import promql

SOURCES = dashboard_file.ROOT / "deploy/grafana"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
GOLDEN_METRICS = dashboard_file.ROOT / "tests/metrics/golden_metrics.txt"

# The variables by which people choose, each among what the ones before have left.
CHOICES = ["cluster", "namespace", "job", "instance", "model"]

# Metrics that no panel shows: the same figures under other names, and two that say nothing about a service.
NOT_SHOWN = re.compile("nv_.*|process_virtual_memory_bytes|swiglu_dropped_log_lines_total")


def run(*arguments):
    """Runs Python beside the sources; returns subprocess's CompletedProcess, with text."""
    return subprocess.run([sys.executable, "-B", *arguments], cwd=SOURCES, capture_output=True, text=True, timeout=120)


class SourceTest(unittest.TestCase):
    def test_committed_file_is_what_the_source_prints(self):
        result = run("dashboard.py")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertTrue(result.stdout == dashboard_file.PATH.read_text(),
                        "stale: python3 deploy/grafana/dashboard.py >deploy/grafana/dashboards/swiglu.json")

    def test_source_passes_its_types(self):
        result = run("-m", "mypy", "--strict", "--cache-dir=/dev/null", "dashboard.py")
        self.assertEqual(result.returncode, 0, result.stdout + result.stderr)


class DashboardTest(unittest.TestCase):
    def setUp(self):
        self.dashboard = dashboard_file.read()
        self.panels = dashboard_file.panels(self.dashboard)

    def assert_each(self, holds):
        """`holds` is true of every panel."""
        self.assertEqual([panel.title for panel in self.panels if not holds(panel)], [])

    def selectors(self):
        """Yields panel and selector for every one in every query."""
        for panel in self.panels:
            for expression in panel.expressions:
                for selector in promql.selectors(dashboard_file.filled(expression)):
                    yield panel, selector

    def test_paths_that_it_names_are_there(self):
        paths = set(re.findall(r"\b(?:deploy|docs)/[\w/.-]*\w", dashboard_file.PATH.read_text()))
        self.assertTrue(paths)
        self.assertEqual([path for path in paths if not (dashboard_file.ROOT / path).exists()], [])

    def test_nobody_edits_it_in_place(self):
        self.assertIs(self.dashboard["editable"], False)

    def test_data_source_is_a_variable_and_everything_uses_it(self):
        first = self.dashboard["templating"]["list"][0]
        self.assertEqual((first["type"], first["name"], first["query"]), ("datasource", "datasource", "prometheus"))
        for variable in self.dashboard["templating"]["list"][1:-1]:
            self.assertEqual(variable["datasource"], DATASOURCE)
        self.assert_each(lambda panel: panel.definition["datasource"] == DATASOURCE)
        self.assert_each(lambda panel: all(target["datasource"] == DATASOURCE for target in panel.definition["targets"]))

    def test_every_panel_has_title_description_unit_query_and_id_of_its_own(self):
        self.assert_each(lambda panel: panel.title and panel.row)
        self.assert_each(lambda panel: panel.definition["description"].endswith("."))
        self.assert_each(lambda panel: panel.definition["fieldConfig"]["defaults"]["unit"])
        self.assert_each(lambda panel: panel.definition["targets"])
        for key in ("id", "title"):
            found = [panel.definition[key] for panel in self.panels]
            self.assertEqual(len(found), len(set(found)), key)

    def test_panels_fill_their_rows_and_do_not_overlap(self):
        rows = [panel for panel in self.dashboard["panels"] if panel["type"] == "row"]
        for panels in [self.dashboard["panels"], *(row["panels"] for row in rows if row["panels"])]:
            cells = set()
            for panel in panels:
                place = panel["gridPos"]
                mine = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
                self.assertFalse(cells & mine, panel["title"])
                cells |= mine
            for line in {y for _, y in cells}:
                self.assertEqual({x for x, y in cells if y == line}, set(range(24)), panels[0]["title"])

    def test_overview_is_open_and_the_rows_below_it_are_collapsed(self):
        rows = [panel for panel in self.dashboard["panels"] if panel["type"] == "row"]
        self.assertEqual([(row["title"], row["collapsed"]) for row in rows],
                         [(row["title"], row["title"] != "Overview") for row in rows])
        self.assertEqual(rows[0]["title"], "Overview")
        self.assertEqual([row["title"] for row in rows[1:] if not row["panels"]], [])

    def test_cluster_namespace_job_replica_and_model_are_chosen_in_that_order(self):
        names = [variable["name"] for variable in self.dashboard["templating"]["list"]]
        self.assertEqual(names, ["datasource", *CHOICES, "runbooks"])
        for place, name in enumerate(CHOICES):
            variable = self.dashboard["templating"]["list"][place + 1]
            [selector] = promql.selectors(re.fullmatch(rf"label_values\((.*), {name}\)", variable["query"])[1])
            self.assertEqual(selector.labels, set(CHOICES[:place]), name)
            # What has no such label is there too, where nothing is chosen.
            self.assertEqual(variable["allValue"], ".*" if name in ("cluster", "namespace") else ".+")

    def test_every_query_is_for_what_is_chosen(self):
        with_model = {name for name in re.findall(r"^(\w+)\{[^}]*\bmodel\b", GOLDEN_METRICS.read_text(), re.MULTILINE)}
        self.assertIn("swiglu_requests_total", with_model)
        for panel, selector in self.selectors():
            wanted = {"cluster", "namespace", "job", "instance"}
            if selector.name == "ALERTS" or selector.name.startswith("job:"):
                wanted -= {"instance"}
            elif selector.name.endswith("_objective:ratio"):
                continue
            elif re.sub("_(bucket|sum|count)$", "", selector.name) in with_model:
                wanted |= {"model"}
            self.assertLessEqual(wanted, selector.labels, f"{panel.title}: {selector.text}")

    def test_panels_link_to_the_runbooks_that_name_them(self):
        pages = {path.stem: path.read_text() for path in (dashboard_file.ROOT / "docs/runbooks").glob("*.md")}
        linked = set()
        for panel in self.panels:
            urls = [link["url"] for link in panel.definition["links"]]
            self.assertEqual(urls, [f"${{runbooks}}/{name}.md" for name, page in sorted(pages.items()) if f"*{panel.title}*" in page])
            linked |= set(urls)
        self.assertGreater(len(linked), len(pages) / 2)

    def test_alerts_link_to_their_runbooks(self):
        [panel] = [panel for panel in self.panels if panel.title == "Alerts"]
        [override] = panel.definition["fieldConfig"]["overrides"]
        self.assertEqual(override["matcher"], {"id": "byName", "options": "alertname"})
        self.assertEqual(override["properties"][0]["value"][0]["url"], "${runbooks}/${__value.raw}.md")
        compose = (dashboard_file.ROOT / "deploy/compose.yaml").read_text()
        served = self.dashboard["templating"]["list"][-1]["query"]
        self.assertIn(f"- ../docs/runbooks:/usr/share/grafana{served}:ro\n", compose)

    def test_counters_are_rates_over_grafanas_own_interval(self):
        for panel in self.panels:
            for expression in panel.expressions:
                self.assertEqual(set(re.findall(r"\[[^]]*\]", expression)) - {"[$__rate_interval]"}, set(), panel.title)
        for panel, selector in self.selectors():
            is_counter = re.search("_(total|bucket|sum|count)$", selector.name) is not None
            self.assertEqual(selector.has_range, is_counter, f"{panel.title}: {selector.text}")

    def test_every_metric_of_the_server_is_in_a_panel(self):
        names = [line.partition("{")[0] for line in GOLDEN_METRICS.read_text().splitlines() if not line.startswith("#")]
        shown = {re.sub("_(bucket|sum|count)$", "", selector.name) for _, selector in self.selectors()}
        rules = (dashboard_file.ROOT / "deploy/prometheus/rules/saturation.yml").read_text()
        missing = [name for name in names
                   if name not in shown and not NOT_SHOWN.fullmatch(name) and not re.search(rf"record: .*\n.*{name}", rules)]
        self.assertEqual(missing, [])


class ProvisioningTest(unittest.TestCase):
    def test_grafana_finds_the_dashboard_and_prometheus(self):
        text = {path.name: path.read_text() for path in SOURCES.glob("provisioning/*/*.yaml")}
        self.assertIn("path: /etc/grafana/dashboards", text["swiglu.yaml"])
        self.assertIn("url: http://prometheus:9090", text["prometheus.yaml"])


if __name__ == "__main__":
    unittest.main()
