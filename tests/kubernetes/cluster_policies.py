# SPDX-License-Identifier: Apache-2.0
#
# What has to hold between objects: selectors find pods, names of ports and targets exist, budgets let nodes drain, queries ask
# for metrics that there are. Each policy takes all objects and yields a sentence for every fault.
import promql_parser

import facts
from workloads import name_of, of_kind, workloads


def _selects(selector, labels):
    return bool(selector) and selector.items() <= labels.items()


def selectors_find_pods(objects):
    """Whatever selects pods selects some; a Deployment its own."""
    pods = workloads(objects)
    selectors = [(name_of(each), each["spec"]["selector"]) for each in of_kind(objects, "Service")]
    selectors += [(name_of(each), each["spec"]["selector"].get("matchLabels", {}))
                  for kind in ("PodDisruptionBudget", "Deployment", "PodMonitor") for each in of_kind(objects, kind)]
    selectors += [(name_of(each), each["spec"]["podSelector"].get("matchLabels", {}))
                  for each in of_kind(objects, "NetworkPolicy")]
    for each in of_kind(objects, "Deployment"):
        selectors += [(f"spread of {name_of(each)}", spread["labelSelector"]["matchLabels"])
                      for spread in each["spec"]["template"]["spec"].get("topologySpreadConstraints", [])]
    for name, selector in selectors:
        if not any(_selects(selector, pod.labels) for pod in pods):
            yield f"{name} selects no pod"


def ports_exist(objects):
    """Services, network policies and a PodMonitor name ports of the container, a ServiceMonitor one of its Service."""
    pods = workloads(objects)
    wanted = [(name_of(each), port["targetPort"]) for each in of_kind(objects, "Service") for port in each["spec"]["ports"]]
    wanted += [(name_of(each), port["port"]) for each in of_kind(objects, "NetworkPolicy")
               for rule in each["spec"].get("ingress", []) for port in rule.get("ports", [])]
    wanted += [(name_of(each), endpoint["port"]) for each in of_kind(objects, "PodMonitor")
               for endpoint in each["spec"]["podMetricsEndpoints"]]
    for name, port in wanted:
        if not any(pod.port(port) for pod in pods):
            yield f"{name} names port {port}, which no container has"
    for monitor in of_kind(objects, "ServiceMonitor"):
        services = [each for each in of_kind(objects, "Service")
                    if _selects(monitor["spec"]["selector"].get("matchLabels", {}), each["metadata"].get("labels", {}))]
        if not services:
            yield f"{name_of(monitor)} selects no Service"
        names = {port["name"] for each in services for port in each["spec"]["ports"]}
        for endpoint in monitor["spec"]["endpoints"]:
            if services and endpoint["port"] not in names:
                yield f"{name_of(monitor)} names port {endpoint['port']}, which its Service has not"


def service_is_headless(objects):
    """Clients see every replica: a virtual address would pin each connection to one."""
    for each in of_kind(objects, "Service"):
        if each["spec"].get("clusterIP") != "None":
            yield f"{name_of(each)} is not headless"


def survives_disruptions(objects):
    """Two replicas and a budget that lets nodes drain them one by one; a rollout that can go on."""
    budgets = of_kind(objects, "PodDisruptionBudget")
    scalers = {each["spec"]["scaleTargetRef"]["name"]: each["spec"] for each in of_kind(objects, "ScaledObject")}
    for workload in workloads(objects):
        scaler = scalers.get(workload.name.partition("/")[2])
        replicas = scaler.get("minReplicaCount", 0) if scaler else 1 if workload.replicas is None else workload.replicas
        if scaler and workload.replicas is not None:
            yield f"{workload.name} sets replicas, which the ScaledObject decides"
        if replicas < 2:
            yield f"{workload.name} may have {replicas} replicas, want 2: a drain of the only one is an outage"
        if str(workload.surge.get("maxSurge", "25%")) == "0" and str(workload.surge.get("maxUnavailable", "25%")) == "0":
            yield f"{workload.name} can never be rolled out: neither surge nor unavailable replicas"
        matching = [each for each in budgets if _selects(each["spec"]["selector"].get("matchLabels", {}), workload.labels)]
        if len(matching) != 1:
            yield f"{workload.name} has {len(matching)} PodDisruptionBudgets, want 1"
        for each in matching:
            least = each["spec"].get("minAvailable")
            most = each["spec"].get("maxUnavailable", None if least is None else max(0, replicas - int(least)))
            if most != 1:
                yield f"{name_of(each)} lets {most} of {replicas} replicas go, want 1"


def network_is_closed(objects):
    """Each Deployment is under one policy that names who may come in and lets nothing out."""
    for deployment in of_kind(objects, "Deployment"):
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        policies = [each for each in of_kind(objects, "NetworkPolicy")
                    if _selects(each["spec"]["podSelector"].get("matchLabels", {}), labels)]
        if not policies:
            yield f"{name_of(deployment)} has no NetworkPolicy"
        for each in policies:
            if set(each["spec"].get("policyTypes", [])) != {"Ingress", "Egress"} or each["spec"].get("egress"):
                yield f"{name_of(each)} lets traffic out"
            for rule in each["spec"].get("ingress", []):
                if not rule.get("from") or not rule.get("ports"):
                    yield f"{name_of(each)} has a rule that is open to everyone or on every port"


def autoscaler_has_target(objects):
    """A ScaledObject scales a Deployment that there is, between two bounds."""
    for each in of_kind(objects, "ScaledObject"):
        target = each["spec"]["scaleTargetRef"]
        if not any(found["metadata"]["name"] == target["name"] for found in of_kind(objects, target.get("kind", "Deployment"))):
            yield f"{name_of(each)} scales {target['name']}, which there is not"
        if each["spec"].get("minReplicaCount", 0) >= each["spec"].get("maxReplicaCount", 100):
            yield f"{name_of(each)} has no room between minReplicaCount and maxReplicaCount"


def queries(objects):
    """Yields the name of an object and each Prometheus query in it."""
    for each in of_kind(objects, "ScaledObject"):
        yield from ((name_of(each), trigger["metadata"]["query"]) for trigger in each["spec"]["triggers"])
    for each in of_kind(objects, "InferenceService"):
        for metric in each["spec"]["predictor"].get("autoScaling", {}).get("metrics", []):
            yield name_of(each), metric["external"]["metric"]["query"]


def _selectors(expression, inside_range=False):
    """Yields every selector of series in a parsed query, and whether it looks back over a range."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression, inside_range
    elif isinstance(expression, promql_parser.MatrixSelector):
        yield expression.vector_selector, True
    else:
        for name in ("lhs", "rhs", "expr"):
            if hasattr(expression, name):
                yield from _selectors(getattr(expression, name), inside_range)
        for argument in getattr(expression, "args", None) or []:
            yield from _selectors(argument, inside_range)


def queries_ask_for_what_there_is(objects):
    """Queries parse, and name the server's metrics and their values; ratios of a recent time, not of all time."""
    known = facts.metric_names()
    for name, query in queries(objects):
        try:
            selectors = list(_selectors(promql_parser.parse(query)))
        except ValueError as error:
            yield f"{name} has a query that does not parse: {error}"
            continue
        if not selectors:
            yield f"{name} has a query that asks for no metric"
        for selector, over_range in selectors:
            if selector.name not in known:
                yield f"{name} asks for {selector.name}, which the server has not"
            if not over_range:
                yield f"{name} asks for one sample of {selector.name}, want a time, as in avg_over_time({selector.name}[1m])"
            for matcher in selector.matchers.matchers:
                values = set(matcher.value.split("|"))
                if matcher.name == "kind" and not values <= facts.label_values("kMemoryKinds"):
                    yield f"{name} asks for kind {matcher.value}, which {selector.name} has not"


def queries_keep_to_a_namespace(objects):
    """Where an autoscaler's namespace is known, its queries ask for nothing of another."""
    for each in of_kind(objects, "ScaledObject"):
        namespace = each["metadata"].get("namespace")
        for trigger in each["spec"]["triggers"] if namespace else []:
            matches = trigger["metadata"]["query"].count(f'namespace=~"{namespace}"')
            asked = trigger["metadata"]["query"].count("{")
            if matches != asked:
                yield f"{name_of(each)} asks for series of every namespace in {asked - matches} of {asked} places of {trigger['name']}"


def kserve_is_given_whole_numbers(objects):
    """KServe cuts a target off to a whole number, and no replica is enough for nothing."""
    for each in of_kind(objects, "InferenceService"):
        for metric in each["spec"]["predictor"].get("autoScaling", {}).get("metrics", []):
            value = metric["external"]["target"]["value"]
            if not value.isdigit() or int(value) < 1:
                yield f"{name_of(each)} scales at {value}, want a whole number of 1 or more"


def kserve_is_scraped(objects):
    """The series that an InferenceService is scaled by are read from its pods."""
    for each in of_kind(objects, "InferenceService"):
        if each["spec"]["predictor"].get("autoScaling") and not of_kind(objects, "PodMonitor"):
            yield f"{name_of(each)} is scaled by series that no PodMonitor reads"


def kserve_finds_the_runtime(objects):
    """An InferenceService's runtime is there, supports its format and protocol, and names its port so that KServe sees gRPC."""
    runtimes = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "ServingRuntime")}
    for each in of_kind(objects, "InferenceService"):
        model = each["spec"]["predictor"]["model"]
        runtime = runtimes.get(model.get("runtime"))
        if runtime is None:
            yield f"{name_of(each)} runs on {model.get('runtime')}, which there is not"
            continue
        formats = {(known["name"], known.get("version")) for known in runtime["supportedModelFormats"]}
        if (model["modelFormat"]["name"], model["modelFormat"].get("version")) not in formats:
            yield f"{name_of(each)} has a model format that its runtime does not support"
        if model["protocolVersion"] not in runtime["protocolVersions"]:
            yield f"{name_of(each)} wants protocol {model['protocolVersion']}, which its runtime does not support"
        container = runtime["containers"][0]
        if container["name"] != "kserve-container":
            yield f"ServingRuntime/{model['runtime']} has container {container['name']}, want kserve-container"
        names = [port["name"] for port in container.get("ports", [])]
        if len(names) != 1 or not ("h2c" in names[0] or "grpc" in names[0]):
            yield f"ServingRuntime/{model['runtime']} has ports {names}, want one with h2c or grpc in its name"
        if runtime.get("annotations", {}).get("prometheus.kserve.io/port") != "8002":
            yield f"ServingRuntime/{model['runtime']} does not name the port of --metrics_address"


POLICIES = (selectors_find_pods, ports_exist, service_is_headless, survives_disruptions, network_is_closed,
            autoscaler_has_target, queries_ask_for_what_there_is, queries_keep_to_a_namespace,
            kserve_is_given_whole_numbers, kserve_is_scraped, kserve_finds_the_runtime)
