# SPDX-License-Identifier: Apache-2.0
#
# A tiny random model of the Llama architecture for text_example_test.py: its tensors as Hugging Face has them, the GGUF file that a
# converter makes of them, and its scores for the next token in float64.
import sys

import gguf
import numpy

from examples_test import SOURCES

sys.path.insert(0, str(SOURCES / "python/text"))
import tokenizer  # noqa: E402

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS = 64, 96, 2, 4, 2
HEAD = HIDDEN // HEADS
EPSILON, ROPE_BASE, CONTEXT = 1e-5, 10000.0, 512
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "l o"]
# The vocabulary has no token for this byte.
MISSING_BYTE = 7
NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
         "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
         "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
SHAPES = {"attn_q": (HIDDEN, HIDDEN), "attn_k": (KV_HEADS * HEAD, HIDDEN), "attn_v": (KV_HEADS * HEAD, HIDDEN),
          "attn_output": (HIDDEN, HIDDEN), "ffn_gate": (INTERMEDIATE, HIDDEN), "ffn_up": (INTERMEDIATE, HIDDEN),
          "ffn_down": (HIDDEN, INTERMEDIATE), "attn_norm": (HIDDEN,), "ffn_norm": (HIDDEN,)}
QUANTIZED = {"ffn_gate", "ffn_up", "ffn_down"}
Q4_1 = gguf.GGMLQuantizationType.Q4_1


def vocabulary():
    letters = tokenizer.letters_of_bytes()
    del letters[MISSING_BYTE]
    return SPECIAL + letters + [merge.replace(" ", "") for merge in MERGES]


def random_tensors():
    """float32 arrays by the names of Hugging Face. Those of the MLPs have values that Q4_1 holds."""
    source = numpy.random.default_rng(313)
    tensors = {"model.embed_tokens.weight": source.normal(0, 1, (len(vocabulary()), HIDDEN)),
               "model.norm.weight": source.normal(1, 0.1, HIDDEN)}
    for layer in range(LAYERS):
        for name, ours in NAMES.items():
            is_norm = len(SHAPES[name]) == 1
            array = source.normal(1, 0.1, SHAPES[name]) if is_norm else source.normal(0, 0.2, SHAPES[name])
            if name in QUANTIZED:
                array = gguf.quants.dequantize(gguf.quants.quantize(array.astype(numpy.float32), Q4_1), Q4_1)
            tensors[f"model.layers.{layer}.{ours}.weight"] = array
    return {name: array.astype(numpy.float32) for name, array in tensors.items()}


def side_by_side(rows, heads):
    """The order of a head's rows in GGUF: row i, then row i + D / 2."""
    return rows.reshape(heads, 2, HEAD // 2, HIDDEN).swapaxes(1, 2).reshape(rows.shape)


def write_gguf(path, tensors, architecture="llama"):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INTERMEDIATE)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_context_length(CONTEXT)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_rope_freq_base(ROPE_BASE)
    tokens = vocabulary()
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL] * len(SPECIAL) + [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_tensor("token_embd.weight", tensors["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", tensors["model.norm.weight"])
    for layer in range(LAYERS):
        for name, ours in NAMES.items():
            array = tensors[f"model.layers.{layer}.{ours}.weight"]
            if name in QUANTIZED:
                writer.add_tensor(f"blk.{layer}.{name}.weight", gguf.quants.quantize(array, Q4_1), raw_dtype=Q4_1)
            elif name in ("attn_q", "attn_k"):
                writer.add_tensor(f"blk.{layer}.{name}.weight", side_by_side(array, HEADS if name == "attn_q" else KV_HEADS))
            else:
                writer.add_tensor(f"blk.{layer}.{name}.weight", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def next_logits(tensors, tokens, mlp):
    """The scores after these tokens, head by head and in float64, with positions as angles of complex numbers."""
    def weight(name):
        return tensors[f"{name}.weight"].astype(numpy.float64)

    def norm(name, x):
        return x / numpy.sqrt((x ** 2).mean(axis=1, keepdims=True) + EPSILON) * weight(name)

    def rotated(x):
        turns = numpy.outer(numpy.arange(len(x)), ROPE_BASE ** (-numpy.arange(HEAD // 2) / (HEAD // 2)))
        turned = (x[:, :HEAD // 2] + 1j * x[:, HEAD // 2:]) * numpy.exp(1j * turns)
        return numpy.concatenate([turned.real, turned.imag], axis=1)

    def head_of(x, name, head):
        return x @ weight(name)[head * HEAD:(head + 1) * HEAD].T

    x = weight("model.embed_tokens")[tokens]
    for layer in range(LAYERS):
        name = f"model.layers.{layer}"
        normed, heads = norm(f"{name}.input_layernorm", x), []
        for head in range(HEADS):
            shared = head * KV_HEADS // HEADS
            query = rotated(head_of(normed, f"{name}.self_attn.q_proj", head))
            key = rotated(head_of(normed, f"{name}.self_attn.k_proj", shared))
            scores = numpy.exp(query @ key.T / HEAD ** 0.5) * numpy.tril(numpy.ones((len(x), len(x))))
            heads.append(scores / scores.sum(axis=1, keepdims=True) @ head_of(normed, f"{name}.self_attn.v_proj", shared))
        x = x + numpy.concatenate(heads, axis=1) @ weight(f"{name}.self_attn.o_proj").T
        x = x + mlp(layer, norm(f"{name}.post_attention_layernorm", x))
    return weight("model.embed_tokens") @ norm("model.norm", x[-1:])[0]
