#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# What the Python client does around a call with arrays on a GPU and needs no GPU for: arrays without elements stand for others. The
# tests of gpu_test.py need one.
import gc
import os
import signal
import weakref

import numpy

import swiglu
from client_fixture import ClientTest, FakeGpuArray, SilentPeer
import server_process
from server_process import Server
from swiglu import Code


class GpuArraysTest(ClientTest):
    def fail_with_output(self, call, code, *arguments, **options):
        """A call of a client, with an output on a GPU, that fails; returns a weak reference to that output."""
        out = FakeGpuArray(0, 4)
        self.assert_code(code, call, *arguments, out=out, **options)
        return weakref.ref(out)

    def test_results_are_arrays_of_numpy(self):
        array = FakeGpuArray(0, 4)
        h = self.client.forward(array, array)
        self.assertEqual((type(h), h.shape), (numpy.ndarray, (0, 4)))
        self.assertIs(self.client.forward(array, array, out=array), array)

    def test_output_that_a_server_may_still_write_to_is_kept(self):
        array = FakeGpuArray(0, 4)
        with Server() as server, swiglu.Client(server.address) as client:
            client.forward(array, array)
            server.signal(signal.SIGSTOP)
            os.waitpid(server.pid, os.WUNTRACED)
            out = FakeGpuArray(0, 4)
            future = client.forward_async(array, array, out=out, timeout=0.5)
            kept = [weakref.ref(out), self.fail_with_output(client.forward, Code.DEADLINE_EXCEEDED, array, array, timeout=0.5)]
            self.assert_code(Code.DEADLINE_EXCEEDED, future.result)
        del out, future
        gc.collect()
        self.assertNotIn(None, [reference() for reference in kept])

    def test_output_of_a_call_that_was_not_sent_is_not_kept(self):
        array = FakeGpuArray(0, 4)
        with SilentPeer() as peer:
            address = peer.address
        with swiglu.Client(address, max_attempts=1) as client:
            gone = [self.fail_with_output(client.forward, Code.UNAVAILABLE, array, array),
                    self.fail_with_output(self.client.forward, Code.DEADLINE_EXCEEDED, array, array, timeout=0),
                    self.fail_with_output(lambda *call, out: self.client.forward_async(*call, out=out, timeout=0).result(),
                                          Code.DEADLINE_EXCEEDED, array, array)]
        gc.collect()
        self.assertEqual([reference() for reference in gone], [None] * 3)

    def test_unknown_model_is_asked_for_once(self):
        def count():
            return self.server.metric("swiglu_requests_total", model="unknown", code="NOT_FOUND")

        before = count()
        self.assert_code(Code.NOT_FOUND, self.client.mlp("tiny", 0).forward, FakeGpuArray(0, 8, bits=16))
        self.assertEqual(count(), before + 1)


if __name__ == "__main__":
    server_process.main()
