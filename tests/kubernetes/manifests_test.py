# SPDX-License-Identifier: Apache-2.0
#
# Renders every overlay of deploy/kubernetes and holds it against the schemas and the policies; then makes every mistake of
# mistakes.txt in it, each of which has to be reported in the words that stand there.
import argparse
import copy
import sys
import typing
import unittest

import yaml

import checks
import facts
import kubectl
import pod_policies
import schema_check
from workloads import byte_size, name_of, of_kind, seconds, workloads

OVERLAYS = ("cpu", "gpu", "kserve", "production")
SHORT_PATHS = {"pod": "spec template spec", "container": "spec template spec containers 0"}

options = argparse.Namespace(server="")  # the command line's
rendered = {}


class Mistake(typing.NamedTuple):
    """A mistake of mistakes.txt, whose head describes the fields."""

    overlay: str
    target: str
    patch: str
    reported: list

    def make(self):
        """Returns the overlay's objects with the mistake made in them."""
        objects = copy.deepcopy(rendered[self.overlay])
        [number] = [number for number, each in enumerate(objects) if name_of(each) == self.target]
        path, _, value = self.patch.partition(" = ")
        path, _, added = path.partition(" += ")
        first, *rest = path.removeprefix("remove").split() or [""]
        *steps, last = [number, *SHORT_PATHS.get(first, first).split(), *rest]
        container = objects
        for step in steps:
            container = container[place(container, step)]
        if added:
            container[last].append(added)
        elif value:
            container[place(container, last)] = yaml.safe_load(value)
        else:
            del container[place(container, last)]
        return objects


def place(container, step):
    """Returns the key or index that a step of a path means: in a list a number, or a value that is in it."""
    if isinstance(container, dict) or isinstance(step, int):
        return step
    return int(step) if step.isdigit() else container.index(step)


def mistakes():
    """Returns the mistakes of mistakes.txt."""
    found = []
    for line in (facts.ROOT / "tests/kubernetes/mistakes.txt").read_text().splitlines():
        text = line.strip()
        if not text or line.startswith("#"):
            continue
        indent = line.index(text)
        if indent == 0:
            overlay, target = text.split()
        elif indent == 2:
            found.append(Mistake(overlay, target, text, []))
        else:
            found[-1].reported.append(text.replace("@", target))
    return found


def cells_of(workload):
    """Returns what the page's table of resources has to say about a workload, by row."""
    told = workload.flags.get("memory_budget_bytes")
    limit = workload.limit("memory")
    largest = (limit * pod_policies.DEFAULT_SHARE if told is None else byte_size(told)) / 2
    return {
        "cores, `--io_threads`": f"{workload.limit('cpu'):g}" if workload.limit("cpu") == int(workload.flags["io_threads"]) else "?",
        "memory limit": f"{limit / 2**30:g} GiB",
        "memory budget of requests": "a quarter of the limit" if told is None else f"{byte_size(told) / 2**30:g} GiB",
        "largest message (half of the budget)": "2 GiB - 1" if largest == 2**31 else f"{largest / 2**30:g} GiB",
        "GPUs": f"{workload.limit('nvidia.com/gpu') or 0:g}",
    }


class ManifestsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.reports = [(mistake, checks.report(mistake.make(), options.server)) for mistake in mistakes()]

    def test_every_folder_is_checked_or_part_of_one_that_is(self):
        parts = {"base", "monitoring", "autoscaling"}
        self.assertEqual({path.parent.name for path in kubectl.FOLDER.glob("*/kustomization.yaml")}, {*OVERLAYS, *parts})

    def test_overlays_are_right(self):
        for overlay in OVERLAYS:
            with self.subTest(overlay):
                self.assertEqual(checks.report(rendered[overlay], options.server), [])

    def test_page_has_the_numbers(self):
        page = " ".join((facts.ROOT / "docs/operations/kubernetes.md").read_text().split())
        [scaler] = of_kind(rendered["production"], "ScaledObject")
        cells = [cells_of(workloads(rendered[overlay])[0]) for overlay in ("cpu", "gpu", "kserve")]
        for row in cells[0]:
            self.assertIn(f"| {row} | {' | '.join(each[row] for each in cells)} |", page)
        for overlay in OVERLAYS:
            [workload] = workloads(rendered[overlay])
            grace = workload.pod["terminationGracePeriodSeconds"]
            self.assertIn(f"`--drain_delay` ({seconds(workload.flags['drain_delay']):g} s)", page)
            self.assertIn(f"`--drain_timeout` ({seconds(workload.flags['drain_timeout']):g} s)", page)
            self.assertIn(f"`terminationGracePeriodSeconds` ({grace} s)", page)
        for trigger in scaler["spec"]["triggers"]:
            self.assertRegex(page, rf"\| `{trigger['name']}` \| [^|]* \| {trigger['metadata']['threshold']} \|")
        for version in schema_check.VERSIONS:
            self.assertRegex(page, rf"schemas of Kubernetes [0-9. and]*{version}")

    def test_mistakes_are_reported(self):
        for mistake, found in self.reports:
            with self.subTest(f"{mistake.overlay} {mistake.target}: {mistake.patch}"):
                self.assertEqual([sentence for _, sentence in found], mistake.reported)

    def test_no_check_without_a_mistake_that_it_alone_finds(self):
        finders = [{check for check, _ in found} for _, found in self.reports]
        alone = {check for found in finders if len(found) == 1 for check in found}
        self.assertEqual(checks.NAMES - alone, set())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", required=True, help="the program swiglu-server")
    _, rest = parser.parse_known_args(namespace=options)
    rendered.update((overlay, kubectl.render(overlay)) for overlay in OVERLAYS)
    unittest.main(argv=[sys.argv[0], *rest])
