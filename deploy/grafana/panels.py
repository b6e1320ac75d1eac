# SPDX-License-Identifier: Apache-2.0
#
# The kinds of panels that dashboard.py is made of, each with the looks that all of its kind share: graphs, single figures, heat maps of
# histogram buckets and the table of alerts. A panel that a page below docs/runbooks tells people to look at links to that page.
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

from grafana_foundation_sdk.builders import common, heatmap, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as dashboards
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")

# A replica's series; what stands for one job in a recording rule has no instance any more, and some series are a model's.
JOBS = 'cluster=~"$cluster",namespace=~"$namespace",job=~"$job"'
REPLICAS = JOBS + ',instance=~"$instance"'
MODELS = REPLICAS + ',model=~"$model"'

# The metrics that say which model a request was for.
BY_MODEL = ("swiglu_requests_total", "swiglu_request_duration_seconds", "swiglu_phase_duration_seconds", "swiglu_elements_total",
            "swiglu_mlp_tokens_total", "swiglu_mlp_batch_tokens", "swiglu_mlp_weight_bytes", "swiglu_mlp_loading", "swiglu_mlp_loaded_bytes",
            "swiglu_mlp_load_size_bytes", "swiglu_mlp_loads_total", "swiglu_mlp_last_load_timestamp_seconds",
            "swiglu_mlp_last_load_duration_seconds")

# Where Grafana's variable `runbooks` says that docs/runbooks is.
RUNBOOK_URL = "${runbooks}/%s.md"
RUNBOOKS = {page.stem: page.read_text()
            for page in sorted((pathlib.Path(__file__).resolve().parents[2] / "docs/runbooks").glob("*.md"))}

# A dashboard is 24 columns wide.
SMALL, THIRD, HALF, FULL = 4, 8, 12, 24


class Query(NamedTuple):
    """What one or several lines of a graph show."""

    expression: str
    legend: str
    # Where it is not the panel's; the axis is then on the right.
    unit: str | None = None


def replicas_of(metric: str) -> str:
    """The matchers of a metric's series: of the chosen replicas, and models where it has them."""
    return MODELS if re.sub("_(bucket|sum|count)$", "", metric) in BY_MODEL else REPLICAS


def _links(title: str) -> list[Builder[models.DashboardLink]]:
    """A link to each runbook that names the panel."""
    return [dashboards.DashboardLink(alert).type(models.DashboardLinkType.LINK).url(RUNBOOK_URL % alert).target_blank(True)
            for alert, page in RUNBOOKS.items() if f"*{title}*" in page]


def _ref_id(number: int) -> str:
    return chr(ord("A") + number)


def _target(query: Query, number: int) -> prometheus.Dataquery:
    return (prometheus.Dataquery().expr(query.expression).legend_format(query.legend).range()
            .ref_id(_ref_id(number)).datasource(DATASOURCE))


def _legend() -> common.VizLegendOptions:
    return (common.VizLegendOptions().show_legend(True).placement(looks.LegendPlacement.BOTTOM)
            .display_mode(looks.LegendDisplayMode.LIST))


def graph(title: str, unit: str, description: str, queries: Sequence[Query], *, span: int = THIRD,
          top: float | None = None) -> timeseries.Panel:
    """Lines over time, from zero; the axis ends at `top`, where that is known."""
    panel = (timeseries.Panel().title(title).unit(unit).description(description).datasource(DATASOURCE)
             .span(span).height(8).min(0).line_width(1).fill_opacity(8).links(_links(title))
             .show_points(looks.VisibilityMode.NEVER).legend(_legend())
             .tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING)))
    for number, query in enumerate(queries):
        panel.with_target(_target(query, number))
        if query.unit is not None:
            panel.override_by_query(_ref_id(number), [models.DynamicConfigValue("unit", query.unit),
                                                      models.DynamicConfigValue("custom.axisPlacement", "right")])
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
            .span(SMALL).height(5).links(_links(title)).graph_mode(looks.BigValueGraphMode.AREA)
            .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
            .thresholds(dashboards.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
            .with_target(_target(query, 0)))


def heat_map(title: str, unit: str, description: str, buckets: str, *, span: int = THIRD,
             height: int = 8) -> heatmap.Panel:
    """How many observations fell into each bucket over time; `buckets` selects a histogram's series."""
    query = Query(f"sum by (le) (increase({buckets}[$__rate_interval]))", "{{le}}")
    colors = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64)
    return (heatmap.Panel().title(title).description(description).datasource(DATASOURCE)
            .unit("short").span(span).height(height).links(_links(title)).calculate(False).color(colors).hide_legend()
            .cell_gap(1).y_axis(heatmap.YAxisConfig().unit(unit))
            .with_target(_target(query, 0).format(PromQueryFormat.HEATMAP)))


def alert_table(title: str, description: str, alerts: str, *, span: int) -> table.Panel:
    """The alerts that `alerts` selects, one a line, each with a link to its runbook."""
    shown = ("alertname", "severity", "alertstate", "instance", "device", "reason", "long_window")
    link = {"title": "Runbook", "url": RUNBOOK_URL % "${__value.raw}", "targetBlank": True}
    return (table.Panel().title(title).unit("string").description(description).datasource(DATASOURCE)
            .span(span).height(8).links(_links(title))
            .with_target(prometheus.Dataquery().expr(alerts).instant().format(PromQueryFormat.TABLE).ref_id("A")
                         .legend_format("{{alertname}}").datasource(DATASOURCE))
            .with_transformation(models.DataTransformerConfig(
                "filterFieldsByName", options={"include": {"names": list(shown)}}))
            .with_transformation(models.DataTransformerConfig(
                "organize", options={"indexByName": {name: place for place, name in enumerate(shown)}}))
            .override_by_name("alertname", [models.DynamicConfigValue("links", [link])]))
