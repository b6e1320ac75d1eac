# SPDX-License-Identifier: Apache-2.0
#
# The MLPs of a model: computed by a server, or in this process with the same roundings. x and y are BF16 of shape [tokens, H].
import hashlib

import numpy as np
import tritonclient.grpc as grpcclient

import checkpoint


class ServerMlps:
    """Asks a server, one call for each layer."""

    def __init__(self, client, name):
        self._client = client
        self._name = name
        self.num_calls = 0
        self.weights_sha256 = {}

    def __call__(self, layer, x):
        """y of x. Raises InferenceServerException with the server's code and sentence."""
        tensor = grpcclient.InferInput("x", list(x.shape), "BF16")
        tensor.set_data_from_numpy(x)
        result = self._client.infer(f"mlp_{self._name}_{layer}_forward", [tensor], client_timeout=60)
        self.num_calls += 1
        self.weights_sha256[layer] = result.get_response().parameters["weights_sha256"].string_param
        return result.as_numpy("y")


class InProcessMlps:
    """Computes in NumPy. NumPy adds in another order than the server, so the last bit of a value may differ."""

    def __init__(self, folder):
        self._tensors = checkpoint.Tensors(folder)
        self._matrices = {}
        self.num_calls = 0
        self.weights_sha256 = {}

    def __call__(self, layer, x):
        if layer not in self._matrices:
            self._load(layer)
        gate, up, down = self._matrices[layer]
        x = x.astype(np.float32)
        e, g = rounded(x @ gate.T), rounded(x @ up.T)
        with np.errstate(over="ignore"):  # an infinite exp gives the right sigmoid, 0
            f = rounded(e * (1 / (1 + np.exp(-e))))
        h = rounded(f * g)
        self.num_calls += 1
        return (h @ down.T).astype(checkpoint.BF16)

    def _load(self, layer):
        matrices = [self._tensors[f"model.layers.{layer}.mlp.{name}_proj.weight"] for name in ("gate", "up", "down")]
        self._matrices[layer] = [matrix.astype(np.float32) for matrix in matrices]
        self.weights_sha256[layer] = hashlib.sha256(b"".join(matrix.tobytes() for matrix in matrices)).hexdigest()


def rounded(array):
    """Rounds float32 to values of BF16, ties to even."""
    return array.astype(checkpoint.BF16).astype(np.float32)
