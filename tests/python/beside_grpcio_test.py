#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# The Python client in one process with the stock client, whose package grpcio has another gRPC: both give the same bits, whichever of
# them was first, and at the same time.
import pathlib
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "wire"))
import server_process  # noqa: E402
from server_process import DEADLINE_S, ServerTest  # noqa: E402

PROGRAM = """
import sys
import numpy
for name in sys.argv[2:]:
    __import__(name)
import ssl, swiglu, tritonclient.grpc as triton

e, g = numpy.random.default_rng(1).normal(0, 2, (2, 50, 40)).astype("float32")
inputs = [triton.InferInput(name, list(e.shape), "FP32").set_data_from_numpy(array) for name, array in (("e", e), ("g", g))]

def stock(client):
    return client.infer("swiglu_forward_fp32", inputs).as_numpy("h")

ours, theirs = swiglu.Client(sys.argv[1]), triton.InferenceServerClient(sys.argv[1])
for _ in range(20):
    assert ours.forward(e, g).tobytes() == stock(theirs).tobytes()
    assert ours.forward_async(e, g).result().tobytes() == stock(theirs).tobytes()
for client in (ours, theirs):
    client.close()
try:
    swiglu.Client("127.0.0.1:1", max_attempts=1).forward(e, g)
except swiglu.Error as error:
    print(error.code.name)
ssl.create_default_context()
"""


class BesideGrpcioTest(ServerTest):
    def test_either_may_be_first(self):
        for names in (("swiglu", "grpc"), ("grpc", "swiglu"), ("ssl", "swiglu"), ("google.protobuf.message", "swiglu")):
            with self.subTest(names):
                result = subprocess.run([sys.executable, "-B", "-c", PROGRAM, self.server.address, *names], capture_output=True,
                                        text=True, timeout=DEADLINE_S, check=False)
                self.assertEqual((result.returncode, result.stdout, result.stderr), (0, "UNAVAILABLE\n", ""))

    def test_both_at_the_same_time(self):
        import numpy
        import swiglu
        import tritonclient.grpc as triton

        e, g = numpy.random.default_rng(1).normal(0, 2, (2, 500, 40)).astype("float32")
        ours, theirs = swiglu.Client(self.server.address), triton.InferenceServerClient(self.server.address)
        inputs = [triton.InferInput(name, list(e.shape), "FP32").set_data_from_numpy(array) for name, array in (("e", e), ("g", g))]
        expected = ours.forward(e, g).tobytes()
        faults = []

        def run(call):
            for _ in range(30):
                if call().tobytes() != expected:
                    faults.append(call)

        calls = [lambda: ours.forward(e, g), lambda: theirs.infer("swiglu_forward_fp32", inputs).as_numpy("h")]
        threads = [threading.Thread(target=run, args=(call,)) for call in calls * 2]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
        self.assertEqual(faults, [])
        ours.close()
        theirs.close()


if __name__ == "__main__":
    server_process.main()
