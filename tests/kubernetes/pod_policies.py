# SPDX-License-Identifier: Apache-2.0
#
# What has to hold for one pod by itself: security, probes, resources, addresses, the way it stops. Each policy takes a Workload
# and yields a sentence for every fault.
import facts
from workloads import byte_size, seconds

UID = 65532
# Of the container's memory: the least share that requests get, below which it is wasted, and the most, because the program, the
# CUDA driver and the allocator need room beside them.
LEAST_SHARE, MOST_SHARE = 0.25, 0.5
DEFAULT_SHARE = 0.25  # what the server takes when it is told nothing
MARGIN_S = 10  # for the last words of a drain and the kubelet


def is_restricted(workload):
    """The Pod Security Standard `restricted`, a read-only root and no token."""
    pod, security = workload.pod, workload.container.get("securityContext", {})
    privileges = dict.fromkeys(("privileged", "hostNetwork", "hostPID", "hostIPC"), False)
    wanted = (
        (pod.get("securityContext", {}) | security,
         {"runAsNonRoot": True, "runAsUser": UID, "runAsGroup": UID, "seccompProfile": {"type": "RuntimeDefault"}}),
        (security, {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}),
        (pod, {"automountServiceAccountToken": False}),
        (privileges | security | pod, privileges),
    )
    for fields, values in wanted:
        for name, value in values.items():
            if fields.get(name) != value:
                yield f"{name} is {fields.get(name)}, want {value}"
    for volume in pod.get("volumes", []):
        if "hostPath" in volume:
            yield f"volume {volume['name']} is a hostPath"


def has_probes(workload):
    """A startup, a readiness and a liveness probe, each asking for a service that says just that."""
    services = {"startupProbe": {"", "inference.GRPCInferenceService"}, "livenessProbe": {"liveness"},
                "readinessProbe": {"", "inference.GRPCInferenceService"}}
    for name, meaning in services.items():
        probe = workload.container.get(name)
        if probe is None:
            yield f"no {name}"
        elif "grpc" not in probe:
            yield f"{name} does not ask through gRPC"
        else:
            service = probe["grpc"].get("service", "")
            if service not in facts.health_services():
                yield f"{name} asks for service '{service}', which the server does not know"
            elif service not in meaning:
                yield f"{name} asks for service '{service}', which does not say that"
            if str(probe["grpc"]["port"]) != workload.flags.get("grpc_address", "").rpartition(":")[2]:
                yield f"{name} asks port {probe['grpc']['port']}, which is not that of --grpc_address"


def has_resources(workload):
    """Limits, requests equal to them (quality of service Guaranteed), and no more threads than cores."""
    resources = workload.container.get("resources", {})
    for name in ("cpu", "memory"):
        if workload.limit(name) is None:
            yield f"no limit of {name}"
    if resources.get("requests") != resources.get("limits"):
        yield "requests are not equal to limits"
    if workload.limit("cpu") is not None:
        for flag in ("io_threads", "lanes_per_device") if workload.flags.get("device") == "cpu" else ("io_threads",):
            value = workload.flags.get(flag)
            if value is None:
                yield f"no --{flag}: its default is that of the node, not of the limit of {workload.limit('cpu'):g} cores"
            elif float(value) > workload.limit("cpu"):
                yield f"--{flag}={value} is more than the limit of {workload.limit('cpu'):g} cores"


def budget_fits(workload):
    """The memory budget leaves room for the program, and does not leave most of the container's memory unused."""
    limit = workload.limit("memory")
    if limit is None:
        return
    text = workload.flags.get("memory_budget_bytes")
    share = DEFAULT_SHARE if text is None else byte_size(text) / limit
    if not LEAST_SHARE <= share <= MOST_SHARE:
        yield f"--memory_budget_bytes={text} is {share:.0%} of the memory limit, want {LEAST_SHARE:.0%} to {MOST_SHARE:.0%}"


def stops_gracefully(workload):
    """SIGKILL comes after the drain, the drain tells balancers first, and no hook delays the signal that starts it."""
    grace = workload.pod.get("terminationGracePeriodSeconds", 30)
    delay, timeout = seconds(workload.flags.get("drain_delay", "0s")), seconds(workload.flags.get("drain_timeout", "30s"))
    if grace < delay + timeout + MARGIN_S:
        yield f"terminationGracePeriodSeconds is {grace}, want {delay + timeout + MARGIN_S:g}: the drain and {MARGIN_S} s"
    if delay < 5:
        yield f"--drain_delay is {delay:g} s, want 5 s: endpoints take a while to leave DNS and balancers"
    if "lifecycle" in workload.container:
        yield "has a lifecycle hook: --drain_delay takes its place"


def listens_everywhere(workload):
    """Addresses that other pods reach, on the ports that the image exposes and the container declares."""
    ports = set()
    for flag in ("grpc_address", "metrics_address"):
        host, _, port = workload.flags.get(flag, "").rpartition(":")
        if host != "0.0.0.0":
            yield f"--{flag} is at host '{host}', want 0.0.0.0"
        else:
            ports.add(int(port))
    if ports and ports != facts.exposed_ports():
        yield f"listens on {sorted(ports)}, but the image exposes {sorted(facts.exposed_ports())}"
    for declared in workload.container.get("ports", []):
        if declared["containerPort"] not in ports:
            yield f"port {declared['name']} is {declared['containerPort']}, where nothing listens"


def asks_for_the_gpu_it_uses(workload):
    """One GPU for --device=cuda, from the device plugin alone; none for --device=cpu, also on a node that has some."""
    device = workload.flags.get("device")
    gpus = workload.limit("nvidia.com/gpu") or 0
    visible = {each["name"]: each.get("value") for each in workload.container.get("env", [])}.get("NVIDIA_VISIBLE_DEVICES")
    if device not in ("cpu", "cuda"):
        yield f"--device is {device}, want cpu or cuda, for auto hides a missing GPU"
    if device == "cuda" and gpus != 1:
        yield f"--device=cuda with {gpus:g} of nvidia.com/gpu, want 1"
    if device == "cuda" and visible is not None:
        yield f"NVIDIA_VISIBLE_DEVICES={visible} takes the place of what the device plugin sets"
    if device == "cpu" and gpus != 0:
        yield f"--device=cpu with {gpus:g} of nvidia.com/gpu, want none"
    if device == "cpu" and visible != "void":
        yield f"NVIDIA_VISIBLE_DEVICES is {visible}, want void: the image's `all` shows every GPU of the node"


def image_is_of_this_version(workload):
    """The image by README's name for it, which kustomize replaces by the user's, with the tag of this version."""
    want = f"{facts.image()}:{facts.version()}"
    if workload.container.get("image") != want:
        yield f"image is {workload.container.get('image')}, want {want}"


POLICIES = (is_restricted, has_probes, has_resources, budget_fits, stops_gracefully, listens_everywhere,
            asks_for_the_gpu_it_uses, image_is_of_this_version)
