#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Runs the Python examples of client/examples against the server, and every example, C++ or Python, against a server whose answers
# are wrong, which each must notice.
import concurrent.futures
import contextlib
import importlib.util
import os
import subprocess
import sys
import unittest
import unittest.mock

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

import server_process
from examples_test import ARGUMENTS, NAMES, SOURCES
from server_process import DEADLINE_S, ServerTest

SCRIPTS = {path.name: [sys.executable, "-B", str(path)] for path in sorted((SOURCES / "python").glob("*.py"))}


def run_all(commands, address):
    """Runs commands by name, beside each other. Gives the exit code, stdout and stderr of each, by name."""
    # They connect to this machine whatever proxy the environment names.
    environment = {**os.environ, "no_proxy": "127.0.0.1"}
    started = {name: subprocess.Popen([*command, address, *ARGUMENTS.get(name, ())], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, text=True, env=environment)
               for name, command in commands.items()}
    ended = {}
    for name, process in started.items():
        said, complained = process.communicate(timeout=DEADLINE_S)
        ended[name] = process.returncode, said, complained
    return ended


class Echo(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers with the inputs where the results should be, and writes nothing to shared memory."""

    def ModelInfer(self, request, context):
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1", id=request.id)
        if request.model_name.startswith("mlp_"):
            names = ["y"] if len(request.inputs) == 1 else ["dx"]
            answer.parameters["weights_sha256"].string_param = "0" * 64
        else:
            names = ["h"] if len(request.inputs) == 2 else ["h", "df", "de"]
        raws = request.raw_input_contents or [b""] * len(request.inputs)
        for name, tensor, raw in zip(names, request.inputs, raws):
            answer.outputs.add(name=name, datatype=tensor.datatype, shape=tensor.shape)
            answer.raw_output_contents.append(raw)
        return answer

    def SystemSharedMemoryRegister(self, request, context):
        return service_pb2.SystemSharedMemoryRegisterResponse()

    def SystemSharedMemoryUnregister(self, request, context):
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    def ModelMetadata(self, request, context):
        if not request.name.startswith("mlp_"):
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model")
        answer = service_pb2.ModelMetadataResponse(name=request.name)
        answer.inputs.add(name="x", datatype="BF16", shape=[-1, 64])
        return answer


@contextlib.contextmanager
def wrong_server():
    """Gives the address of a server that is an Echo."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Echo(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)


class RightAnswersTest(ServerTest):
    SERVER_FLAGS = ("--system_shared_memory=on",)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ended = run_all(SCRIPTS, cls.server.address)

    def assert_right(self, name, line):
        self.assertEqual(self.ended[name], (0, f"{line}\n", ""))

    def test_every_script_has_a_test(self):
        self.assertEqual(list(SCRIPTS), ["backward.py", "bf16.py", "forward.py", "large.py", "raw_bytes.py", "shared_memory.py",
                                         "torch_autograd.py"])

    def test_forward(self):
        self.assert_right("forward.py", "forward.py: 6000 elements are right")

    def test_backward(self):
        self.assert_right("backward.py", "backward.py: 3000 elements are right")

    def test_bf16(self):
        self.assert_right("bf16.py", "bf16.py: 4000 elements are right")

    def test_large(self):
        self.assert_right("large.py", "large.py: 15000 elements are right")
        # Four messages for its elements, beside those of forward.py and shared_memory.py.
        self.assertEqual(self.server.metric("swiglu_requests_total", model="swiglu_forward_fp16", code="OK"), 4 + 2)

    def test_raw_bytes(self):
        self.assert_right("raw_bytes.py", "raw_bytes.py: 4000 elements are right")

    def test_shared_memory(self):
        self.assert_right("shared_memory.py", "shared_memory.py: 6000 elements are right")

    def test_torch_autograd(self):
        if importlib.util.find_spec("torch"):
            self.assert_right("torch_autograd.py", "torch_autograd.py: values and gradients are right")
        else:
            reason = "autograd, because torch is not installed"
            self.assert_right("torch_autograd.py", f"skipped: {reason}")
            server_process.skip(self, reason)


class LargeTest(unittest.TestCase):
    """The function of large.py that cuts arrays, without a server."""

    @classmethod
    def setUpClass(cls):
        spec = importlib.util.spec_from_file_location("large", SOURCES / "python/large.py")
        cls.large = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(cls.large)

    def sizes(self, e):
        """Cuts an array into messages of four elements. Returns their sizes, once the result is right."""
        sizes = []

        def add(_, part_of_e, part_of_g):
            sizes.append(part_of_e.size)
            return part_of_e + part_of_g

        with unittest.mock.patch.object(self.large, "forward", add):
            h = self.large.forward_in_chunks(None, e, e + 1, chunk_bytes=16)
        self.assertEqual((h.dtype, h.shape, h.tolist()), (e.dtype, e.shape, (e + e + 1).tolist()))
        return sizes

    def test_cuts_every_shape(self):
        numbers = np.arange(10, dtype=np.float16)
        for e, sizes in ((numbers, [4, 4, 2]), (numbers.reshape(2, 5), [4, 4, 2]), (numbers[:8].reshape(2, 2, 2).T, [4, 4]),
                         (numbers[:1].reshape(()), [1]), (numbers[:0].reshape(5, 0), []), (numbers[:0].reshape(0, 5), [])):
            with self.subTest(e.shape):
                self.assertEqual(self.sizes(e), sizes)


class WrongAnswersTest(unittest.TestCase):
    def test_every_example_notices(self):
        programs = {name: [f"{server_process.EXAMPLES}/{name}"] for name in NAMES}
        with wrong_server() as address:
            for name, (code, said, complained) in run_all({**SCRIPTS, **programs}, address).items():
                with self.subTest(name):
                    self.assertEqual(code, 1, said + complained)
                    self.assertRegex(said + complained, "(?m)^wrong: ")


if __name__ == "__main__":
    server_process.main()
