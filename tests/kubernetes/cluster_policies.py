# SPDX-License-Identifier: Apache-2.0
#
# What has to hold between objects: selectors find pods, names of ports and targets exist, budgets let nodes drain, queries ask
# for metrics that there are. Each policy takes all objects and yields a sentence for every fault.
import promql_parser

import facts
from workloads import found, name_of, of_kind, workloads

KSERVE_METRICS = "spec predictor autoScaling metrics * external"


def _selects(selector, labels):
    return bool(selector) and selector.items() <= labels.items()


def selectors_find_pods(objects):
    """Whatever selects pods selects some; a Deployment its own."""
    pods = workloads(objects)
    selectors = found(objects, "Service", "spec selector")
    for kind in ("PodDisruptionBudget", "Deployment", "PodMonitor"):
        selectors += found(objects, kind, "spec selector matchLabels")
    selectors += found(objects, "NetworkPolicy", "spec podSelector matchLabels")
    spreads = found(objects, "Deployment", "spec template spec topologySpreadConstraints * labelSelector matchLabels")
    selectors += [(f"spread of {name}", selector) for name, selector in spreads]
    for name, selector in selectors:
        if not any(_selects(selector, pod.labels) for pod in pods):
            yield f"{name} selects no pod"


def ports_exist(objects):
    """Services, network policies and a PodMonitor name ports of the container, a ServiceMonitor one of its Service."""
    pods = workloads(objects)
    for name, port in (found(objects, "Service", "spec ports * targetPort")
                       + found(objects, "NetworkPolicy", "spec ingress * ports * port")
                       + found(objects, "PodMonitor", "spec podMetricsEndpoints * port")):
        if not any(pod.port(port) for pod in pods):
            yield f"{name} names port {port}, which no container has"
    for name, monitor in found(objects, "ServiceMonitor", "spec"):
        services = [each for each in of_kind(objects, "Service")
                    if _selects(monitor["selector"].get("matchLabels"), each["metadata"].get("labels", {}))]
        names = [port["name"] for each in services for port in each["spec"]["ports"]]
        if not services:
            yield f"{name} selects no Service"
        for endpoint in monitor["endpoints"] if services else []:
            if endpoint["port"] not in names:
                yield f"{name} names port {endpoint['port']}, which its Service has not"


def service_is_headless(objects):
    """Clients see every replica: a virtual address would pin each connection to one."""
    for name, address in found(objects, "Service", "spec clusterIP"):
        if address != "None":
            yield f"{name} is not headless"


def survives_disruptions(objects):
    """Two replicas and a budget that lets nodes drain them one by one; a rollout that can go on."""
    scalers = {scaler["scaleTargetRef"]["name"]: scaler for _, scaler in found(objects, "ScaledObject", "spec")}
    for workload in workloads(objects):
        scaler = scalers.get(workload.name.partition("/")[2])
        replicas = scaler.get("minReplicaCount", 0) if scaler else 1 if workload.replicas is None else workload.replicas
        if scaler and workload.replicas is not None:
            yield f"{workload.name} sets replicas, which the ScaledObject decides"
        if replicas < 2:
            yield f"{workload.name} may have {replicas} replicas, want 2: a drain of the only one is an outage"
        if {str(workload.surge.get(name, "25%")) for name in ("maxSurge", "maxUnavailable")} == {"0"}:
            yield f"{workload.name} can never be rolled out: neither surge nor unavailable replicas"
        budgets = [(name, budget) for name, budget in found(objects, "PodDisruptionBudget", "spec")
                   if _selects(budget["selector"].get("matchLabels"), workload.labels)]
        if len(budgets) != 1:
            yield f"{workload.name} has {len(budgets)} PodDisruptionBudgets, want 1"
        for name, budget in budgets:
            least = budget.get("minAvailable")
            most = budget.get("maxUnavailable", None if least is None else max(0, replicas - int(least)))
            if most != 1:
                yield f"{name} lets {most} of {replicas} replicas go, want 1"


def network_is_closed(objects):
    """Each Deployment is under one policy that names who may come in and lets nothing out."""
    for deployment, labels in found(objects, "Deployment", "spec template metadata labels"):
        policies = [(name, policy) for name, policy in found(objects, "NetworkPolicy", "spec")
                    if _selects(policy["podSelector"].get("matchLabels"), labels)]
        if not policies:
            yield f"{deployment} has no NetworkPolicy"
        for name, policy in policies:
            if set(policy.get("policyTypes", [])) != {"Ingress", "Egress"} or policy.get("egress"):
                yield f"{name} lets traffic out"
            if not all(rule.get("from") and rule.get("ports") for rule in policy.get("ingress", [])):
                yield f"{name} has a rule that is open to everyone or on every port"


def autoscaler_has_target(objects):
    """A ScaledObject scales a Deployment that there is, between two bounds."""
    for name, scaler in found(objects, "ScaledObject", "spec"):
        target = scaler["scaleTargetRef"]
        if f"{target.get('kind', 'Deployment')}/{target['name']}" not in map(name_of, objects):
            yield f"{name} scales {target['name']}, which there is not"
        if scaler.get("minReplicaCount", 0) >= scaler.get("maxReplicaCount", 100):
            yield f"{name} has no room between minReplicaCount and maxReplicaCount"


def queries(objects):
    """Returns the name of an object and each Prometheus query in it."""
    return (found(objects, "ScaledObject", "spec triggers * metadata query")
            + found(objects, "InferenceService", f"{KSERVE_METRICS} metric query"))


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
            query = trigger["metadata"]["query"]
            asked, matches = query.count("{"), query.count(f'namespace=~"{namespace}"')
            if matches != asked:
                yield f"{name_of(each)} asks for series of every namespace in {asked - matches} of {asked} places of {trigger['name']}"


def kserve_is_given_whole_numbers(objects):
    """KServe cuts a target off to a whole number, and no replica is enough for nothing."""
    for name, value in found(objects, "InferenceService", f"{KSERVE_METRICS} target value"):
        if not value.isdigit() or int(value) < 1:
            yield f"{name} scales at {value}, want a whole number of 1 or more"


def kserve_is_scraped(objects):
    """The series that an InferenceService is scaled by are read from its pods."""
    for name, scaling in found(objects, "InferenceService", "spec predictor autoScaling"):
        if scaling and not of_kind(objects, "PodMonitor"):
            yield f"{name} is scaled by series that no PodMonitor reads"


def kserve_finds_the_runtime(objects):
    """An InferenceService's runtime is there, supports its format and protocol, and names its port so that KServe sees gRPC."""
    runtimes = dict(found(objects, "ServingRuntime", "spec"))
    for name, model in found(objects, "InferenceService", "spec predictor model"):
        runtime_name = f"ServingRuntime/{model.get('runtime')}"
        runtime = runtimes.get(runtime_name)
        if runtime is None:
            yield f"{name} runs on {model.get('runtime')}, which there is not"
            continue
        formats = [(known["name"], known.get("version")) for known in runtime["supportedModelFormats"]]
        if (model["modelFormat"]["name"], model["modelFormat"].get("version")) not in formats:
            yield f"{name} has a model format that its runtime does not support"
        if model["protocolVersion"] not in runtime["protocolVersions"]:
            yield f"{name} wants protocol {model['protocolVersion']}, which its runtime does not support"
        container = runtime["containers"][0]
        if container["name"] != "kserve-container":
            yield f"{runtime_name} has container {container['name']}, want kserve-container"
        ports = [port["name"] for port in container.get("ports", [])]
        if len(ports) != 1 or not ("h2c" in ports[0] or "grpc" in ports[0]):
            yield f"{runtime_name} has ports {ports}, want one with h2c or grpc in its name"
        if runtime.get("annotations", {}).get("prometheus.kserve.io/port") != "8002":
            yield f"{runtime_name} does not name the port of --metrics_address"


POLICIES = (selectors_find_pods, ports_exist, service_is_headless, survives_disruptions, network_is_closed,
            autoscaler_has_target, queries_ask_for_what_there_is, queries_keep_to_a_namespace,
            kserve_is_given_whole_numbers, kserve_is_scraped, kserve_finds_the_runtime)
