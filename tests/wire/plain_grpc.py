# SPDX-License-Identifier: Apache-2.0
#
# A gRPC client out of the standard library, as small as a test can do with: calls of one connection, HTTP/2 frames as they
# are, and nothing that keeps a caller from sending what no real client would send.
import re
import select
import socket
import struct
import urllib.parse

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
WATCH = "/grpc.health.v1.Health/Watch"

# gRPC's codes that the tests name.
OK, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, UNAVAILABLE = 0, 3, 8, 12, 14

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
INITIAL_WINDOW_SIZE = 4
FIRST_WINDOW_BYTES = 65535
MAX_FRAME_BYTES = 16384  # that every peer takes
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STATIC_TABLE_SIZE = 61


def frame(kind, flags, stream, payload=b""):
    """One HTTP/2 frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def hpack_text(text):
    """A text of HPACK, without a Huffman code."""
    data = text.encode()
    if len(data) < 127:
        return bytes([len(data)]) + data
    return b"\x7f" + varint(len(data) - 127) + data


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
        parts = [payload[at : at + MAX_FRAME_BYTES] for at in range(0, len(payload), MAX_FRAME_BYTES)]
        for part in parts[:-1]:
            self.connection.send(frame(DATA, 0, self._stream, part))
        self.connection.send(frame(DATA, END_STREAM if last else 0, self._stream, parts[-1]))

    def send_raw(self, data, last=True):
        """Sends the bytes of a frame as they are, whatever they are."""
        self.connection.send(frame(DATA, END_STREAM if last else 0, self._stream, data))

    def pour(self, data, last=False):
        """Sends bytes of a large message as the server's windows allow, until the call ends; returns how many it took."""
        at = 0
        while at < len(data) and not self.ended:
            room = min(self.connection.window_bytes, self.window_bytes, MAX_FRAME_BYTES, len(data) - at)
            if room <= 0:
                self.connection.read()
                continue
            is_last = last and at + room == len(data)
            self.connection.send(frame(DATA, END_STREAM if is_last else 0, self._stream, data[at:at + room]))
            self.connection.window_bytes -= room
            self.window_bytes -= room
            at += room
        return at

    def pour_on(self, num_bytes):
        """Sends so many bytes as a part of a message, as the connection's window allows, though the call may have ended."""
        for _ in range(num_bytes // MAX_FRAME_BYTES):
            while self.connection.window_bytes < MAX_FRAME_BYTES:
                self.connection.read()
            self.connection.send(frame(DATA, 0, self._stream, bytes(MAX_FRAME_BYTES)))
            self.connection.window_bytes -= MAX_FRAME_BYTES

    def reset(self):
        """Cancels the call."""
        self.connection.send(frame(RST_STREAM, 0, self._stream, struct.pack(">I", 8)))

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
        self._table = []  # HPACK's dynamic table, newest first
        self.answers_pings = True
        self.send(PREFACE)
        self.set_window(window_bytes)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def peer(self):
        """How the server's log names this end of a TCP connection."""
        host, port, *_ = self._socket.getsockname()
        return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"

    def send(self, data):
        """Sends bytes as they are."""
        self._socket.sendall(data)

    def set_window(self, window_bytes):
        """Lets the server send so much of each answer, those that have begun included."""
        self.send(frame(SETTINGS, 0, 0, struct.pack(">HI", INITIAL_WINDOW_SIZE, window_bytes)))

    def widen(self, window_bytes):
        """Lets the server send large answers: so much of each, and of all of them together."""
        self.set_window(window_bytes)
        self.send(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", window_bytes)))

    def open(self, method, metadata=()):
        """Begins a call."""
        headers = [(":method", "POST"), (":scheme", "http"), (":path", method), (":authority", self._authority),
                   ("content-type", "application/grpc"), ("te", "trailers"), *metadata]
        # Literals with new names and without index.
        block = b"".join(b"\0" + hpack_text(name) + hpack_text(value) for name, value in headers)
        stream = 2 * len(self._calls) + 1
        self._calls[stream] = Call(self, stream, self._call_window_bytes)
        parts = [block[at : at + MAX_FRAME_BYTES] for at in range(0, len(block), MAX_FRAME_BYTES)]
        for number, part in enumerate(parts):
            is_last = number == len(parts) - 1
            self.send(frame(CONTINUATION if number else HEADERS, END_HEADERS if is_last else 0, stream, part))
        return self._calls[stream]

    def read_until(self, kind):
        """Takes frames in until one of that kind comes; returns its payload."""
        while True:
            found, payload = self.read()
            if found == kind:
                return payload

    def read_what_is_there(self):
        """Takes frames in as long as that needs no waiting for the next one."""
        while select.select([self._socket], [], [], 0)[0]:
            self.read()

    def read(self):
        """Takes one frame in; returns its kind and its payload."""
        head = self._receive(9)
        length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
        payload = self._receive(length)
        if kind == SETTINGS and not flags & ACK:
            self._take_settings(payload)
        if kind == WINDOW_UPDATE:
            widened = self._calls.get(stream) if stream else self
            if widened is not None:
                widened.window_bytes += struct.unpack(">I", payload)[0]
        if kind in (SETTINGS, PING) and not flags & ACK:
            if kind == SETTINGS or self.answers_pings:
                self.send(frame(kind, ACK, 0, payload if kind == PING else b""))
        if stream not in self._calls:
            return kind, payload
        call = self._calls[stream]
        if kind == HEADERS:
            if flags & (PADDED | PRIORITY) or not flags & END_HEADERS:
                raise ValueError("headers in a form that this client does not read")
            call.headers += self._decode(payload)
        elif kind == DATA:
            call.data += payload
        call.ended |= kind == RST_STREAM or (kind in (HEADERS, DATA) and bool(flags & END_STREAM))
        return kind, payload

    def _take_settings(self, payload):
        for at in range(0, len(payload), 6):
            setting, value = struct.unpack(">HI", payload[at:at + 6])
            if setting == INITIAL_WINDOW_SIZE:
                for call in self._calls.values():
                    call.window_bytes += value - self._call_window_bytes
                self._call_window_bytes = value

    def _receive(self, count):
        data = b""
        while len(data) < count:
            piece = self._socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("the server closed the connection")
            data += piece
        return data

    def _decode(self, block):
        """HPACK without Huffman codes and with the names of the static table unknown: gRPC's library needs neither."""
        headers = []
        at = 0

        def integer(bits):
            nonlocal at
            value = block[at] & ((1 << bits) - 1)
            at += 1
            if value < (1 << bits) - 1:
                return value
            shift = 0
            while True:
                byte = block[at]
                at += 1
                value += (byte & 0x7F) << shift
                shift += 7
                if byte < 0x80:
                    return value

        def text():
            nonlocal at
            if block[at] & 0x80:
                raise ValueError("a Huffman code, which this client does not read")
            length = integer(7)
            at += length
            return block[at - length:at].decode()

        def entry(index):
            if index <= STATIC_TABLE_SIZE:
                return (f"static-{index}", "")
            return self._table[index - STATIC_TABLE_SIZE - 1]

        while at < len(block):
            first = block[at]
            if first & 0x80:
                headers.append(entry(integer(7)))
            elif first & 0xE0 == 0x20:
                integer(5)  # a new size of the table, which is never full here
            else:
                index = integer(6 if first & 0x40 else 4)
                header = (entry(index)[0] if index else text(), text())
                headers.append(header)
                if first & 0x40:
                    self._table.insert(0, header)
        return headers


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
