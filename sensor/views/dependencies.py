"""``vmsensor dependencies``: what VMs need and who needs them, as a tree, DOT, Mermaid or JSON."""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sensor.analysis.graph import VM, Edge, Graph
from sensor.config import Settings
from sensor.errors import InputError
from sensor.output import write
from sensor.readback import each_report
from sensor.stopping import Stop
from sensor.summary import console_for_people, count, latency, scaled

if TYPE_CHECKING:
    from rich.tree import Tree

MOST_LINES = 2000
"""Lines of a tree; what is below is said to be left out."""


def print_dependencies(source: Path, settings: Settings, name: str | None, form: str, stop: Stop) -> None:
    """Print the dependencies of a store or a capture; of one VM, if it is named."""
    graph = Graph()
    damage = each_report(source, settings, graph.add, stop)
    vms = named(graph, name, source) if name else None
    write(_FORMATS[form](graph, vms))
    if damage:
        raise damage


def named(graph: Graph, name: str, source: Path) -> list[VM]:
    """The VMs of a name; InputError with the nearest names when there is none."""
    found = graph.find(name)
    if found:
        return found
    known = {label for vm in graph.vms() for label in (vm.name, vm.label)}
    near = difflib.get_close_matches(name, known, 1)
    advice = f"did you mean {near[0]!r}?" if near else f"`vmsensor dependencies {source}` lists all"
    raise InputError(f"{source}: no VM {name!r} needs or is needed there; {advice}")


# ---- tree


class _Lines:
    """How many lines are left."""

    def __init__(self) -> None:
        self.left = MOST_LINES

    def take(self) -> bool:
        """One more, if there is room."""
        self.left -= 1
        return self.left >= 0


def _tree(graph: Graph, vms: list[VM] | None) -> str:
    console = console_for_people()
    lines = _Lines()
    with console.capture() as text:
        if not graph.edges:
            console.print("No dependency: nobody's request was answered, or the store has none.")
        for vm in vms if vms is not None else graph.roots():
            console.print(_of(graph, vm, lines, both=vms is not None))
        hidden = graph.dropped + max(-lines.left, 0)
        if hidden:
            console.print(f"[dim]{hidden:,} more are not shown; --format json has what a tree leaves out.[/dim]")
    return text.get()


def _of(graph: Graph, vm: VM, lines: _Lines, both: bool) -> Tree:
    from rich.markup import escape
    from rich.tree import Tree

    tree = Tree(f"[bold]{escape(vm.label)}[/bold]")
    if not both:
        _grow(graph, tree, vm, (vm,), lines, down=True)
        return tree
    for title, down in (("needs", True), ("is needed by", False)):
        branch = tree.add(title)
        _grow(graph, branch, vm, (vm,), lines, down)
        if not branch.children:
            branch.label = f"{title} nobody"
    return tree


def _grow(graph: Graph, tree: Tree, vm: VM, way: tuple[VM, ...], lines: _Lines, down: bool) -> None:
    from rich.markup import escape

    for edge in graph.needs(vm) if down else graph.needed_by(vm):
        other = edge.key.server if down else edge.key.client
        again = "  [dim](again: a circle)[/dim]" if other in way else ""
        if not lines.take():
            continue
        branch = tree.add(f"{escape(other.label)} {escape(edge.key.service)}  [dim]{escape(_said(edge))}[/dim]{again}")
        if not again:
            _grow(graph, branch, other, (*way, other), lines, down)


def _said(edge: Edge) -> str:
    """What matters of an edge, in a few words."""
    parts = [count(edge.connections, "connection")]
    if edge.failed:
        parts.append(f"{edge.failed:,} failed")
    if edge.response_us is not None:
        parts.append(f"answers in {latency(edge.response_us)}")
    parts += [scaled(edge.octets, "B"), f"since {_time(edge.first_seen_ns)}"]
    return ", ".join(parts)


def _time(ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ns / 1e9))


# ---- for other programs


def _chosen(graph: Graph, vms: list[VM] | None) -> list[Edge]:
    """All edges; of some VMs those that lie below or above them."""
    if vms is None:
        return sorted(graph.edges.values(), key=lambda edge: edge.key)
    chosen = {}
    for follow, end in ((graph.needs, "server"), (graph.needed_by, "client")):
        waiting, seen = list(vms), set(vms)
        while waiting:
            for edge in follow(waiting.pop()):
                chosen[edge.key] = edge
                other: VM = getattr(edge.key, end)
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
    return [chosen[key] for key in sorted(chosen)]


def _ends(edges: list[Edge]) -> list[VM]:
    return sorted({vm for edge in edges for vm in (edge.key.client, edge.key.server)})


def _dot(graph: Graph, vms: list[VM] | None) -> str:
    """Graphviz; a cluster a tenant."""
    edges = _chosen(graph, vms)
    lines = ["digraph dependencies {", "  rankdir=LR;", "  node [shape=box];"]
    ends = _ends(edges)
    ids = {vm: f"n{number}" for number, vm in enumerate(ends)}
    for number, tenant in enumerate(sorted({vm.tenant for vm in ends})):
        lines.append(f"  subgraph cluster_{number} {{")
        lines.append(f"    label={_quoted(tenant)};")
        lines += [f"    {ids[vm]} [label={_quoted(vm.name)}];" for vm in ends if vm.tenant == tenant]
        lines.append("  }")
    lines += [
        f"  {ids[edge.key.client]} -> {ids[edge.key.server]} [label={_quoted(edge.key.service)}];" for edge in edges
    ]
    return "\n".join([*lines, "}", ""])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _mermaid(graph: Graph, vms: list[VM] | None) -> str:
    """A flowchart; a subgraph a tenant."""
    edges = _chosen(graph, vms)
    ends = _ends(edges)
    ids = {vm: f"n{number}" for number, vm in enumerate(ends)}
    lines = ["flowchart LR"]
    for number, tenant in enumerate(sorted({vm.tenant for vm in ends})):
        lines.append(f"  subgraph t{number}[{_plain(tenant)}]")
        lines += [f"    {ids[vm]}[{_plain(vm.name)}]" for vm in ends if vm.tenant == tenant]
        lines.append("  end")
    lines += [f"  {ids[edge.key.client]} -->|{_plain(edge.key.service)}| {ids[edge.key.server]}" for edge in edges]
    return "\n".join([*lines, ""])


def _plain(text: str) -> str:
    """Mermaid has entity codes for what its grammar uses."""
    special = '"#<>&|[]{}()\\'
    return '"' + "".join(f"#{ord(letter)};" if letter in special else letter for letter in text) + '"'


def _json(graph: Graph, vms: list[VM] | None) -> str:
    edges = _chosen(graph, vms)
    return json.dumps(
        {
            "vms": [vm._asdict() for vm in _ends(edges)],
            "edges": list(map(edge_object, edges)),
            "dropped": graph.dropped,
        },
        indent=2,
        allow_nan=False,
    ) + "\n"  # fmt: skip


def edge_object(edge: Edge) -> dict[str, object]:
    """An edge, with its sums."""
    return {
        "client": edge.key.client._asdict(),
        "server": edge.key.server._asdict(),
        "service": edge.key.service,
        "scope": edge.scope,
        "first_seen_ns": edge.first_seen_ns,
        "last_seen_ns": edge.last_seen_ns,
        "connections": edge.connections,
        "failed": edge.failed,
        "bytes": edge.octets,
        "responses": edge.responses,
        "response_p95_us": edge.response_us,
    }


_FORMATS: dict[str, Callable[[Graph, list[VM] | None], str]] = {
    "tree": _tree, "dot": _dot, "mermaid": _mermaid, "json": _json
}  # fmt: skip
