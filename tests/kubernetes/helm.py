# SPDX-License-Identifier: Apache-2.0
#
# Renders and checks the chart of deploy/helm with helm.
import re

import yaml

import facts
import packed_tools

CHART = facts.ROOT / "deploy/helm/swiglu"
RELEASE, NAMESPACE = "swiglu-server", "swiglu"
# What helm says before the sentences of the schema or of a template, and after them.
PREAMBLE = re.compile(r"^(Error: values don't meet .*|swiglu:|Error: execution error at \([^)]*\): |Use --debug .*)")


def template(*arguments, release=RELEASE, chart=CHART):
    """Returns the finished process of `helm template`."""
    return packed_tools.run("helm", "template", release, chart, "--namespace", NAMESPACE, *arguments)


def render(*arguments, **where):
    """Returns the objects that `helm template` makes of the chart."""
    result = template(*arguments, **where)
    if result.returncode != 0 or result.stderr:
        raise AssertionError(f"helm template {' '.join(arguments)}: exit {result.returncode}\n{result.stderr}")
    return [each for each in yaml.safe_load_all(result.stdout) if each]


def faults(*arguments):
    """Returns the sentences that `helm template` has against the arguments, in any order; [] if it takes them."""
    sentences = [PREAMBLE.sub("", line) for line in template(*arguments).stderr.splitlines()]
    return [sentence for sentence in sentences if sentence]


def lint(*arguments):
    """Returns the finished process of a strict `helm lint`."""
    return packed_tools.run("helm", "lint", "--strict", CHART, *arguments)
