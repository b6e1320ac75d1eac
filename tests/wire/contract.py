# SPDX-License-Identifier: Apache-2.0
#
# The numeric contract, evaluated in float64 on raw bytes and judged with the tolerances that hold on the CPU: f and de may be
# off by 1 ulp in 16 bits, by 4 ulp and 8 ulp in FP32; h and df must be exactly the rounded products of such an f.
import math
import struct

FLOAT32_MAX = 3.4028234663852886e38


class Dtype:
    """A type of elements: bit patterns and what they stand for."""

    def __init__(self, name, num_bytes, ulps_of_f):
        self.name = name
        self.num_bytes = num_bytes
        self.ulps_of_f = ulps_of_f
        self._sign = 1 << (8 * num_bytes - 1)
        self._letter = "H" if num_bytes == 2 else "I"

    def bits(self, raw):
        """The bit patterns in raw bytes."""
        return struct.unpack(f"<{len(raw) // self.num_bytes}{self._letter}", raw)

    def raw(self, values):
        """The raw bytes of numbers, each rounded."""
        return b"".join(struct.pack("<" + self._letter, self.round(value)) for value in values)

    def value(self, bits):
        """The number that a bit pattern stands for."""
        if self.name == "FP16":
            return struct.unpack("<e", struct.pack("<H", bits))[0]
        return struct.unpack("<f", struct.pack("<I", bits << 16 if self.name == "BF16" else bits))[0]

    def round(self, value):
        """The bit pattern of the nearest number, ties to even. Into BF16 by way of float32, which takes products exactly."""
        try:
            raw = struct.pack("<e" if self.name == "FP16" else "<f", value)
        except OverflowError:
            return self.round(math.copysign(math.inf, value))
        if self.name == "FP16":
            return struct.unpack("<H", raw)[0]
        bits = struct.unpack("<I", raw)[0]
        if self.name == "FP32":
            return bits
        return 0x7FC0 if math.isnan(value) else (bits + 0x7FFF + (bits >> 16 & 1)) >> 16

    def order(self, bits):
        """An integer that grows by one from number to number."""
        return bits if bits < self._sign else self._sign - bits

    def neighbour(self, bits, distance):
        """The bit pattern `distance` numbers further up; zero keeps the sign of where it came from."""
        order = self.order(bits) + distance
        if order == 0:
            return bits & self._sign
        return order if order > 0 else self._sign - order

    def same(self, left, right):
        """Whether two bit patterns are the same number, sign of zero included; any NaN is like any other."""
        return left == right or (math.isnan(self.value(left)) and math.isnan(self.value(right)))


FP16 = Dtype("FP16", 2, 1)
BF16 = Dtype("BF16", 2, 1)
FP32 = Dtype("FP32", 4, 4)
DTYPES = (FP16, BF16, FP32)


def sigmoid(e):
    """1 / (1 + exp(-e)), and 0 where float32 could not hold the denominator."""
    denominator = 1 + math.exp(-e) if not e < -100 else math.inf
    return 0.0 if denominator > FLOAT32_MAX else 1 / denominator


def values_of_f(dtype, e):
    """The values that f = SiLU(e) may have."""
    nearest = dtype.round(sigmoid(e) * e)
    if not math.isfinite(dtype.value(nearest)):
        return [dtype.value(nearest)]
    reach = range(-dtype.ulps_of_f, dtype.ulps_of_f + 1)
    return [dtype.value(dtype.neighbour(nearest, distance)) for distance in reach]


def is_de(dtype, dw, e, g, de):
    """Whether the bit pattern `de` is a right one."""
    dg = dtype.value(dtype.round(dw * g))
    slope = dg * sigmoid(e)
    exact = slope * (1 + e * (1 - sigmoid(e)))
    nearest = dtype.round(exact)
    if not math.isfinite(dtype.value(nearest)):
        return dtype.same(de, nearest)
    if dtype.num_bytes == 2:
        return abs(dtype.order(de) - dtype.order(nearest)) <= 1
    scale = abs(slope) * max(1, abs(e))
    ulp = math.ldexp(1, max(math.frexp(scale)[1] - 24, -149))
    return abs(dtype.value(de) - exact) <= 8 * ulp


def forward_faults(dtype, e, g, h):
    """Indices of wrong elements; the arguments are raw bytes. A length that differs is wrong from there on."""
    faults = list(range(min(len(e), len(h)) // dtype.num_bytes, max(len(e), len(h)) // dtype.num_bytes))
    for index, (e_bits, g_bits, h_bits) in enumerate(zip(dtype.bits(e), dtype.bits(g), dtype.bits(h))):
        g_value = dtype.value(g_bits)
        if not any(dtype.same(h_bits, dtype.round(f * g_value)) for f in values_of_f(dtype, dtype.value(e_bits))):
            faults.append(index)
    return faults


def backward_faults(dtype, dw, e, g, h, df, de):
    """Indices of elements of which any result is wrong; the arguments are raw bytes."""
    counts = {len(raw) // dtype.num_bytes for raw in (dw, e, g, h, df, de)}
    faults = list(range(min(counts), max(counts)))
    for index, element in enumerate(zip(*map(dtype.bits, (dw, e, g, h, df, de)))):
        dw_value, e_value, g_value = map(dtype.value, element[:3])
        fits = any(dtype.same(element[3], dtype.round(f * g_value)) and dtype.same(element[4], dtype.round(dw_value * f))
                   for f in values_of_f(dtype, e_value))
        if not fits or not is_de(dtype, dw_value, e_value, g_value, element[5]):
            faults.append(index)
    return faults
