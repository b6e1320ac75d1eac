# SPDX-License-Identifier: Apache-2.0
#
# A server and the stock Python client connected to it, for the tests that use that client.
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from server_process import ServerTest

# Connect to this machine whatever proxy the environment names.
CHANNEL = [("grpc.enable_http_proxy", 0)]


class TritonTest(ServerTest):
    """One server for a class, one client for a test."""

    def setUp(self):
        self.client = triton.InferenceServerClient(self.server.address, channel_args=CHANNEL)
        self.addCleanup(self.client.close)

    def assert_refused(self, code, sentence, call, pattern=False):
        """`call` fails with this code and with exactly this sentence, or one that matches it."""
        with self.assertRaises(InferenceServerException) as raised:
            call()
        self.assertEqual(raised.exception.status(), f"StatusCode.{code}")
        if pattern:
            self.assertRegex(raised.exception.message(), f"^{sentence}$")
        else:
            self.assertEqual(raised.exception.message(), sentence)
