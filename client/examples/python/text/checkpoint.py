# SPDX-License-Identifier: Apache-2.0
#
# A model's folder as Hugging Face has it: config.json, tokenizer.json, and the tensors in model.safetensors. Reads and writes one.
import json
import mmap
import os
import pathlib
import struct

import ml_dtypes
import numpy as np

BF16 = ml_dtypes.bfloat16


def write(folder, config, tokenizer, tensors):
    """Writes the three files. `tensors` has arrays of BF16 by name. The tensors come last, and whole or not at all."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    header, end = {}, 0
    for name, array in tensors.items():
        header[name] = {"dtype": "BF16", "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        end += array.nbytes
    text = json.dumps(header).encode()
    partial = folder / "model.safetensors.partial"
    with open(partial, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for array in tensors.values():
            file.write(array.tobytes())
    os.replace(partial, folder / "model.safetensors")


def exists(folder):
    return pathlib.Path(folder, "model.safetensors").is_file()


class Named(dict):
    """Values by name. Raises ValueError with a sentence for a name that is not there."""

    def __init__(self, place, values):
        super().__init__(values)
        self._place = place

    def __missing__(self, name):
        raise ValueError(f"{self._place} has no '{name}'")


def read_json(folder, name):
    return Named(name, json.loads(pathlib.Path(folder, name).read_text()))


class Tensors:
    """The tensors of a folder by name, as arrays of BF16 that lie in the mapped file."""

    def __init__(self, folder):
        with open(pathlib.Path(folder, "model.safetensors"), "rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        [header_bytes] = struct.unpack_from("<Q", self._bytes)
        self._begin = 8 + header_bytes
        self._header = Named("model.safetensors", json.loads(self._bytes[8:self._begin]))

    def __getitem__(self, name):
        entry = self._header[name]
        if entry["dtype"] != "BF16":
            raise ValueError(f"tensor '{name}' is {entry['dtype']}; this example reads BF16")
        begin, end = entry["data_offsets"]
        return np.frombuffer(self._bytes, BF16, (end - begin) // 2, self._begin + begin).reshape(entry["shape"])
