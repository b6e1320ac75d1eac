# SPDX-License-Identifier: Apache-2.0
#
# The committed dashboard as the tests see it: its panels, and their queries as PromQL once Grafana's variables have values.
import json
import pathlib
import re
from typing import NamedTuple
ROOT = pathlib.Path(__file__).resolve().parents[2]
PATH = ROOT / "deploy/grafana/dashboards/swiglu.json"


class Panel(NamedTuple):
    """One panel below the row of that name."""

    row: str
    title: str
    definition: dict

    @property
    def expressions(self):
        """Its queries, with Grafana's variables in them."""
        return [target["expr"] for target in self.definition["targets"]]


def read():
    """The whole dashboard."""
    return json.loads(PATH.read_text())


def panels(dashboard):
    """Its panels in order, but for the rows themselves. A collapsed row holds its panels; those of an open one follow it."""
    row, found = None, []
    for definition in dashboard["panels"]:
        if definition["type"] == "row":
            row = definition["title"]
            found += [Panel(row, inner["title"], inner) for inner in definition["panels"]]
        else:
            found.append(Panel(row, definition["title"], definition))
    return found


def filled(expression, job=".+", instance=".+", interval="5m"):
    """The query that Grafana sends for `expression`, with everything chosen but for the job and the replica that are given."""
    values = {"__rate_interval": interval, "cluster": ".*", "namespace": ".*", "job": job, "instance": instance, "model": ".+"}
    return re.sub(r"\$(\w+)", lambda name: values[name[1]], expression)
