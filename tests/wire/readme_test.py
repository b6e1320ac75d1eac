#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Runs the README's example against a server of its own and checks what comes out of it.
import pathlib
import runpy
import unittest

import numpy
import tritonclient.grpc as triton

import server_process
from triton_fixture import CHANNEL, TritonTest

EXAMPLE = pathlib.Path(__file__).parent / "readme_example.py"


class ReadmeTest(TritonTest):
    def test_the_example_computes_what_it_says(self):
        # The page names the default address; here the server has a port of its own.
        def connect(address):
            self.assertEqual(address, "127.0.0.1:8001")
            return connected(self.server.address, channel_args=CHANNEL)

        connected = triton.InferenceServerClient
        triton.InferenceServerClient = connect
        try:
            names = runpy.run_path(str(EXAMPLE))
        finally:
            triton.InferenceServerClient = connected
        names["client"].close()
        e, g, h = (names[name].astype(numpy.float64) for name in ("e", "g", "h"))
        expected = (e / (1 + numpy.exp(-e))).astype(numpy.float16).astype(numpy.float64) * g
        numpy.testing.assert_allclose(h, expected, rtol=3e-3, atol=1e-6)


if __name__ == "__main__":
    server_process.main()
