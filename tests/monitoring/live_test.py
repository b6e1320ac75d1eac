#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# A real Prometheus scrapes a real server under a mixed load. Every panel of the dashboard, every recording rule and every
# series that an alert reads must then have something to show, and so must the console page. Panels that need a GPU get a page
# with an example of one, printed by the code that makes the server's page, since there may be no GPU here.
#
#   live_test.py --server=PROGRAM --bench=PROGRAM --gpu_page=PROGRAM --prometheus=FOLDER --pictures=FOLDER
#     [--load=DURATION]
#
# --load is the time for each of seven kinds of load.
import argparse
import pathlib
import sys
import tempfile
import time
import unittest

import browser
import dashboard_file
import mixed_load
import prometheus_programs
import promql
import rule_files
import server_process
from console_page import ConsolePage
from example_page import ExamplePage
from prometheus_process import Prometheus
from server_process import Server

# The one list of what a server without a GPU has no series for.
ROW_THAT_NEEDS_A_GPU = "GPU"
METRICS_THAT_NEED_A_GPU = "swiglu_gpu_"
# Those of kube-state-metrics, which there are in a cluster alone.
METRICS_OF_KUBERNETES = "kube_pod_container_status_"

# The queries, by panel and legend, that may answer with zero throughout: of what does not happen to this server, or is over
# between two scrapes.
MAY_BE_ZERO = {
    "Alerts firing: firing", "Queue used: {{instance}}", "Requests queued and in flight: queued", "Requests queued and in flight: in flight",
    "Device errors: {{device}} {{kind}}", "Poisoned devices: {{instance}} {{device}}", "Connections refused: {{instance}}",
    "Connections refused: {{instance}} ended: {{reason}}", "Health: {{instance}} draining", "MLP load progress: {{instance}} {{model}} loading",
    "GPU power: {{instance}} {{device}} mean", "GPU memory errors: {{instance}} {{device}} {{kind}}",
}

PROMETHEUS = ""
GPU_PAGE = ""
PICTURES = pathlib.Path()
LOAD = "1s"

class LiveTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.start = time.time()
        cls.folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        mlp = f"{cls.folder}/tiny.safetensors"
        cls.server = cls.enterClassContext(Server(*mixed_load.SERVER_FLAGS, *mixed_load.write_mlp(mlp)))
        gpu = cls.enterClassContext(ExamplePage(server_process.run(GPU_PAGE).stdout))
        cls.instance = f"127.0.0.1:{cls.server.metrics_port}"
        cls.gpu_instance = gpu.address
        cls.prometheus = cls.enterClassContext(Prometheus(PROMETHEUS, cls.folder, [cls.instance, gpu.address]))
        gpu.wait_for_scrapes(3)
        for model in ("swiglu_backward_bf16", "swiglu_forward_fp16"):
            cls.enterClassContext(mixed_load.SteadyLoad(cls.server, model))
        mixed_load.overload(cls.server, LOAD)
        mixed_load.serve_every_model(cls.server, LOAD)
        mixed_load.share_memory(cls.server)
        mixed_load.use_mlp(cls.server, mlp)
        mixed_load.make_mistakes(cls.server)
        # Both targets are scraped and the rules evaluated once more, with what came last.
        gpu.wait_for_scrapes(3)
        cls.prometheus.wait_for_series("rate(swiglu_refused_regions_total[3s]) > 0", cls.start)
        cls.end = time.time()

    def count(self, expression):
        """How many series the expression has shown since the start."""
        return self.prometheus.count_series(expression, self.start, self.end)

    def count_above_zero(self, expression):
        """How many of them were above zero at some time. Every series is there from the first scrape, whatever its labels."""
        return self.count(f"({expression}) > 0")

    def test_every_panel_shows_something(self):
        empty, zero = [], []
        for panel in dashboard_file.panels(dashboard_file.read()):
            needs_gpu = panel.row == ROW_THAT_NEEDS_A_GPU
            instance = self.gpu_instance if needs_gpu else self.instance
            counts = [self.count(dashboard_file.filled(expression, "swiglu", instance, "3s"))
                      for expression in panel.expressions]
            print(f"{panel.row} / {panel.title}: {' + '.join(map(str, counts))} series"
                  f"{' of the example page' if needs_gpu else ''}", flush=True)
            if not counts or 0 in counts:
                empty.append(panel.title)
            zero += [f"{panel.title}: {target['legendFormat']}" for target in panel.definition["targets"]
                     if not self.count_above_zero(dashboard_file.filled(target["expr"], "swiglu", instance, "3s"))]
        self.assertEqual(empty, [])
        self.assertEqual([query for query in zero if query not in MAY_BE_ZERO], [])

    def test_panels_of_the_gpu_row_show_nothing_without_one(self):
        for panel in dashboard_file.panels(dashboard_file.read()):
            if panel.row == ROW_THAT_NEEDS_A_GPU:
                for expression in panel.expressions:
                    self.assertEqual(self.count(dashboard_file.filled(expression, "swiglu", self.instance, "3s")), 0,
                                     f"{panel.title}: move it to another row")

    def test_variables_have_values(self):
        for name, metric in (("job", "swiglu_build_info"), ("instance", "swiglu_build_info"), ("model", "swiglu_requests_total")):
            self.assertTrue(self.prometheus.ask(f"label/{name}/values", **{"match[]": metric}))

    def test_every_recording_rule_has_a_result(self):
        self.assertEqual([record for record in rule_files.records() if self.count(record) == 0], [])

    def test_every_series_that_an_alert_reads_is_there(self):
        missing = []
        for rule in rule_files.alerts():
            for selector in promql.selectors(rule["expr"]):
                if selector.name.startswith(METRICS_OF_KUBERNETES):
                    continue
                needs_gpu = selector.name.startswith(METRICS_THAT_NEED_A_GPU) or 'device!="cpu"' in selector.text
                instance = self.gpu_instance if needs_gpu else self.instance
                if not any(series.get("instance", instance) == instance for series in self.series(selector.text)):
                    missing.append(f"{rule['alert']}: {selector.text}")
        self.assertEqual(missing, [])

    def test_console_page_shows_every_figure_and_can_be_drawn(self):
        mixed_load.make_mistakes(self.server)
        path = f"/consoles/swiglu.html?span=1m&rate=10s&instance={self.instance}"
        self.draw(f"http://{self.prometheus.address}{path}")
        status, text = self.prometheus.get(path)
        self.assertEqual(status, 200, text)
        page = ConsolePage(text)
        for title, graph in page.graphs().items():
            self.assertGreaterEqual(len(graph.points), 3, title)
        for title, section in page.sections.items():
            self.assertTrue(section.rows or section.graph.points, title)
        self.assertEqual(text.count('<p class="now none">') + text.count('<td class="none">'), 0)
        phases = {row.pop("phase"): row for row in page.table("Phases of served requests")}
        self.assertEqual({phases["copy_in"][kind] for kind in ("mean", "median", "p99")}, {"0 s"})
        self.assertNotIn("GPUs", page.sections)

    def test_console_page_shows_a_gpu(self):
        status, text = self.prometheus.get(f"/consoles/swiglu.html?instance={self.gpu_instance}")
        self.assertEqual(status, 200, text)
        [gpu] = ConsolePage(text).table("GPUs")
        self.assertEqual((gpu["device"], gpu["of"]), ("0", "74.5 GiB"))

    def draw(self, url):
        """Leaves a picture of the page, where there is a browser that makes one."""
        if browser.CHROMIUM is None:
            print("skipped: no chromium for a picture of the console page", flush=True)
            return
        picture = PICTURES / "console.png"
        browser.draw(url, picture, self.folder)
        self.assertEqual(picture.read_bytes()[:8], b"\x89PNG\r\n\x1a\n")
        self.assertLess(picture.stat().st_size, 200_000)
        print(f"picture: {picture}, {picture.stat().st_size} bytes")

    def series(self, selector):
        """The labels of every series that it selects."""
        return self.prometheus.ask("series", **{"match[]": selector}, start=self.start, end=self.end)


def main():
    """Takes what is its own from the command line and leaves the rest to server_process."""
    global PROMETHEUS, GPU_PAGE, PICTURES, LOAD
    parser = argparse.ArgumentParser()
    for flag in ("prometheus", "gpu_page", "pictures"):
        parser.add_argument(f"--{flag}", required=True)
    parser.add_argument("--load", default=LOAD)
    own, sys.argv[1:] = parser.parse_known_args()
    PROMETHEUS, _ = prometheus_programs.fetch(own.prometheus)
    GPU_PAGE, PICTURES, LOAD = own.gpu_page, pathlib.Path(own.pictures), own.load
    server_process.main()


if __name__ == "__main__":
    main()
