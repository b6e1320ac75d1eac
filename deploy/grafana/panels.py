# SPDX-License-Identifier: Apache-2.0
#
# The kinds of panels that dashboard.py is made of, each with the looks that all of its kind share: graphs, single figures and
# heat maps of histogram buckets.
from collections.abc import Sequence
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

# A replica's series; what stands for one job in a recording rule has no instance any more.
REPLICAS = 'job=~"$job",instance=~"$instance"'
JOBS = 'job=~"$job"'

# A dashboard is 24 columns wide.
SMALL, THIRD, HALF, FULL = 4, 8, 12, 24


class Query(NamedTuple):
    """What one or several lines of a graph show."""

    expression: str
    legend: str


def _target(query: Query, number: int) -> prometheus.Dataquery:
    return (prometheus.Dataquery().expr(query.expression).legend_format(query.legend).range()
            .ref_id(chr(ord("A") + number)).datasource(DATASOURCE))


def _legend() -> common.VizLegendOptions:
    return (common.VizLegendOptions().show_legend(True).placement(looks.LegendPlacement.BOTTOM)
            .display_mode(looks.LegendDisplayMode.LIST))


def graph(title: str, unit: str, description: str, queries: Sequence[Query], *, span: int = THIRD,
          top: float | None = None) -> timeseries.Panel:
    """Lines over time, from zero; the axis ends at `top`, where that is known."""
    panel = (timeseries.Panel().title(title).unit(unit).description(description).datasource(DATASOURCE)
             .span(span).height(8).min(0).line_width(1).fill_opacity(8)
             .show_points(looks.VisibilityMode.NEVER).legend(_legend())
             .tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING)))
    for number, query in enumerate(queries):
        panel.with_target(_target(query, number))
    return panel if top is None else panel.max(top)


def stacked(title: str, unit: str, description: str, queries: Sequence[Query], *, span: int = THIRD,
            line: str | None = None) -> timeseries.Panel:
    """Areas on top of each other; the series named `line` is a limit above them and takes no part."""
    panel = (graph(title, unit, description, queries, span=span).fill_opacity(30)
             .stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL).group("areas")))
    if line is None:
        return panel
    return panel.override_by_name(line, [
        models.DynamicConfigValue("custom.stacking", {"mode": "none"}),
        models.DynamicConfigValue("custom.fillOpacity", 0),
        models.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [10, 10]}),
    ])


def figure(title: str, unit: str, description: str, query: Query, *,
           warn_from: float | None = None, red_from: float | None = None) -> stat.Panel:
    """The last value, large, coloured from two limits on."""
    steps = [models.Threshold(value=None, color="green")]
    if warn_from is not None:
        steps.append(models.Threshold(value=warn_from, color="orange"))
    if red_from is not None:
        steps.append(models.Threshold(value=red_from, color="red"))
    return (stat.Panel().title(title).unit(unit).description(description).datasource(DATASOURCE)
            .span(SMALL).height(5).graph_mode(looks.BigValueGraphMode.AREA)
            .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
            .thresholds(dashboards.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
            .with_target(_target(query, 0)))


def heat_map(title: str, unit: str, description: str, buckets: str, *, span: int = THIRD,
             height: int = 8) -> heatmap.Panel:
    """How many observations fell into each bucket over time; `buckets` selects a histogram's series."""
    query = Query(f"sum by (le) (increase({buckets}[$__rate_interval]))", "{{le}}")
    colors = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    return (heatmap.Panel().title(title).description(description).datasource(DATASOURCE)
            .unit("short").span(span).height(height).calculate(False).color(colors).hide_legend()
            .cell_gap(1).y_axis(heatmap.YAxisConfig().unit(unit))
            .with_target(_target(query, 0).format(PromQueryFormat.HEATMAP)))
