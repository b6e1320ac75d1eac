# SPDX-License-Identifier: Apache-2.0
#
# The rules of deploy/prometheus as the tests read them.
import pathlib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOYED = ROOT / "deploy/prometheus"
PATHS = sorted(DEPLOYED.glob("rules/*.yml"))


def groups():
    """The groups of all files, in order."""
    return [group for path in PATHS for group in yaml.safe_load(path.read_text())["groups"]]


def alerts():
    """The alerting rules."""
    return [rule for group in groups() for rule in group["rules"] if "alert" in rule]


def records():
    """The names of the recording rules."""
    return {rule["record"] for group in groups() for rule in group["rules"] if "record" in rule}
