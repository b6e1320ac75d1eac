#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The example of docs/operations/kubernetes.md for a client that spreads its calls over all replicas, used by balancing_test.py.
import json

import tritonclient.grpc as grpcclient

SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
}


def connect(target="dns:///swiglu-server.swiglu.svc:8001"):
    return grpcclient.InferenceServerClient(target, channel_args=[("grpc.service_config", json.dumps(SERVICE_CONFIG))])
