#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# CUDA regions with the stock client, and with PyTorch's tensors by the handles that PyTorch gives. Needs a GPU. PyTorch is too
# large for the tests' environment: run the file with an interpreter that has it, tritonclient and cuda-bindings.
import base64
import os
import unittest

import numpy as np
import tritonclient.grpc as triton

import server_process
from server_process import Server, skip
from triton_fixture import CHANNEL

# Elements of FP16: more than a chunk has.
COUNT = (8 << 20) + 3
NUM_BYTES = 2 * COUNT
BACKWARD = ("DW", "e", "g"), ("h", "df", "de")


def stock_regions(test):
    """The stock client's module for CUDA regions; skips the test where it cannot be imported."""
    try:
        from tritonclient.utils import cuda_shared_memory
    except RuntimeError as error:
        skip(test, str(error).replace("\n", " "))
    return cuda_shared_memory


class CudaRegionsTest(unittest.TestCase):
    def setUp(self):
        self.server = Server("--device=cuda", "--cuda_shared_memory=on")
        self.addCleanup(self.server.kill)
        line = self.server.wait_for(r"serving gRPC on|CUDA was asked for: .+")
        if "serving" not in line.group():
            skip(self, line.group())
        self.client = triton.InferenceServerClient(
            self.server.address, channel_args=[*CHANNEL, ("grpc.max_receive_message_length", -1)])
        self.addCleanup(self.client.close)
        random = np.random.default_rng(os.getpid())
        self.tensors = {name: random.standard_normal(COUNT, np.float32).astype(np.float16) for name in BACKWARD[0]}

    def results_by_message(self, model, inputs, outputs):
        """What the server answers if the same tensors are in the message."""
        sent = [triton.InferInput(name, [COUNT], "FP16") for name in inputs]
        for tensor, name in zip(sent, inputs):
            tensor.set_data_from_numpy(self.tensors[name])
        result = self.client.infer(model, sent)
        return [result.as_numpy(name) for name in outputs]

    def infer(self, model, inputs, outputs):
        """Each tensor is a name, a region and an offset."""
        sent = [triton.InferInput(name, [COUNT], "FP16") for name, _, _ in inputs]
        asked = [triton.InferRequestedOutput(name) for name, _, _ in outputs]
        for tensor, (_, region, offset) in zip(sent + asked, inputs + outputs):
            tensor.set_shared_memory(region, NUM_BYTES, offset=offset)
        return self.client.infer(model, sent, outputs=asked)

    def test_stock_client(self):
        cuda = stock_regions(self)
        inputs, output = (cuda.create_shared_memory_region(name, size, 0)
                          for name, size in (("inputs", 2 * NUM_BYTES), ("h", NUM_BYTES)))
        for region in (inputs, output):
            self.addCleanup(cuda.destroy_shared_memory_region, region)
        cuda.set_shared_memory_region(inputs, [self.tensors["e"], self.tensors["g"]])
        self.client.register_cuda_shared_memory("inputs", cuda.get_raw_handle(inputs), 0, 2 * NUM_BYTES)
        self.client.register_cuda_shared_memory("h", cuda.get_raw_handle(output), 0, NUM_BYTES)
        self.infer("swiglu_forward_fp16", [("e", "inputs", 0), ("g", "inputs", NUM_BYTES)], [("h", "h", 0)])
        result = cuda.get_contents_as_numpy(output, np.float16, [COUNT])
        expected, = self.results_by_message("swiglu_forward_fp16", ("e", "g"), ("h",))
        np.testing.assert_array_equal(result.view(np.uint16), expected.view(np.uint16))
        self.server.wait_for_metric(1, "swiglu_batches_total", op="forward", dtype="fp16", path="region")
        self.client.unregister_cuda_shared_memory()
        self.server.wait_for_metric(0, "swiglu_regions", memory="cuda")

    def test_tensors_of_pytorch_in_place(self):
        try:
            import torch
        except ImportError:
            skip(self, "PyTorch is missing")
        tensors = [torch.from_numpy(self.tensors[name]).cuda() for name in BACKWARD[0]]
        torch.cuda.synchronize()
        places = []
        for number, tensor in enumerate(tensors):
            # PyTorch puts two bytes in front of CUDA's handle, which is that of the whole block.
            _, handle, _, offset, *_ = tensor.untyped_storage()._share_cuda_()
            handle = base64.b64encode(handle[-64:])
            self.client.register_cuda_shared_memory(f"r{number}", handle, 0, offset + NUM_BYTES)
            places.append((f"r{number}", offset))
        inputs, outputs = ([(name, *place) for name, place in zip(names, places)] for names in BACKWARD)
        self.infer("swiglu_backward_fp16", inputs, outputs)
        self.server.wait_for_metric(1, "swiglu_batches_total", op="backward", dtype="fp16", path="region")
        expected = self.results_by_message("swiglu_backward_fp16", *BACKWARD)
        for tensor, values in zip(tensors, expected):
            np.testing.assert_array_equal(tensor.cpu().numpy().view(np.uint16), values.view(np.uint16))
        self.client.unregister_cuda_shared_memory()


if __name__ == "__main__":
    server_process.main()
