# SPDX-License-Identifier: Apache-2.0
#
# Holds objects against their schemas: Kubernetes' own, strictly, and for the kinds of KEDA, KServe and the Prometheus operator
# those in schemas/, which know the fields that the manifests use and no others.
import functools
import json
import pathlib

import jsonschema
import kubernetes_validate
import referencing

from workloads import name_of, workloads

# The oldest that the manifests are for, where gRPC probes became stable, and the newest that the validator knows.
VERSIONS = ("1.27", "1.37")
SCHEMAS = pathlib.Path(__file__).with_name("schemas")


def _own_schema(each):
    path = SCHEMAS / f"{each['kind'].lower()}-{each['apiVersion'].replace('/', '-')}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _own_validator(schema):
    metadata = referencing.Resource.from_contents(json.loads((SCHEMAS / "metadata.json").read_text()),
                                                  referencing.jsonschema.DRAFT202012)
    return jsonschema.Draft202012Validator(schema, registry=referencing.Registry().with_resource("metadata", metadata))


def _sentence(name, error):
    where = " ".join(str(step) for step in error.absolute_path)
    return f"{name}: {where}: {error.message}"


# The validator reads its schemas anew for every object, so that none is given to it twice.
@functools.cache
def _faults_of_kubernetes(name, text):
    each = json.loads(text)
    found = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(each, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            found.append(_sentence(name, error))
        except kubernetes_validate.SchemaNotFoundError:
            found.append(f"{name}: Kubernetes {version} has no {each['kind']} of {each['apiVersion']}")
    return found


def faults(objects):
    """Returns a sentence for everything that the API server would refuse, each once."""
    found = []
    for each in objects:
        schema = _own_schema(each)
        if schema is None:
            found += _faults_of_kubernetes(name_of(each), json.dumps(each))
        else:
            found += [_sentence(name_of(each), error) for error in _own_validator(schema).iter_errors(each)]
    # KServe's objects hold parts of pods, which its schemas here leave open.
    for workload in workloads(objects):
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": workload.pod}
        found += _faults_of_kubernetes(f"pod of {workload.name}", json.dumps(pod))
    return list(dict.fromkeys(found))
