# SPDX-License-Identifier: Apache-2.0
#
# Runs the queries that decide how many replicas there are in Prometheus' own engine, over series of two replicas, and
# compares what KEDA would read. Skips, saying so, where there is no promtool.
import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import yaml

import cluster_policies
import kubectl
from workloads import of_kind

LIMIT, BUDGET = 4096, 1000
NOTHING = {"queued": (0, 0), "receive": (0, 0), "staging": (0, 0), "response": (0, 0), "region": (0, 0)}
HOUR = 240  # samples, 15 s apart

options = argparse.Namespace(promtool="")  # the command line's
query = {}  # by the trigger's name


def series(now, before):
    """Returns the series of two replicas: `before` for an hour, `now` for two minutes more. Each is a change of NOTHING."""
    now, before = NOTHING | now, NOTHING | before
    found = []
    for replica in (0, 1):
        labels = f'job="swiglu-server",namespace="swiglu",pod="swiglu-predictor-{replica}"'
        found += [(f"swiglu_queue_limit_requests{{{labels}}}", LIMIT, LIMIT),
                  (f"swiglu_memory_budget_bytes{{{labels}}}", BUDGET, BUDGET),
                  (f"swiglu_queued_requests{{{labels}}}", before["queued"][replica], now["queued"][replica])]
        found += [(f'swiglu_memory_used_bytes{{{labels},kind="{kind}"}}', before[kind][replica], now[kind][replica])
                  for kind in NOTHING if kind != "queued"]
    return [{"series": name, "values": f"{first}+0x{HOUR - 1} {then}+0x8"} for name, first, then in found]


def disagreement(expression, input_series, expected):
    """Returns "" where the query's answer is the number `expected`, or none for None; else what promtool says."""
    samples = [] if expected is None else [{"labels": "{}", "value": expected}]
    test = {"interval": "15s", "input_series": input_series,
            "promql_expr_test": [{"expr": expression, "eval_time": "62m", "exp_samples": samples}]}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "test.yaml"
        path.write_text(yaml.safe_dump({"evaluation_interval": "15s", "tests": [test]}))
        result = subprocess.run([options.promtool, "test", "rules", str(path)], capture_output=True, text=True, timeout=60,
                                check=False)
    return "" if result.returncode == 0 else result.stdout + result.stderr


class AutoscalingTest(unittest.TestCase):
    def expect(self, name, expected, now, before=NOTHING):
        self.assertEqual(disagreement(query[name], series(now, before), expected), "")

    def test_the_engine_is_asked(self):
        self.assertIn("got", disagreement(query["queue"], series({}, {}), 1))

    def test_nothing_is_zero(self):
        for name in query:
            with self.subTest(name):
                self.expect(name, 0, {})

    def test_lost_scrapes_have_no_answer(self):
        for name, expression in query.items():
            with self.subTest(name):
                self.assertEqual(disagreement(expression, [], None), "")

    def test_an_hour_ago_does_not_count(self):
        full = {"queued": (LIMIT, LIMIT), "receive": (500, 500), "staging": (500, 500)}
        for name in query:
            with self.subTest(name):
                self.expect(name, 0, {}, full)

    def test_queue_is_the_share_of_all_places(self):
        self.expect("queue", 1, {"queued": (LIMIT, LIMIT)})
        self.expect("queue", 0.25, {"queued": (LIMIT // 2, 0)})

    def test_messages_are_the_share_of_their_half_of_the_budget(self):
        self.expect("messages", 1, {"receive": (BUDGET // 2, BUDGET // 2)})
        self.expect("messages", 0.25, {"receive": (BUDGET // 4, 0), "staging": (500, 500), "region": (9000, 9000)})

    def test_tensors_are_the_share_of_theirs(self):
        self.expect("tensors", 1, {"staging": (BUDGET // 2, BUDGET // 4), "response": (0, BUDGET // 4)})
        self.expect("tensors", 0.25, {"response": (BUDGET // 4, 0), "receive": (500, 500), "region": (9000, 9000)})

    def test_kserves_are_percents_summed_over_the_replicas(self):
        self.expect("kserve 0", 200, {"queued": (LIMIT, LIMIT)})
        self.expect("kserve 0", 50, {"queued": (LIMIT // 2, 0)})
        self.expect("kserve 1", 150, {"receive": (BUDGET // 2, BUDGET // 4), "staging": (500, 500), "region": (9000, 9000)})
        self.expect("kserve 2", 150, {"staging": (BUDGET // 4, BUDGET // 4), "response": (BUDGET // 4, 0), "receive": (500, 500)})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--promtool", required=True, help="where promtool may lie that is not in PATH")
    _, rest = parser.parse_known_args(namespace=options)
    options.promtool = shutil.which("promtool") or options.promtool
    if not pathlib.Path(options.promtool).exists():
        print(f"skipped: no promtool, neither in PATH nor at {options.promtool}")
        sys.exit(77)
    [scaler] = of_kind(kubectl.render("production"), "ScaledObject")
    query.update((trigger["name"], trigger["metadata"]["query"]) for trigger in scaler["spec"]["triggers"])
    kserve = cluster_policies.queries(kubectl.render("kserve"))
    query.update((f"kserve {number}", text) for number, (_, text) in enumerate(kserve))
    unittest.main(argv=[sys.argv[0], *rest])
