# SPDX-License-Identifier: Apache-2.0
#
# Text to tokens and back: the byte-level byte-pair encoding of SmolLM2, and its form of a chat.
import re
import sys
import unicodedata

import checkpoint

# A word is a digit, or letters or signs with the blank before them. The blanks before a digit are words, too.
NUMBER = "".join(chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code)).startswith("N"))
LETTER = rf"[^\W_{NUMBER}]"
WORD = re.compile(rf"'s|'t|'re|'ve|'m|'ll|'d| ?{LETTER}+|[{NUMBER}]| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def letters_of_bytes():
    """The letter that stands for each byte in the vocabulary. A byte that Latin-1 can print stands for itself."""
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) if byte in printable else chr(256 + others.index(byte)) for byte in range(256)]


def words_of(text):
    return [word for part in re.split(f"([{NUMBER}])", text) for word in WORD.findall(part)]


class Tokenizer:
    def __init__(self, folder):
        content = checkpoint.read_json(folder, "tokenizer.json")
        self._ids = content["model"]["vocab"]
        self._tokens = {number: token for token, number in self._ids.items()}
        self._special = {entry["id"] for entry in content["added_tokens"]}
        self._ranks = {tuple(merge.split(" ")): rank for rank, merge in enumerate(content["model"]["merges"])}
        self._letters = letters_of_bytes()
        self.end = self._ids["<|im_end|>"]

    def encode(self, text):
        """The tokens of a text. No part of the text stands for a special token."""
        return [self._id(piece) for word in words_of(text) for piece in self._pieces(word)]

    def chat(self, question):
        """The tokens after which the model answers a question."""
        tokens = []
        for role, text in (("system", SYSTEM), ("user", question)):
            tokens += [self._ids["<|im_start|>"], *self.encode(f"{role}\n{text}"), self.end, *self.encode("\n")]
        return [*tokens, self._ids["<|im_start|>"], *self.encode("assistant\n")]

    def bytes_of(self, token):
        """The bytes of a token in UTF-8, which need not be whole characters. A special token has none."""
        if token in self._special:
            return b""
        return bytes(self._letters.index(letter) for letter in self._tokens[token])

    def _pieces(self, word):
        """Joins the letters of a word pair by pair. The pair that comes first in the list of merges is joined first."""
        pieces = [self._letters[byte] for byte in word.encode()]
        while True:
            pairs = [pair for pair in zip(pieces, pieces[1:]) if pair in self._ranks]
            if not pairs:
                return pieces
            first, second = min(pairs, key=self._ranks.get)
            joined = []
            for piece in pieces:
                if joined and (joined[-1], piece) == (first, second):
                    joined[-1] = first + second
                else:
                    joined.append(piece)
            pieces = joined

    def _id(self, piece):
        if piece not in self._ids:
            raise ValueError(f"the vocabulary has no token for byte 0x{self._letters.index(piece):02x}")
        return self._ids[piece]
