#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The README's example for the stock Python client, run as it stands there and checked by readme_test.py.
import numpy as np
import tritonclient.grpc as grpcclient

client = grpcclient.InferenceServerClient("127.0.0.1:8001")
e, g = (np.random.randn(4, 8).astype(np.float16) for _ in range(2))
inputs = [grpcclient.InferInput(name, [4, 8], "FP16") for name in ("e", "g")]
inputs[0].set_data_from_numpy(e)
inputs[1].set_data_from_numpy(g)
h = client.infer("swiglu_forward_fp16", inputs).as_numpy("h")
