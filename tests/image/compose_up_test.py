#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Starts deploy/compose.yaml for real on the CPU, with stand-ins for Prometheus's and Grafana's images, and goes the way of the
# figures: the server is scraped by its name, the rules are evaluated, and the queries of the dashboard have answers where Grafana asks
# for them. Only the intervals of scrapes are others, for time. Runs in the engine, as compose_set_up.py starts it:
#
#   compose_up_test.py ROOT COMPOSE BENCH
import http.client
import json
import pathlib
import re
import shutil
import sys
import tempfile
import time
import unittest
import urllib.parse

import dashboard_file
import engine_process
from engine_process import DEADLINE_S, Service

ROOT, COMPOSE, BENCH = pathlib.Path(), "", ""

# Of the dashboard: there is no GPU here, no MLP and no alert.
ROWS_THAT_NEED_MORE = ("GPU", "MLPs")
PANEL_OF_ALERTS = "Alerts"

SERVICES = {"server-cpu": "swiglu", "prometheus": "prometheus-stand-in", "grafana": "grafana-stand-in"}


def get(port, path):
    """Asks a published port for a page; returns its text, or None where nothing answers with one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.read().decode() if response.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def ask(expression):
    """Has Grafana's stand-in ask its data source; returns the result's series, or None where none answers."""
    text = get(3000, "/cgi-bin/query?" + urllib.parse.urlencode({"query": expression}))
    if not text:
        return None
    answer = json.loads(text)
    if answer["status"] != "success":
        raise AssertionError(f"{expression}: {answer}")
    return answer["data"]["result"]


class ComposeUpTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        for name in ("deploy", "docs/runbooks"):
            shutil.copytree(ROOT / name, cls.folder / name)
        configuration = cls.folder / "deploy/prometheus/prometheus.yml"
        text, count = re.subn(r"(_interval): 15s", r"\1: 500ms", configuration.read_text())
        assert count == 2, text
        configuration.write_text(text)
        cls.service = cls.enterClassContext(Service())
        cls.environment = cls.service.environment | {
            "SWIGLU_IMAGE": "localhost/swiglu", "PROMETHEUS_IMAGE": "localhost/prometheus-stand-in",
            "GRAFANA_IMAGE": "localhost/grafana-stand-in"}

    def compose(self, *arguments):
        """Runs Compose on the file; returns subprocess's CompletedProcess."""
        return engine_process.run(COMPOSE, "--ansi=never", "--progress=plain", "-f", self.folder / "deploy/compose.yaml", *arguments,
                                  env=self.environment)

    def assert_does(self, *arguments):
        """Runs Compose with the profile of the CPU, which must succeed; returns what it prints."""
        done = self.compose("--profile=cpu", *arguments)
        self.assertEqual(done.returncode, 0, f"{arguments}: {done.stdout}{done.stderr}")
        return done.stdout

    def wait_for(self, expression, what):
        """Asks Grafana's stand-in until the expression has a result. Fails when a container has ended."""
        deadline = time.monotonic() + DEADLINE_S
        while not (result := ask(expression)):
            running = set(self.assert_does("ps", "--services", "--status=running").split())
            if running != set(SERVICES) or time.monotonic() > deadline:
                raise AssertionError(f"{what}; running are {sorted(running)}\n{self.assert_does('logs')}\n"
                                     f"{get(9090, '/api/v1/targets')}")
        return result

    def test_without_a_profile_it_says_what_to_do(self):
        for command in (["up"], ["up", "--detach"], ["down"]):
            done = self.compose(*command)
            self.assertEqual(done.returncode, 1)
            self.assertIn('"choose--profile-gpu-or--profile-cpu"', done.stderr)
            self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)

    def test_up_scraped_asked_and_down(self):
        self.addCleanup(self.compose, "--profile=cpu", "down", "--volumes", "--timeout=0")
        self.assert_does("up", "--detach", "--no-build", "--pull=never")
        self.assertEqual(set(self.assert_does("ps", "--all", "--services").split()), set(SERVICES))

        self.wait_for('up{job="swiglu",instance="server:8002"} == 1', "Prometheus does not scrape the server")
        load = engine_process.run(BENCH, "--server=127.0.0.1:8001", "--requests=50", "--warm_up=0")
        self.assertEqual(load.returncode, 0, load.stdout + load.stderr)
        self.wait_for('sum(rate(swiglu_requests_total{code="OK"}[1m])) > 0', "the requests are in no rate")
        self.wait_for("job:swiglu_request_errors:ratio_rate5m", "the rules are not evaluated")

        self.assertEqual(self.panels_without_an_answer(), [])
        page = get(9090, "/consoles/swiglu.html")
        self.assertIn("server:8002", page)

        self.assert_does("stop")
        state = engine_process.inspect("container", "swiglu-server-cpu-1")["State"]
        self.assertEqual(state["ExitCode"], 0, engine_process.logs("swiglu-server-cpu-1"))
        self.assert_does("down", "--volumes")
        self.assertEqual(engine_process.podman("ps", "--all", "--quiet"), "")
        self.assertEqual(engine_process.podman("volume", "ls", "--quiet"), "")

    @staticmethod
    def panels_without_an_answer():
        """The queries that select nothing, of the dashboard that Grafana opens on."""
        panels = dashboard_file.panels(json.loads(get(3000, "/cgi-bin/home")))
        queries = [(panel, dashboard_file.filled(expression, interval="1m")) for panel in panels
                   if panel.row not in ROWS_THAT_NEED_MORE and panel.title != PANEL_OF_ALERTS for expression in panel.expressions]
        assert queries
        return [f"{panel.title}: {query}" for panel, query in queries if not ask(query)]


if __name__ == "__main__":
    ROOT, COMPOSE, BENCH = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    del sys.argv[1:]
    unittest.main()
