#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# From the start of the process to the first answer: whoever waits for the line that says where the server listens finds it
# ready. How long that took is printed; what may be asked of a time depends on the machine.
import time
import unittest

import plain_grpc
import server_process
from plain_grpc import Connection, WATCH, forward_request, infer_once, served_health
from server_process import Server


class StartupTest(unittest.TestCase):
    def test_server_is_ready_when_it_says_where_it_listens(self):
        begin = time.monotonic()
        with Server() as server, Connection(server.address) as connection:
            call = connection.open(WATCH)
            call.send(b"")
            first_state = served_health(call.message())
            ready = time.monotonic()
            answer = infer_once(server.address, forward_request())
            answered = time.monotonic()
            print(f"ready after {(ready - begin) * 1e3:.0f} ms, first answer {(answered - ready) * 1e3:.1f} ms later",
                  flush=True)
            # Not NOT_SERVING first and SERVING a moment later.
            self.assertEqual(first_state, 1)
            self.assertEqual(answer, (plain_grpc.OK, ""))
            self.assertEqual(server.stop(), 0, server.log)


if __name__ == "__main__":
    server_process.main()
