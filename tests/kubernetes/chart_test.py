# SPDX-License-Identifier: Apache-2.0
#
# Renders the chart of deploy/helm with helm. With the values that the page names, its objects are those of the overlays of
# deploy/kubernetes. Every value does what chart_values.txt says, and wrong ones are errors.
import argparse
import json
import pathlib
import shutil
import sys
import tempfile
import unittest

import yaml

import checks
import facts
import helm
import kubectl
import pod_policies
import schema_check
from workloads import Workload, found, name_of

PAGE = facts.ROOT / "docs/operations/kubernetes.md"
MLP_VALUES = facts.ROOT / "tests/kubernetes/mlp_values.yaml"
SHORT_PATHS = {"pod": "Deployment spec template spec", "container": "Deployment spec template spec containers *"}
# By the overlay that the chart equals with it.
VALUES = {
    "cpu": "--set device=cpu",
    "gpu": "--set device=gpu",
    "production": "--set device=gpu,serviceMonitor.enabled=true,autoscaling.enabled=true",
}

options = argparse.Namespace(server="")  # the command line's


def cases():
    """Returns the groups of chart_values.txt: the arguments of helm, and the lines below them."""
    groups = []
    text = (facts.ROOT / "tests/kubernetes/chart_values.txt").read_text().replace("VERSION", facts.version())
    for line in text.splitlines():
        if line.startswith("  "):
            groups[-1][1].append(line.strip())
        elif line and not line.startswith("#"):
            groups.append(([f"--set-json={each.replace(' = ', '=', 1)}" for each in line.split("; ")], []))
    return groups


def at(objects, where):
    """Returns what lies at a path that begins with a kind, None if there is nothing. A `*` makes a list where it finds several."""
    first, _, rest = where.partition(" ")
    kind, _, path = f"{SHORT_PATHS.get(first, first)} {rest}".strip().partition(" ")
    values = [value for _, value in found(objects, kind, path)]
    return values[0] if len(values) == 1 else values or None


def leaves(values, schema):
    """Yields the dotted keys of values.yaml: all below an object whose properties the schema lists."""
    for key, value in values.items():
        below = schema["properties"].get(key, {})
        if "properties" in below:
            yield from (f"{key}.{leaf}" for leaf in leaves(value, below))
        else:
            yield key


def known(schema):
    """Yields the dotted keys that the schema lists, likewise."""
    for key, below in schema["properties"].items():
        yield from (f"{key}.{leaf}" for leaf in known(below)) if "properties" in below else [key]


def keys_in(key, value):
    """Yields a dotted key and, if its value is an object, those below it."""
    yield key
    if isinstance(value, dict):
        for name, below in value.items():
            yield from keys_in(f"{key}.{name}", below)


class OverlaysTest(unittest.TestCase):
    def assert_equal(self, ours, theirs):
        """The chart's object has all of the overlay's, and more labels."""
        for each in (ours, theirs):
            for field in ("apiVersion", "spec"):
                self.assertIn(field, each)
        self.assertEqual({**ours, "metadata": None}, {**theirs, "metadata": None})
        self.assertEqual(ours["metadata"]["labels"] | theirs["metadata"]["labels"], ours["metadata"]["labels"])
        self.assertEqual(ours["metadata"]["namespace"], theirs["metadata"].get("namespace", helm.NAMESPACE))

    def test_objects_are_those_of_the_overlays(self):
        for overlay, values in VALUES.items():
            ours = {name_of(each): each for each in helm.render("--skip-tests", *values.split())}
            # Helm makes the namespace itself: --create-namespace.
            theirs = {name_of(each): each for each in kubectl.render(overlay) if each["kind"] != "Namespace"}
            self.assertEqual(set(ours), set(theirs), overlay)
            for name, each in ours.items():
                with self.subTest(f"{overlay}: {name}"):
                    self.assert_equal(each, theirs[name])

    def test_page_names_the_values(self):
        page = PAGE.read_text()
        for overlay, values in VALUES.items():
            self.assertIn(f"| `{overlay}` | `{values}` |", page)

    def test_cpu_is_the_default(self):
        self.assertEqual(helm.render(), helm.render(*VALUES["cpu"].split()))


class ValuesTest(unittest.TestCase):
    def check(self, arguments, lines):
        errors = [line.removeprefix("! ") for line in lines if line.startswith("! ")]
        if errors:
            # Helm says what is wrong in any order.
            self.assertEqual(sorted(helm.faults(*arguments)), sorted(errors))
            return
        objects = helm.render(*arguments)
        for line in lines:
            where, equal, value = line.partition(" = ")
            if equal:
                self.assertEqual(at(objects, where), yaml.safe_load(value), line)
            else:
                where, _, value = line.partition(" has ")
                self.assertIn(yaml.safe_load(value), at(objects, where))

    def test_values_do_what_they_should(self):
        for arguments, lines in cases():
            with self.subTest(" ".join(arguments)):
                self.assertTrue(lines)
                self.check(arguments, lines)

    def test_every_value_is_known_and_tested(self):
        schema = json.loads((helm.CHART / "values.schema.json").read_text())
        keys = set(leaves(yaml.safe_load((helm.CHART / "values.yaml").read_text()), schema))
        # `global` comes from a chart that this one is a part of.
        self.assertEqual(keys, set(known(schema)) - {"global"})
        tested = (argument.removeprefix("--set-json=").split("=", 1) for arguments, _ in cases() for argument in arguments)
        self.assertEqual(keys - {name for key, value in tested for name in keys_in(key, json.loads(value))}, set())


class ChartTest(unittest.TestCase):
    def test_lint_is_content(self):
        for values in VALUES.values():
            result = helm.lint(*values.split())
            self.assertEqual((result.returncode, result.stderr), (0, ""), result.stdout)
            self.assertNotRegex(result.stdout, "WARNING|ERROR")

    def test_checks_of_the_manifests_hold(self):
        more = ("--values", str(MLP_VALUES), "--set", "extraArgs={--mlp_control=on},serviceAccount.create=true,"
                "networkPolicy.clients[0].ipBlock.cidr=10.0.0.0/8,service.annotations.a=b")
        for values in VALUES.values():
            with self.subTest(values):
                self.assertEqual(checks.report(helm.render("--skip-tests", *values.split(), *more), options.server), [])

    def test_pod_of_helm_test_is_an_allowed_client(self):
        objects = helm.render("--set-json", 'networkPolicy.clientLabels={"role": "client"}')
        [pod] = [each for each in objects if each["kind"] == "Pod"]
        self.assertEqual(schema_check.faults([pod]), [])
        workload = Workload(name_of(pod), pod["metadata"]["labels"], pod["spec"], 1, {})
        self.assertEqual(list(pod_policies.is_restricted(workload)), [])
        [(_, ingress)] = found(objects, "NetworkPolicy", "spec ingress")
        self.assertEqual(ingress[0]["from"][0]["podSelector"]["matchLabels"], pod["metadata"]["labels"])

    def test_notes_say_how_to_reach_the_server(self):
        with tempfile.TemporaryDirectory() as folder:
            chart = shutil.copytree(helm.CHART, f"{folder}/swiglu")
            notes = '{"kind": "Notes", "metadata": {"name": "notes"}, "text": {{ include "swiglu/templates/NOTES.txt" . | toJson }}}'
            (pathlib.Path(chart) / "templates/notes.yaml").write_text(notes)
            [(_, headless)] = found(helm.render(chart=chart), "Notes", "text")
            [(_, other)] = found(helm.render("--set", "service.type=ClusterIP,networkPolicy.enabled=false", chart=chart),
                                 "Notes", "text")
            outside = ("--set", "service.type=LoadBalancer", "--set-json",
                       'networkPolicy={"clientLabels": null, "clients": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}')
            [(_, published)] = found(helm.render(*outside, chart=chart), "Notes", "text")
        self.assertIn("\n  dns:///swiglu-server.swiglu.svc:8001\n", headless)
        self.assertIn('\n  swiglu-client: "true"\n', headless)
        self.assertIn("\n\nThe NetworkPolicy allows no other clients, such as those outside the cluster.", headless)
        self.assertIn(" http://swiglu-server.swiglu.svc:8002/metrics", headless)
        self.assertIn("\n  kubectl --namespace swiglu port-forward deployment/swiglu-server 8001:8001 &\n", headless)
        self.assertIn("\n  swiglu-server.swiglu.svc:8001\n", other)
        self.assertNotIn("swiglu-client", other)
        self.assertNotIn("NetworkPolicy", other)
        self.assertNotIn("swiglu-client", published)
        self.assertIn("\n\nThe NetworkPolicy also allows those in networkPolicy.clients.\n", published)
        self.assertIn(" http://swiglu-server-metrics.swiglu.svc:8002/metrics", published)

    def test_name_comes_from_the_release(self):
        for release, name in {"swiglu": "swiglu", "east-swiglu": "east-swiglu", "east": "east-swiglu"}.items():
            names = {each["metadata"]["name"] for each in helm.render("--skip-tests", release=release)}
            self.assertEqual(names, {name})

    def test_version_is_that_of_the_project(self):
        chart = yaml.safe_load((helm.CHART / "Chart.yaml").read_text())
        self.assertEqual((chart["version"], chart["appVersion"]), (facts.version(), facts.version()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True, help="the program swiglu-server")
    _, rest = parser.parse_known_args(namespace=options)
    unittest.main(argv=[sys.argv[0], *rest])
