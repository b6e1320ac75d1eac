# SPDX-License-Identifier: Apache-2.0
#
# All checks of rendered objects together: the schemas, the policies of pods and clusters, and the server's own judgement.
import cluster_policies
import facts
import pod_policies
import schema_check
from workloads import workloads


def _arguments_are_taken(workload, server):
    """Says what the server itself says against the arguments."""
    fault = facts.flag_fault(server, workload.container.get("args", []))
    return [] if fault is None else [fault]


NAMES = {"schema", "arguments_are_taken",
         *(policy.__name__ for policy in (*pod_policies.POLICIES, *cluster_policies.POLICIES))}


def report(objects, server):
    """Returns what is wrong with the objects: (check, sentence) pairs. A wrong shape is all that is said of it. `server` is the program
    swiglu-server."""
    found = [("schema", sentence) for sentence in schema_check.faults(objects)]
    if found:
        return found
    for workload in workloads(objects):
        sentences = [(policy.__name__, sentence) for policy in pod_policies.POLICIES for sentence in policy(workload)]
        sentences += [("arguments_are_taken", sentence) for sentence in _arguments_are_taken(workload, server)]
        found += [(check, f"{workload.name}: {sentence}") for check, sentence in sentences]
    for policy in cluster_policies.POLICIES:
        found += [(policy.__name__, sentence) for sentence in policy(objects)]
    return found
