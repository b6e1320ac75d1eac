# SPDX-License-Identifier: Apache-2.0
#
# The golden data of tests/golden, whose README says what they are, as requests and the answers that they must have.
import array
import dataclasses
import pathlib

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
NUM_PATTERNS = 65536
ONE = {"FP16": 0x3C00, "BF16": 0x3F80, "FP32": 0x3F800000}
INFINITY = {"FP16": 0x7C00, "BF16": 0x7F80, "FP32": 0x7F800000}
# Typecodes of 16 and 32 bits.
LETTER = {"FP16": "H", "BF16": "H", "FP32": "I"}


@dataclasses.dataclass(frozen=True)
class Table:
    """A request by its inputs, and those of its outputs that are known; raw bytes by the names of tensors."""
    title: str
    op: str
    datatype: str
    inputs: dict
    outputs: dict

    @property
    def num_elements(self):
        """How many elements each tensor has."""
        return len(self.inputs["e"]) // array.array(LETTER[self.datatype]).itemsize


def _repeat(datatype, bits, count):
    return (array.array(LETTER[datatype], [bits]) * count).tobytes()


def _narrow(datatype):
    """Every e at once: alone, and with each of the gradients, which take turns in dw and in g."""
    name = datatype.lower()
    every = array.array("H", range(NUM_PATTERNS)).tobytes()
    one = _repeat(datatype, ONE[datatype], NUM_PATTERNS)
    f = (GOLDEN / f"forward_f_{name}.u16").read_bytes()
    gradients = array.array("H", (GOLDEN / f"backward_dg_{name}.u16").read_bytes())
    de = (GOLDEN / f"backward_de_{name}.u16").read_bytes()
    rows = len(gradients)
    dg = b"".join(_repeat(datatype, bits, NUM_PATTERNS) for bits in gradients)
    yield Table(f"forward {datatype}", "forward", datatype, {"e": every, "g": one}, {"h": f})
    yield Table(f"backward {datatype}, the gradient in dw", "backward", datatype,
                {"dw": dg, "e": every * rows, "g": one * rows}, {"h": f * rows, "de": de})
    yield Table(f"backward {datatype}, the gradient in g", "backward", datatype,
                {"dw": one * rows, "e": every * rows, "g": dg}, {"df": f * rows, "de": de})


def _fp32():
    data = (GOLDEN / "fp32_e_f_de.u32").read_bytes()
    third = len(data) // 3
    e, f, de = data[:third], data[third:2 * third], data[2 * third:]
    one = _repeat("FP32", ONE["FP32"], third // 4)
    yield Table("forward FP32", "forward", "FP32", {"e": e, "g": one}, {"h": f})
    yield Table("backward FP32", "backward", "FP32", {"dw": one, "e": e, "g": one}, {"h": f, "df": f, "de": de})


def read_tables():
    """Returns all tables."""
    return [*_narrow("FP16"), *_narrow("BF16"), *_fp32()]


def differing(datatype, found, expected):
    """Counts the elements that differ; NaN is like NaN, whatever its payload."""
    if found == expected:
        return 0
    left, right = (array.array(LETTER[datatype], raw) for raw in (found, expected))
    if len(left) != len(right):
        return max(len(left), len(right))
    infinity = INFINITY[datatype]
    magnitude = (1 << (8 * left.itemsize - 1)) - 1
    return sum(a != b and not (a & magnitude > infinity and b & magnitude > infinity) for a, b in zip(left, right))
