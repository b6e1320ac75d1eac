# SPDX-License-Identifier: Apache-2.0
#
# From the numbers of rounds to medians, ratios with their spread, and the lines of the table.
import statistics


def median(values):
    """The median of what rounds gave, or None if one of them gave nothing."""
    return None if not values or None in values else statistics.median(values)


def ratio(values, base):
    """Compares two contestants that took turns: the ratio of medians, and the least and greatest of one round."""
    if median(values) is None or median(base) is None or 0 in base:
        return None
    rounds = [value / other for value, other in zip(values, base)]
    return {"ratio": median(values) / median(base), "least": min(rounds), "most": max(rounds)}


def _number(value):
    if value is None:
        return "failed"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _spread(values):
    if median(values) is None:
        return "failed"
    return f"{_number(median(values))} ({_number(min(values))} - {_number(max(values))})"


def _compared(found):
    return "-" if found is None else f"{found['ratio']:.2f} ({found['least']:.2f} - {found['most']:.2f})"


def lines(name, title, unit, less_is_better, values):
    """The table's lines for a metric of a point; `values` has the rounds of each contestant, the server's too."""
    found = [f"{name:<3} {title}, {unit}{' (less is better)' if less_is_better else ''}"]
    for contestant, rounds in values.items():
        found.append(f"      {contestant:<10} {_spread(rounds)}")
    for contestant, rounds in values.items():
        if contestant != "server":
            found.append(f"      server / {contestant:<10} {_compared(ratio(values['server'], rounds))}")
    return found
