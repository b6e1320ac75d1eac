# SPDX-License-Identifier: Apache-2.0
#
# A model of the Llama architecture in NumPy, without its MLPs: embeddings, norms and attention in float32, with a cache of keys
# and values. Whoever makes a model says how an MLP is computed.
import numpy as np

import checkpoint


def rms_norm(x, weight, epsilon):
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + epsilon) * weight


def rotated(x, cosines, sines):
    """Rotary embedding: turns the pairs (i, i + D / 2) of each head by angles that grow with the position."""
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cosines - second * sines, second * cosines + first * sines], axis=-1)


def attention(queries, keys, values):
    """[heads, T, D] of queries over [key-value heads, S, D]; query t is at position S - T + t and sees those up to its own."""
    num_tokens, num_positions = queries.shape[1], keys.shape[1]
    group = queries.shape[0] // keys.shape[0]
    scores = queries @ np.repeat(keys, group, axis=0).swapaxes(1, 2) / np.sqrt(np.float32(queries.shape[2]))
    is_later = np.triu(np.ones((num_tokens, num_positions), bool), 1 + num_positions - num_tokens)
    scores[:, is_later] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True) @ np.repeat(values, group, axis=0)


class Llama:
    """One sequence of tokens. `mlp(layer, x)` returns y of an MLP; x and y are BF16 of shape [tokens, H]."""

    def __init__(self, folder, mlp):
        self._config = checkpoint.read_json(folder, "config.json")
        self._tensors = checkpoint.Tensors(folder)
        self._mlp = mlp
        self._wide = {}
        self._cache = {}
        self._num_positions = 0

    def next_logits(self, tokens):
        """Appends tokens to the sequence. Returns the score of each token of the vocabulary to be the next."""
        limit = self._config["max_position_embeddings"]
        if self._num_positions + len(tokens) > limit:
            raise ValueError(f"the text has {self._num_positions + len(tokens)} tokens; the model takes at most {limit}")
        x = self._weight("model.embed_tokens")[tokens]
        angles = self._angles(len(tokens))
        for layer in range(self._config["num_hidden_layers"]):
            name = f"model.layers.{layer}"
            x = x + self._attend(layer, self._norm(f"{name}.input_layernorm", x), angles)
            normed = self._norm(f"{name}.post_attention_layernorm", x).astype(checkpoint.BF16)
            x = x + self._mlp(layer, normed).astype(np.float32)
        self._num_positions += len(tokens)
        return self._weight("model.embed_tokens") @ self._norm("model.norm", x[-1])

    def _attend(self, layer, x, angles):
        name = f"model.layers.{layer}.self_attn"

        def heads(projection):
            return (x @ self._weight(f"{name}.{projection}").T).reshape(len(x), -1, self._head_size()).swapaxes(0, 1)

        new = rotated(heads("k_proj"), *angles), heads("v_proj")
        old = self._cache.get(layer)
        self._cache[layer] = new if old is None else [np.concatenate(pair, axis=1) for pair in zip(old, new)]
        seen = attention(rotated(heads("q_proj"), *angles), *self._cache[layer])
        return seen.swapaxes(0, 1).reshape(len(x), -1) @ self._weight(f"{name}.o_proj").T

    def _head_size(self):
        return self._config["hidden_size"] // self._config["num_attention_heads"]

    def _angles(self, num_tokens):
        """Cosines and sines of the next positions, [tokens, D / 2] each."""
        size = self._head_size()
        positions = np.arange(self._num_positions, self._num_positions + num_tokens)
        angles = np.outer(positions, self._config["rope_theta"] ** (-np.arange(0, size, 2) / size))
        return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def _norm(self, name, x):
        return rms_norm(x, self._weight(name), np.float32(self._config["rms_norm_eps"]))

    def _weight(self, name):
        """A tensor in float32, widened once."""
        if name not in self._wide:
            self._wide[name] = self._tensors[f"{name}.weight"].astype(np.float32)
        return self._wide[name]


def generate(model, tokens, limit, end):
    """Yields the most likely next token, again and again, until it is `end` or there are `limit`."""
    for _ in range(limit):
        token = int(model.next_logits(tokens).argmax())
        if token == end:
            return
        yield token
        tokens = [token]
