# SPDX-License-Identifier: Apache-2.0
#
# What an expression of PromQL asks for: its selectors, taken out of its syntax tree.
from typing import NamedTuple

import promql_parser


class Selector(NamedTuple):
    """A metric and the labels that its series must have; the text says which series, and not when."""

    name: str
    text: str
    labels: frozenset
    has_range: bool


def selectors(expression):
    """The selectors of `expression`, which must be valid."""
    found = []
    of_ranges = set()

    # A range selector comes before the plain one that it holds.
    def visit(node):
        if isinstance(node, promql_parser.MatrixSelector):
            of_ranges.add(str(node.vector_selector))
        elif isinstance(node, promql_parser.VectorSelector):
            labels = frozenset(matcher.name for matcher in node.matchers.matchers)
            text = str(node).partition(" offset ")[0]
            found.append(Selector(node.name, text, labels, str(node) in of_ranges))

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found
