# SPDX-License-Identifier: Apache-2.0
#
# Writes and reads .npy and .safetensors files for the tests of this folder, out of the standard library and of none of the
# code under test.
import ast
import json
import math
import struct

DESCR = {"FP16": "<f2", "FP32": "<f4"}
SAFETENSORS_DTYPE = {"FP16": "F16", "BF16": "BF16", "FP32": "F32"}


def write_npy(path, datatype, shape, raw):
    """Writes a tensor as .npy, version 1.0, and returns the path."""
    header = repr({"descr": DESCR[datatype], "fortran_order": False, "shape": tuple(shape)}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + raw)
    return path


def read_npy(path):
    """Returns datatype, shape and raw bytes of a .npy file."""
    data = path.read_bytes()
    if data[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError(f"{path} is no .npy file of version 1.0")
    end = 10 + struct.unpack("<H", data[8:10])[0]
    header = ast.literal_eval(data[10:end].decode())
    if end % 64 != 0 or header["fortran_order"]:
        raise ValueError(f"{path} is not aligned, or in Fortran's order")
    datatype = {descr: name for name, descr in DESCR.items()}[header["descr"]]
    return datatype, list(header["shape"]), data[end:]


def write_safetensors(path, **tensors):
    """Writes tensors, given as (datatype, shape, raw bytes) by name, and returns the path."""
    header = {}
    data = b""
    for name, (datatype, shape, raw) in tensors.items():
        offsets = [len(data), len(data) + len(raw)]
        header[name] = {"dtype": SAFETENSORS_DTYPE[datatype], "shape": shape, "data_offsets": offsets}
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def read_all_safetensors(path):
    """Returns the tensors of a .safetensors file, which fill it: datatype, shape and raw bytes by name."""
    data = path.read_bytes()
    start = 8 + struct.unpack("<Q", data[:8])[0]
    datatypes = {short: name for name, short in SAFETENSORS_DTYPE.items()}
    tensors = {}
    end = start
    for name, entry in json.loads(data[8:start]).items():
        if entry["data_offsets"][0] != end - start:
            raise ValueError(f"{path} has a gap before {name}")
        begin, end = end, start + entry["data_offsets"][1]
        tensors[name] = (datatypes[entry["dtype"]], entry["shape"], data[begin:end])
    if end != len(data):
        raise ValueError(f"{path} does not end with its tensors")
    return tensors


def read_safetensors(path):
    """Returns the only tensor of a .safetensors file: its name, datatype, shape and raw bytes."""
    (name, tensor), = read_all_safetensors(path).items()
    return (name, *tensor)


def num_elements(shape):
    """How many elements a tensor of this shape has."""
    return math.prod(shape)


def write_mlp(path, num_layers=3, hidden=64, intermediate=176):
    """Writes MLPs whose weights are all zero, with the tensors' names as Hugging Face has them, and returns the path."""
    shapes = {"gate": (intermediate, hidden), "up": (intermediate, hidden), "down": (hidden, intermediate)}
    raw = bytes(2 * hidden * intermediate)
    return write_safetensors(path, **{f"model.layers.{number}.mlp.{name}_proj.weight": ("BF16", shape, raw)
                                      for number in range(num_layers) for name, shape in shapes.items()})
