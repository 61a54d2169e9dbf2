"""What the dashboards are put together from: variables, links, annotations, and panels of a few kinds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import common, nodegraph, stat, table, text, timeseries
from grafana_foundation_sdk.builders import dashboard as make
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as model

from dashboards.influxql import SENSOR, SOURCE, InfluxQL

GREEN, YELLOW, RED, BLUE = "green", "yellow", "red", "blue"
LOSS_STEPS = ((None, GREEN), (0.001, YELLOW), (0.01, RED))
"""One in a thousand slows a bulk transfer down, one in a hundred cripples it (Mathis et al., 1997)."""
RATIO_OF_TRUST_STEPS = ((None, RED), (0.9, YELLOW), (0.99, GREEN))
ANY_IS_BAD = ((None, GREEN), (1, RED))

Steps = Sequence[tuple[float | None, str]]


def steps(*pairs: tuple[float | None, str]) -> make.ThresholdsConfig:
    """Thresholds: from each value on, its colour."""
    return (
        make.ThresholdsConfig()
        .mode(model.ThresholdsMode.ABSOLUTE)
        .steps([model.Threshold(value=value, color=color) for value, color in pairs])
    )


def board(
    uid: str, title: str, description: str, *variables: make.QueryVariable | make.CustomVariable
) -> make.Dashboard:
    """A dashboard with the variables, links and annotations that all have."""
    made = (
        make.Dashboard(title)
        .uid(f"vmsensor-{uid}")
        .description(description)
        .tags(["vmsensor"])
        .time("now-1h", "now")
        .refresh("30s")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .with_variable(
            make.DatasourceVariable("datasource")
            .label("Database")
            .description("The data source that a sensor writes to: of windows, or of five minutes for long times.")
            .type("influxdb")
        )
        .link(
            make.DashboardLink("vmsensor")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["vmsensor"])
            .as_dropdown(True)
            .include_vars(True)
            .keep_time(True)
        )
    )
    for variable in variables:
        made = made.with_variable(variable)
    return made.annotation(_events())


def _events() -> make.AnnotationQuery:
    """Every event that is opened or is a fact, where it happened."""
    query = (
        f"""SELECT "detail" FROM "event" WHERE $timeFilter AND {SENSOR} AND ("state" = 'open' OR "state" = 'fact')"""
    )
    annotation = make.AnnotationQuery().name("Events").datasource(SOURCE).enable(True).icon_color(RED)
    annotation._internal.target = _AnnotationTarget(query + ' GROUP BY "kind", "severity"')
    return annotation


class _AnnotationTarget:
    """What the InfluxDB data source takes of an annotation; the SDK's own knows only Grafana's tags."""

    def __init__(self, query: str) -> None:
        self.query = query

    def to_json(self) -> dict[str, object]:
        """The columns by their names."""
        return {
            "query": self.query, "rawQuery": True, "fromAnnotations": True, "textEditor": True, "refId": "Anno",
            "textColumn": "detail", "tagsColumn": "kind,severity",
        }  # fmt: skip


# ---- variables


def tag_values(name: str, label: str, description: str, query: str, multi: bool = True) -> make.QueryVariable:
    """A choice of the values that a tag has."""
    made = (
        make.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(SOURCE)
        .query({"query": query, "refId": f"variable-{name}"})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )
    return made.multi(True).include_all(True).all_value(".*") if multi else made


def sensor_variable() -> make.QueryVariable:
    """Which sensors."""
    return tag_values(
        "sensor", "Sensor",
        "Sensors to add up. Where two of them see the same traffic, choose one: what both see would count twice.",
        'SHOW TAG VALUES FROM "sensor" WITH KEY = "sensor"',
    )  # fmt: skip


def tenant_variable(multi: bool = True) -> make.QueryVariable:
    """Which tenants."""
    return tag_values(
        "tenant", "Tenant", "Tenants of which at least one end is.",
        f'SHOW TAG VALUES FROM "vm_traffic" WITH KEY = "src_tenant" WHERE {SENSOR}', multi,
    )  # fmt: skip


def vm_variable(multi: bool = True) -> make.QueryVariable:
    """Which VMs of these tenants."""
    return tag_values(
        "vm", "VM", "VMs that one end is.",
        f'SHOW TAG VALUES FROM "vm_traffic" WITH KEY = "src_vm" WHERE {SENSOR} AND "src_tenant" =~ /^$tenant$/', multi,
    )  # fmt: skip


def service_variable() -> make.QueryVariable:
    """Which services."""
    return tag_values(
        "service", "Service", "Services by the server's port.",
        f'SHOW TAG VALUES FROM "vm_traffic" WITH KEY = "service" WHERE {SENSOR}',
    )  # fmt: skip


def scope_variable() -> make.CustomVariable:
    """Which scopes."""
    return (
        make.CustomVariable("scope")
        .label("Scope")
        .description("east-west: both ends of one tenant; inter-tenant: of two; north-south: one end is outside.")
        .values("east-west,inter-tenant,north-south,unknown")
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(model.VariableOption(text="All", value="$__all", selected=True))
    )


def traffic_variables() -> tuple[make.QueryVariable | make.CustomVariable, ...]:
    """All of them, in the order in which they depend on one another."""
    return sensor_variable(), tenant_variable(), vm_variable(), service_variable(), scope_variable()


def top_variable() -> make.CustomVariable:
    """How many rows."""
    ten = model.VariableOption(text="20", value="20", selected=True)
    return (
        make.CustomVariable("top")
        .label("Rows")
        .description("The heaviest so many.")
        .values("10,20,50,100")
        .current(ten)
    )


# ---- panels


def series(title: str, description: str, unit: str, *targets: InfluxQL, width: int = 12, height: int = 8) -> Any:
    """Lines over time."""
    panel = _common(timeseries.Panel(), title, description, unit, targets, width, height)
    return (
        panel.min(0)
        .line_width(1)
        .fill_opacity(10)
        .show_points(shapes.VisibilityMode.AUTO)
        .legend(
            common.VizLegendOptions()
            .display_mode(shapes.LegendDisplayMode.TABLE)
            .placement(shapes.LegendPlacement.BOTTOM)
            .show_legend(True)
            .calcs(["mean", "max"])
        )
        .tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI).sort(shapes.SortOrder.DESCENDING))
    )


def stacked(title: str, description: str, unit: str, *targets: InfluxQL, width: int = 12, height: int = 8) -> Any:
    """Areas on top of one another: parts of a whole."""
    panel = series(title, description, unit, *targets, width=width, height=height)
    return panel.fill_opacity(40).stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))


def number(
    title: str, description: str, unit: str, target: InfluxQL, marks: Steps = ((None, BLUE),), width: int = 4
) -> Any:
    """One number, coloured by its thresholds."""
    panel = _common(stat.Panel(), title, description, unit, (target,), width, 4)
    return (
        panel.thresholds(steps(*marks))
        .color_mode(shapes.BigValueColorMode.VALUE)
        .graph_mode(shapes.BigValueGraphMode.NONE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .no_value("-")
    )


def rows(title: str, description: str, target: InfluxQL, width: int = 12, height: int = 8, sort: str = "") -> Any:
    """A table."""
    panel = _common(table.Panel(), title, description, "", (target,), width, height)
    panel = panel.filterable(True).transformations([organized(exclude=("Time",))])
    return panel.sort_by([common.TableSortByFieldState().display_name(sort).desc(True)]) if sort else panel


def matrix(title: str, description: str, unit: str, target: InfluxQL, row: str, column: str, value: str, marks: Steps = (),
           width: int = 12, height: int = 12) -> Any:  # fmt: skip
    """Rows send to columns; a cell's colour is its value."""
    color = make.FieldColor().mode(
        model.FieldColorModeId.THRESHOLDS if marks else model.FieldColorModeId.CONTINUOUS_GR_YL_RD
    )
    panel = _common(table.Panel(), title, description, unit, (target,), width, height)
    panel = panel.transformations(
        [
            transformation("groupingToMatrix", rowField=row, columnField=column, valueField=value, emptyValue="null"),
        ]
    )
    panel = panel.color_scheme(color).align(shapes.FieldTextAlignment.CENTER)
    panel = panel.cell_options(
        shapes.TableColoredBackgroundCellOptions(mode=shapes.TableCellBackgroundDisplayMode.BASIC)
    )
    plain = [model.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "auto"})]
    panel = panel.override_by_name(f"{row}\\{column}", plain)
    return panel.thresholds(steps(*marks)) if marks else panel


def graph(title: str, description: str, target: InfluxQL, width: int = 24, height: int = 18) -> Any:
    """Who needs whom: the panel makes the nodes of the edges' ends."""
    panel = _common(nodegraph.Panel(), title, description, "", (target,), width, height)
    # The panel wants an id for each edge, and finds its columns by their own names: the query has to give them.
    index = transformation("calculateField", mode="index", alias="id", replaceFields=False)
    return panel.transformations([index, organized(exclude=("Time",))])


def words(content: str, width: int = 24, height: int = 3) -> Any:
    """Markdown."""
    return text.Panel().content(content).span(width).height(height).transparent(True)


def organized(exclude: Sequence[str] = (), rename: dict[str, str] | None = None) -> model.DataTransformerConfig:
    """Columns without some, and under other names."""
    return transformation("organize", excludeByName=dict.fromkeys(exclude, True), renameByName=rename or {})


def transformation(kind: str, **options: object) -> model.DataTransformerConfig:
    """One of Grafana's transformations."""
    return model.DataTransformerConfig(id_val=kind, options=options)


def unit_of(panel: Any, column: str, unit: str, marks: Steps = ()) -> Any:
    """Give one column of a table its unit, and colours."""
    values = [model.DynamicConfigValue(id_val="unit", value=unit)]
    if marks:
        values.append(model.DynamicConfigValue(id_val="thresholds", value=steps(*marks).build()))
        values.append(model.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}))
        values.append(model.DynamicConfigValue(id_val="color", value={"mode": "thresholds"}))
    return panel.override_by_name(column, values)


def linked(panel: Any, column: str, uid: str, variable: str) -> Any:
    """Let a click on a cell of the column open another dashboard with it chosen."""
    link = model.DashboardLink(title=f"Show this {variable}", url=(
        f"/d/vmsensor-{uid}?${{__url_time_range}}&${{datasource:queryparam}}&${{sensor:queryparam}}"
        f"&var-{variable}=${{__value.text:percentencode}}"
    )).to_json()  # fmt: skip
    link = {"title": link["title"], "url": link["url"]}
    return panel.override_by_name(column, [model.DynamicConfigValue(id_val="links", value=[link])])


def _common(
    panel: Any, title: str, description: str, unit: str, targets: Sequence[InfluxQL], width: int, height: int
) -> Any:
    panel = panel.title(title).description(description).datasource(SOURCE).span(width).height(height)
    for letter, target in zip("ABCDEFGHIJKLMNOPQRSTUVWXYZ", targets, strict=False):
        target.ref_id = letter
        panel = panel.with_target(target)
    return panel.unit(unit) if unit else panel
