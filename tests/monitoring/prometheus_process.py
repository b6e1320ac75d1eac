# SPDX-License-Identifier: Apache-2.0
#
# A real Prometheus for the tests: started with the repository's own configuration, whose targets and intervals alone are
# replaced, and asked through its HTTP interface.
import http.client
import json
import math
import pathlib
import re
import subprocess
import threading
import time
import urllib.parse

import yaml

from rule_files import DEPLOYED

DEADLINE_S = 60

# Scrapes and evaluations follow each other so fast that a few seconds are a history.
INTERVAL = "500ms"


class Prometheus:
    """A running Prometheus that scrapes `targets` and keeps its samples in the folder `folder`/data. As a context manager it ends
    with the block."""

    def __init__(self, program, folder, targets, interval=INTERVAL):
        config = yaml.safe_load((DEPLOYED / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": interval, "evaluation_interval": interval}
        config["rule_files"] = [str(DEPLOYED / pattern) for pattern in config["rule_files"]]
        config["scrape_configs"][0]["static_configs"] = [{"targets": targets}]
        path = pathlib.Path(folder) / "prometheus.yml"
        path.write_text(yaml.safe_dump(config))
        self._process = subprocess.Popen(
            [program, f"--config.file={path}", f"--storage.tsdb.path={folder}/data", "--web.listen-address=127.0.0.1:0",
             f"--web.console.templates={DEPLOYED}/consoles"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.address = self._wait_until_ready()
        # The pipe must not fill up.
        threading.Thread(target=self._process.stderr.read, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait(DEADLINE_S)
        self._process.stderr.close()

    def get(self, path):
        """Asks for a page; returns its status and text."""
        host, _, port = self.address.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=DEADLINE_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def ask(self, interface, **parameters):
        """Asks the HTTP interface; returns the data of its answer."""
        status, text = self.get(f"/api/v1/{interface}?{urllib.parse.urlencode(parameters)}")
        answer = json.loads(text)
        if answer["status"] != "success":
            raise AssertionError(f"{interface} {parameters}: {status} {answer.get('error')}")
        return answer["data"]

    def count_series(self, expression, start, end):
        """How many series `expression` has between two times with a number in them, as a graph would draw them."""
        series = self.ask("query_range", query=expression, start=start, end=end, step="1s")["result"]
        return sum(any(math.isfinite(float(value)) for _, value in one["values"]) for one in series)

    def wait_for_series(self, expression, start):
        """Waits until `expression` has a series at some time since `start`."""
        deadline = time.monotonic() + DEADLINE_S
        while not self.count_series(expression, start, time.time()):
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing like {expression} came within {DEADLINE_S} s")
            time.sleep(0.2)

    def _wait_until_ready(self):
        """Reads its log until it serves; returns where. The two lines come in any order."""
        log = ""
        for line in self._process.stderr:
            log += line
            address = re.search(r"Listening on.* address=(\S+)", log)
            if address and "Server is ready" in log:
                return address.group(1)
        raise AssertionError(f"Prometheus ended before it was ready:\n{log}")
