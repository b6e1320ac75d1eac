# SPDX-License-Identifier: Apache-2.0
#
# A gRPC client as small as a test can do with: calls of one connection, HTTP/2 frames as they are, and nothing that keeps a
# caller from sending what no real client would send.
import contextlib
import re
import select
import socket
import struct
import urllib.parse

import hpack
from hyperframe.frame import (ContinuationFrame, DataFrame, Frame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame,
                              WindowUpdateFrame)

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
WATCH = "/grpc.health.v1.Health/Watch"
LOAD = "/inference.GRPCInferenceService/RepositoryModelLoad"

# gRPC's codes that the tests name.
OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNAVAILABLE = 0, 3, 8, 12, 14

CANCEL = 8  # of HTTP/2's error codes
FIRST_WINDOW_BYTES = 65535
MAX_FRAME_BYTES = 16384  # that every peer takes
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def header_block(method, authority, metadata=()):
    """The headers of a call, as HPACK's literals that no later block depends on."""
    headers = [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", authority),
               ("content-type", "application/grpc"), ("te", "trailers"), *metadata]
    return hpack.Encoder().encode([(name, value, True) for name, value in headers], huffman=False)


def cut(data):
    """Cuts data into the payloads of frames."""
    return [data[at : at + MAX_FRAME_BYTES] for at in range(0, len(data), MAX_FRAME_BYTES)]


def header_frames(stream, block):
    """The frames of a block of headers, of which the last is to get END_HEADERS."""
    first, *rest = cut(block)
    return [HeadersFrame(stream, first)] + [ContinuationFrame(stream, part) for part in rest]


def connect(address):
    """Opens a socket to HOST:PORT or unix:/path."""
    if address.startswith("unix:"):
        opened = socket.socket(socket.AF_UNIX)
        opened.connect(address.removeprefix("unix:"))
    else:
        host, _, port = address.rpartition(":")
        opened = socket.create_connection((host.strip("[]"), int(port)))
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.settimeout(60)
    return opened


class Call:
    """One call: what has come of its answer."""

    def __init__(self, connection, stream, window_bytes):
        self.connection = connection
        self._stream = stream
        self.window_bytes = window_bytes  # that the server takes at once of what is poured
        self.headers = []  # in order, those of the trailers last
        self.data = b""
        self.ended = False

    def send(self, message, last=True, announced=None):
        """Sends a message; `announced` replaces its length in front of it."""
        length = len(message) if announced is None else announced
        payload = b"\0" + struct.pack(">I", length) + message
        *parts, final = cut(payload)
        for part in parts:
            self.send_raw(part, last=False)
        self.send_raw(final, last)

    def send_raw(self, data, last=True):
        """Sends the bytes of a frame as they are, whatever they are."""
        self.connection.send(DataFrame(self._stream, data, flags=["END_STREAM"] if last else []))

    def pour(self, data, last=False):
        """Sends bytes of a large message as the server's windows allow, until the call ends; returns how many it took."""
        at = 0
        while at < len(data) and not self.ended:
            room = min(self.connection.window_bytes, self.window_bytes, MAX_FRAME_BYTES, len(data) - at)
            if room <= 0:
                self.connection.read()
                continue
            is_last = last and at + room == len(data)
            self.send_raw(data[at:at + room], is_last)
            self.connection.window_bytes -= room
            self.window_bytes -= room
            at += room
        return at

    def pour_on(self, num_bytes):
        """Sends so many bytes as a part of a message, as the connection's window allows, though the call may have ended."""
        for _ in range(num_bytes // MAX_FRAME_BYTES):
            while self.connection.window_bytes < MAX_FRAME_BYTES:
                self.connection.read()
            self.send_raw(bytes(MAX_FRAME_BYTES), last=False)
            self.connection.window_bytes -= MAX_FRAME_BYTES

    def reset(self):
        """Cancels the call."""
        self.connection.send(RstStreamFrame(self._stream, CANCEL))

    def wait_for_headers(self):
        """Reads until the server has begun to answer."""
        while not self.headers:
            self.connection.read()

    def message(self):
        """Reads the next message of the answer; None when there is no further one."""
        while len(self.data) < 5 or len(self.data) < 5 + struct.unpack(">I", self.data[1:5])[0]:
            if self.ended:
                return None
            self.connection.read()
        end = 5 + struct.unpack(">I", self.data[1:5])[0]
        message, self.data = self.data[5:end], self.data[end:]
        return message

    def status(self):
        """Reads to the end of the call; returns its code and sentence."""
        while not self.ended:
            self.connection.read()
        headers = dict(self.headers)
        if "grpc-status" not in headers:
            raise ConnectionError("the server reset the call")
        return int(headers["grpc-status"]), urllib.parse.unquote(headers.get("grpc-message", ""))


class Connection:
    """A connection with its calls. Windows are minded where a message is poured; others are far below 64 KiB."""

    def __init__(self, address, window_bytes=FIRST_WINDOW_BYTES):
        """Connects; the server may send `window_bytes` of each answer."""
        self._socket = connect(address)
        self._authority = "localhost" if address.startswith("unix:") else address
        self._calls = {}
        self.window_bytes = FIRST_WINDOW_BYTES  # as that of a call, of all calls together
        self._call_window_bytes = FIRST_WINDOW_BYTES
        self._decoder = hpack.Decoder()
        self.answers_pings = True
        self._socket.sendall(PREFACE)
        self.set_window(window_bytes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def peer(self):
        """How the server's log names this end of a TCP connection."""
        host, port, *_ = self._socket.getsockname()
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def send(self, frame):
        """Sends a frame."""
        self._socket.sendall(frame.serialize())

    def set_window(self, window_bytes):
        """Lets the server send so much of each answer, those that have begun included."""
        self.send(SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: window_bytes}))

    def widen(self, window_bytes):
        """Lets the server send large answers: so much of each, and of all of them together."""
        self.set_window(window_bytes)
        self.send(WindowUpdateFrame(0, window_bytes))

    def open(self, method, metadata=()):
        """Begins a call."""
        stream = 2 * len(self._calls) + 1
        self._calls[stream] = Call(self, stream, self._call_window_bytes)
        frames = header_frames(stream, header_block(method, self._authority, metadata))
        frames[-1].flags.add("END_HEADERS")
        for frame in frames:
            self.send(frame)
        return self._calls[stream]

    def read_until(self, kind):
        """Takes frames in until one of that kind comes; returns it."""
        while not isinstance(frame := self.read(), kind):
            pass
        return frame

    def read_what_is_there(self):
        """Takes frames in as long as that needs no waiting for the next one."""
        while select.select([self._socket], [], [], 0)[0]:
            self.read()

    def read(self):
        """Takes one frame in and returns it."""
        frame, length = Frame.parse_frame_header(self._receive(9))
        frame.parse_body(memoryview(self._receive(length)))
        if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self._take_settings(frame.settings)
            self._acknowledge(SettingsFrame(flags=["ACK"]))
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags and self.answers_pings:
            self._acknowledge(PingFrame(opaque_data=frame.opaque_data, flags=["ACK"]))
        elif isinstance(frame, WindowUpdateFrame) and frame.stream_id == 0:
            self.window_bytes += frame.window_increment
        elif frame.stream_id in self._calls:
            self._take(frame, self._calls[frame.stream_id])
        return frame

    def _acknowledge(self, frame):
        """Sends a frame that a server which has ended the connection need not get: what it sent before is still to be read."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.send(frame)

    def _take(self, frame, call):
        if isinstance(frame, WindowUpdateFrame):
            call.window_bytes += frame.window_increment
        elif isinstance(frame, HeadersFrame):
            if "END_HEADERS" not in frame.flags:
                raise ValueError("headers in several frames, which this client does not read")
            call.headers += self._decoder.decode(frame.data)
        elif isinstance(frame, DataFrame):
            call.data += frame.data
        call.ended |= isinstance(frame, RstStreamFrame) or "END_STREAM" in frame.flags

    def _take_settings(self, settings):
        window_bytes = settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, self._call_window_bytes)
        for call in self._calls.values():
            call.window_bytes += window_bytes - self._call_window_bytes
        self._call_window_bytes = window_bytes

    def _receive(self, count):
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("the server closed the connection")
            data += piece
        return data


def varint(value):
    """Protobuf's variable-length integer."""
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def field(number, value):
    """A field of protobuf's type 2: a string, bytes or a message."""
    data = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(data)) + data


def infer_request(model, datatype, shape, tensors, request_id=""):
    """A ModelInferRequest as bytes; `tensors` maps names to raw bytes."""
    message = field(1, model) + (field(3, request_id) if request_id else b"")
    for name in tensors:
        message += field(5, field(1, name) + field(2, datatype) + field(3, b"".join(map(varint, shape))))
    return message + b"".join(field(7, raw) for raw in tensors.values())


def forward_request(num_elements=4):
    """A valid request: FP32 forward of zeros."""
    raw = bytes(4 * num_elements)
    return infer_request("swiglu_forward_fp32", "FP32", [num_elements], {"e": raw, "g": raw})


def raw_outputs(message):
    """The tensors of a ModelInferResponse as raw bytes, in order."""
    found = []
    at = 0

    def integer():
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        key = integer()
        if key & 7 != 2:
            raise ValueError("a field of a type that such a message does not have")
        length = integer()
        at += length
        if key >> 3 == 6:
            found.append(message[at - length:at])
    return found


def infer_once(address, message, metadata=()):
    """Calls ModelInfer on a connection of its own; returns code and sentence."""
    with Connection(address) as connection:
        call = connection.open(INFER, metadata)
        call.send(message)
        return call.status()


def call_once(address, method, message=b""):
    """Calls a unary method on a connection of its own; returns the bytes of its answer, or None on an error."""
    with Connection(address) as connection:
        call = connection.open(method)
        call.send(message)
        return call.message()


def served_health(message):
    """The status in a HealthCheckResponse: 1 is SERVING, 2 NOT_SERVING."""
    match = re.fullmatch(rb"\x08(.)", message, re.DOTALL)
    return match.group(1)[0] if match else 0
