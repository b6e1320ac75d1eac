# SPDX-License-Identifier: Apache-2.0
#
# What an expression of PromQL asks for: its selectors, taken out of its syntax tree.
from typing import NamedTuple

import promql_parser


class Selector(NamedTuple):
    """A metric and the labels that its series must have."""

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
            found.append(Selector(node.name, str(node), labels, str(node) in of_ranges))

    promql_parser.walk(promql_parser.parse(expression), visit)
    return found
