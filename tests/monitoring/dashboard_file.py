# SPDX-License-Identifier: Apache-2.0
#
# The committed dashboard as the tests see it: its panels, and their queries as PromQL once Grafana's variables have values.
import json
import pathlib
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
    """Its panels in order, but for the rows themselves."""
    row, found = None, []
    for definition in dashboard["panels"]:
        if definition["type"] == "row":
            row = definition["title"]
        else:
            found.append(Panel(row, definition["title"], definition))
    return found


def filled(expression, job=".+", instance=".+", interval="5m"):
    """The query that Grafana sends for `expression`."""
    return expression.replace("$__rate_interval", interval).replace("$instance", instance).replace("$job", job)
