#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Errors of the Python client: codes, texts and classes; options; and what the server tells about itself.
import pickle

import numpy

import swiglu
from client_fixture import ClientTest, SilentPeer, random_arrays
import server_process
from server_process import UNKNOWN_MODEL
from swiglu import Code


class ErrorsTest(ClientTest):
    def test_inputs_that_do_not_fit_each_other(self):
        e, g = random_arrays(2, (2, 4))
        error = self.assert_code(Code.INVALID_ARGUMENT, self.client.forward, e, g[:1])
        self.assertIsInstance(error, ValueError)
        self.assertEqual(str(error), "INVALID_ARGUMENT: shape of 'g' is [1,4]; 'e' has [2,4]")
        error = self.assert_code(Code.INVALID_ARGUMENT, self.client.forward, e, g.astype("float16"))
        self.assertEqual(error.message, "input 'g' is FP16; 'swiglu_forward_fp32' takes FP32")
        error = self.assert_code(Code.INVALID_ARGUMENT, self.client.backward, e, e, g[:1], out=(None, None, None))
        self.assertEqual(error.message, "shape of 'g' is [1,4]; 'e' has [2,4]")

    def test_timeout(self):
        e, g = random_arrays(2)
        error = self.assert_code(Code.DEADLINE_EXCEEDED, self.client.forward, e, g, timeout=0)
        self.assertIsInstance(error, TimeoutError)
        with SilentPeer() as peer, swiglu.Client(peer.address) as client:
            self.assert_code(Code.DEADLINE_EXCEEDED, client.forward, e, g, timeout=0.05)
            self.assert_code(Code.DEADLINE_EXCEEDED, client.server_live, timeout=0.05)

    def test_no_server(self):
        with SilentPeer() as peer:
            address = peer.address
        with swiglu.Client(address, max_attempts=1) as client:
            statistics = swiglu.CallStatistics()
            error = self.assert_code(Code.UNAVAILABLE, client.forward, *random_arrays(2), statistics=statistics)
            self.assertIn(address, error.message)
            self.assertEqual((statistics.num_messages, statistics.bytes_sent), (0, 0))

    def test_exceptions_survive_pickling(self):
        error = self.assert_code(Code.INVALID_ARGUMENT, self.client.forward, *random_arrays(1), numpy.zeros(1, "float32"))
        copy = pickle.loads(pickle.dumps(error))
        self.assertEqual((type(copy), copy.code, copy.message), (swiglu.InvalidArgumentError, error.code, error.message))

    def test_options_out_of_range(self):
        for option, words in (({"max_attempts": 0}, "option max_attempts is 0; it takes 1 to 100"),
                              ({"timeout": -1}, "option timeout is -1s"), ({"retry_budget": 2}, "option retry_budget is 2"),
                              ({"hedge_delay": -0.5}, "option hedge_delay is -500ms"), ({"chunk_bytes": 1}, "option chunk_bytes is 1"),
                              ({"num_connections": 65}, "option num_connections"), ({"max_message_bytes": 1}, "max_message_bytes"),
                              ({"coalesce_bytes": -1}, "option coalesce_bytes is -1")):
            self.assertIn(words, self.assert_code(Code.INVALID_ARGUMENT, swiglu.Client, "127.0.0.1:1", **option).message)
        self.assert_code(Code.INVALID_ARGUMENT, swiglu.Client, "no address")
        error = self.assert_code(Code.INVALID_ARGUMENT, self.client.forward, *random_arrays(2), request_id="\n")
        self.assertEqual(error.message, "option request_id has a character that is not printable ASCII")

    def test_options_of_a_call_reach_the_server(self):
        statistics = swiglu.CallStatistics()
        self.client.forward(*random_arrays(2), timeout=30, request_id="id", traceparent="00-1-2-00", priority=1, statistics=statistics)
        self.assertEqual((statistics.num_messages, statistics.num_joined, statistics.server), (1, 1, self.server.address))
        self.assertGreater(statistics.bytes_sent, 2 * 4 * 3 * 37)
        self.assertGreater(statistics.bytes_received, 4 * 3 * 37)
        self.assertGreaterEqual(statistics.queue_time, 0)
        self.assertGreaterEqual(statistics.compute_time, 0)
        self.assertEqual(statistics.weights_sha256, "")
        self.assertIn(self.server.address, repr(statistics))

    def test_closed_client(self):
        with swiglu.Client(self.server.address) as client:
            layer = client.mlp("tiny", 0)
            self.assertEqual(repr(client), f"<swiglu.Client of {self.server.address}>")
        self.assertEqual(repr(client), f"<swiglu.Client of {self.server.address}, closed>")
        error = self.assert_code(Code.FAILED_PRECONDITION, client.forward, *random_arrays(2))
        self.assertEqual(error.message, "this client is closed")
        self.assert_code(Code.FAILED_PRECONDITION, client.server_live)
        # What was made of it before goes on.
        self.assert_code(Code.NOT_FOUND, layer.forward, numpy.zeros((1, 8), "float16"))

    def test_server_tells_about_itself(self):
        self.assertTrue(self.client.server_live())
        self.assertTrue(self.client.server_ready())
        self.assertTrue(self.client.model_ready("swiglu_forward_fp32"))
        self.assertFalse(self.client.model_ready("nope"))
        info = self.client.server_metadata()
        self.assertEqual(info.name, "swiglu-server")
        self.assertIn("statistics", info.extensions)
        model = self.client.model_metadata("swiglu_forward_bf16")
        self.assertEqual(model.name, "swiglu_forward_bf16")
        self.assertEqual([(each.name, each.datatype, each.shape) for each in model.inputs],
                         [("e", "BF16", (-1, -1, -1)), ("g", "BF16", (-1, -1, -1))])
        self.assertEqual([each.name for each in model.outputs], ["h"])
        error = self.assert_code(Code.NOT_FOUND, self.client.model_metadata, "nope")
        self.assertEqual(error.message, f"{UNKNOWN_MODEL} (from {self.server.address})")
        self.assertEqual({model.state for model in self.client.list_models()}, {"READY"})
        self.client.forward(*random_arrays(2, dtype="float16"))
        [counters] = self.client.model_statistics("swiglu_forward_fp16")
        self.assertEqual((counters.num_succeeded, counters.num_failed), (1, 0))
        self.assertGreater(counters.request_time, 0)
        self.assertEqual(len(self.client.model_statistics()), len(self.client.list_models()))


if __name__ == "__main__":
    server_process.main()
