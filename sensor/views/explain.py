"""``vmsensor explain``: the path from a VM that is slow to the likely root."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sensor.analysis.explain import Explanation, Step, Trouble, explain
from sensor.analysis.graph import Graph
from sensor.config import Settings
from sensor.output import write
from sensor.readback import each_report
from sensor.stopping import Stop
from sensor.summary import console_for_people, latency
from sensor.views.dependencies import edge_object, named

if TYPE_CHECKING:
    from rich.tree import Tree


def print_explanation(name: str, source: Path, settings: Settings, form: str, stop: Stop) -> None:
    """Print what slowed a VM down, of each VM of that name."""
    graph = Graph()
    damage = each_report(source, settings, graph.add, stop)
    found = [explain(graph, vm, settings.limits) for vm in named(graph, name, source)]
    if form == "json":
        write("".join(json.dumps(_object(one), allow_nan=False) + "\n" for one in found))
    else:
        write("".join(map(_text, found)))
    if damage:
        raise damage


def _text(found: Explanation) -> str:
    from rich.markup import escape
    from rich.tree import Tree

    console = console_for_people()
    with console.capture() as text:
        if not found.paths and not found.above:
            console.print(f"{escape(found.vm.label)}: nothing that it needs was slow or failing, nor it itself.")
        else:
            tree = Tree(f"[bold]{escape(found.vm.label)}[/bold]")
            for step in found.paths:
                _grow(tree, step)
            if found.paths:
                console.print(tree)
            for line in _conclusion(found):
                console.print(line)
    return text.get()


def _grow(tree: Tree, step: Step) -> None:
    from rich.markup import escape

    key = step.trouble.edge.key
    share = f"  explains {step.share:.0%} of it" if step.share is not None else ""
    branch = tree.add(f"{escape(key.server.label)} {escape(key.service)}  {escape(_said(step.trouble))}{share}")
    for below in step.below:
        _grow(branch, below)


def _said(trouble: Trouble) -> str:
    since = time.strftime("%H:%M:%S", time.gmtime(trouble.since_ns / 1e9))
    if trouble.now_us is None:
        return f"{trouble.failed:,} of {trouble.attempts:,} attempts failed, since {since}"
    return f"answers in {latency(trouble.now_us)}, usual are {latency(trouble.usual_us)}, since {since}"


def _conclusion(found: Explanation) -> Iterator[str]:
    from rich.markup import escape

    networks = {step.trouble.edge.key.server: step.trouble for step in _leaves(found.paths)}
    for root in found.roots:
        trouble = networks.get(root)
        line = f"Likely root: [bold]{escape(root.label)}[/bold]"
        if trouble is None:
            yield f"{line}, itself: nothing that it needs was slow."
            continue
        yield f"{line}: nothing that it needs was slow. {_network(trouble)}"
    if found.above:
        yield "Slow or failing with it, above: " + ", ".join(escape(one.edge.key.label) for one in found.above)
    yield "[dim]95th percentiles of response times; times are UTC.[/dim]"


def _network(trouble: Trouble) -> str:
    """Whether it is the server, or the way to it."""
    if trouble.now_us is None:
        return ""
    if trouble.is_network is None:
        return "Whether it is the VM or the network to it cannot be told: too few connections were opened."
    ways = f"{latency(trouble.way_now_us)} from SYN to SYN-ACK, usual are {latency(trouble.way_usual_us)}"
    return (
        f"The network to it is to blame: {ways}." if trouble.is_network else f"The network to it is as usual: {ways}."
    )


def _leaves(steps: list[Step]) -> Iterator[Step]:
    for step in steps:
        if step.below:
            yield from _leaves(step.below)
        else:
            yield step


def _object(found: Explanation) -> dict[str, object]:
    return {
        "vm": found.vm._asdict(),
        "roots": [vm._asdict() for vm in found.roots],
        "paths": [_step(step) for step in found.paths],
        "above": [_trouble(one) for one in found.above],
    }


def _step(step: Step) -> dict[str, object]:
    return {**_trouble(step.trouble), "share": step.share, "below": [_step(below) for below in step.below]}


def _trouble(trouble: Trouble) -> dict[str, object]:
    return {
        "edge": edge_object(trouble.edge),
        "since_ns": trouble.since_ns,
        "response_p95_us": trouble.now_us,
        "usual_p95_us": trouble.usual_us,
        "handshake_us": trouble.way_now_us,
        "usual_handshake_us": trouble.way_usual_us,
        "is_network": trouble.is_network,
        "failed": trouble.failed,
        "attempts": trouble.attempts,
    }
