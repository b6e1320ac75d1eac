#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Runs the README's example against a server of its own and checks what comes out of it.
import pathlib
import runpy

import tritonclient.grpc as triton

import contract
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
        self.assertEqual(contract.forward_faults(contract.FP16, *(names[name].tobytes() for name in ("e", "g", "h"))), [])


if __name__ == "__main__":
    server_process.main()
