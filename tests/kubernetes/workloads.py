# SPDX-License-Identifier: Apache-2.0
#
# The pods that a set of Kubernetes objects leads to: a Deployment's template, or what KServe makes of an InferenceService and
# its ServingRuntime. The policies look at these, so each of them is written once.
import dataclasses
import re

UNITS = {"": 1, "m": 1e-3, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
SECONDS = {"ms": 1e-3, "s": 1, "m": 60, "h": 3600}


def quantity(text):
    """Returns the number that a Kubernetes quantity ("500m", "2Gi") means."""
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", str(text)).groups()
    return float(number) * UNITS[unit]


def byte_size(text):
    """Returns the bytes that a flag's value ("2GiB") means."""
    return quantity(text.removesuffix("B"))


def seconds(text):
    """Returns the seconds that a duration ("1m30s") means."""
    return sum(float(number) * SECONDS[unit] for number, unit in re.findall(r"([0-9.]+)(ms|s|m|h)", text))


@dataclasses.dataclass
class Workload:
    """A pod and how many there are of it."""

    name: str  # as messages call it: Deployment/swiglu-server
    labels: dict
    pod: dict  # a PodSpec
    replicas: int | None  # None: someone else says
    surge: dict  # of a rollout: maxSurge, maxUnavailable

    @property
    def container(self):
        """The server's container, the only one there is."""
        return self.pod["containers"][0]

    @property
    def flags(self):
        """The server's flags by name, without dashes; of one given twice the last."""
        return dict(argument.removeprefix("--").partition("=")[::2] for argument in self.container.get("args", []))

    def limit(self, resource):
        """Returns the container's limit of a resource as a number, None where there is none."""
        text = self.container.get("resources", {}).get("limits", {}).get(resource)
        return None if text is None else quantity(text)

    def port(self, name):
        """Returns the number of the container's port of that name, None where there is none."""
        return next((port["containerPort"] for port in self.container.get("ports", []) if port["name"] == name), None)


def of_kind(objects, kind):
    """Returns the objects of one kind."""
    return [each for each in objects if each["kind"] == kind]


def name_of(each):
    """Returns how messages call an object."""
    return f"{each['kind']}/{each['metadata']['name']}"


def found(objects, kind, path):
    """Returns what lies at a path in each object of a kind, as pairs of the object's name and the value. A `*` in the path stands for
    each element of a list. Of a field that is not there, the value is None."""
    pairs = [(name_of(each), each) for each in of_kind(objects, kind)]
    for step in path.split():
        if step == "*":
            pairs = [(name, element) for name, value in pairs for element in value or []]
        else:
            pairs = [(name, (value or {}).get(step)) for name, value in pairs]
    return pairs


def _of_deployment(each):
    template = each["spec"]["template"]
    return Workload(name_of(each), template["metadata"].get("labels", {}), template["spec"], each["spec"].get("replicas"),
                    each["spec"].get("strategy", {}).get("rollingUpdate", {}))


def _of_inference_service(each, runtimes):
    predictor = each["spec"]["predictor"]
    model = predictor["model"]
    container = dict(runtimes[model["runtime"]]["containers"][0])
    container["args"] = container.get("args", []) + model.get("args", [])
    container["resources"] = model.get("resources", container.get("resources", {}))
    of_kserve = {"minReplicas", "maxReplicas", "autoScaling", "deploymentStrategy", "labels", "model"}
    pod = {name: value for name, value in predictor.items() if name not in of_kserve} | {"containers": [container]}
    return Workload(name_of(each), predictor.get("labels", {}), pod, predictor.get("minReplicas"),
                    predictor.get("deploymentStrategy", {}).get("rollingUpdate", {}))


def workloads(objects):
    """Returns the workloads that the objects lead to; of an InferenceService on an unknown runtime, none."""
    runtimes = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "ServingRuntime")}
    return ([_of_deployment(each) for each in of_kind(objects, "Deployment")]
            + [_of_inference_service(each, runtimes) for each in of_kind(objects, "InferenceService")
               if each["spec"]["predictor"]["model"].get("runtime") in runtimes])
