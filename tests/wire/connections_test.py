#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Connections at their limits: more than there may be, and more than the process has descriptors for. Whatever came before, a
# new caller is served as soon as others have gone.
import os
import resource
import socket
import tempfile
import time
import unittest

import server_process
from plain_grpc import OK, forward_request, infer_once
from server_process import Server, probe_health

# The limit of open files of the servers here.
DESCRIPTORS = 512


def server_with_few_descriptors(*flags):
    """A server that may open DESCRIPTORS files, and no more by itself."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, before[1]))
    try:
        return Server(*flags)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def idle_connections(address, count):
    """Connections to the server that say nothing."""
    host, _, port = address.rpartition(":")
    return [socket.create_connection((host, int(port)), server_process.DEADLINE_S) for _ in range(count)]


class ConnectionsTest(unittest.TestCase):
    def wait_for_metric(self, server, name, wanted):
        """Returns once the series has that value."""
        end = time.monotonic() + server_process.DEADLINE_S
        while server.metric(name) != wanted:
            self.assertLess(time.monotonic(), end, f"{name} is {server.metric(name)}, not {wanted}")

    def test_soft_limit_of_open_files_is_raised_to_the_hard_one(self):
        with server_with_few_descriptors() as server:
            hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            self.assertEqual(server.metric("process_max_fds"), hard)
            server.wait_for(f"limit of open files raised from {DESCRIPTORS} to {hard}")
            self.assertEqual(server.stop(), 0)

    def test_more_connections_than_descriptors_and_then_none(self):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        # The child lowers its own hard limit; this process keeps its own.
        command = tempfile.NamedTemporaryFile("w", suffix=".sh", delete=False)
        self.addCleanup(os.unlink, command.name)
        command.write(f'#!/bin/sh\nulimit -n {DESCRIPTORS}\nexec "{server_process.SERVER}" "$@"\n')
        command.close()
        os.chmod(command.name, 0o755)
        with Server(program=command.name) as server:
            limit = DESCRIPTORS - 192
            server.wait_for(f"at most {limit} connections, not 4096: the process may open {DESCRIPTORS} files")
            self.assertLess(limit, hard)
            connections = idle_connections(server.address, DESCRIPTORS)
            self.wait_for_metric(server, "swiglu_refused_connections_total", DESCRIPTORS - limit)
            self.assertEqual(server.metric("swiglu_connections"), limit)
            for connection in connections:
                connection.close()
            self.wait_for_metric(server, "swiglu_connections", 0)
            self.assertEqual(infer_once(server.address, forward_request()), (OK, ""))
            self.assertEqual(probe_health(server.address).returncode, 0)
            self.assertEqual(server.metric("swiglu_ready"), 1)
            self.assertEqual(server.stop(), 0)

    def test_one_too_many_is_closed_at_once(self):
        with Server("--max_connections=2") as server:
            kept = idle_connections(server.address, 2)
            self.wait_for_metric(server, "swiglu_connections", 2)
            [refused] = idle_connections(server.address, 1)
            self.assertEqual(refused.recv(1), b"")
            server.wait_for("connection refused: 2 are open, the limit of --max_connections")
            for connection in (*kept, refused):
                connection.close()
            self.assertEqual(server.stop(), 0)

    def test_room_is_there_as_soon_as_the_metric_says_so(self):
        with Server("--max_connections=1") as server:
            for _ in range(5):
                [kept] = idle_connections(server.address, 1)
                self.wait_for_metric(server, "swiglu_connections", 1)
                # The open connections are counted for this one.
                [refused] = idle_connections(server.address, 1)
                self.assertEqual(refused.recv(1), b"")
                kept.close()
                refused.close()
                self.wait_for_metric(server, "swiglu_connections", 0)
                self.assertEqual(infer_once(server.address, forward_request()), (OK, ""))
                self.wait_for_metric(server, "swiglu_connections", 0)
            self.assertEqual(server.stop(), 0)

    def test_unix_socket_has_the_mode_asked_for(self):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/socket"
            for flags, mode in ((), 0o600), (("--unix_socket_mode=0660",), 0o660):
                with Server(f"--grpc_address=unix:{path}", *flags) as server:
                    server.wait_for("serving gRPC on unix:")
                    self.assertEqual(os.stat(path).st_mode & 0o777, mode)
                    self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    server_process.main()
