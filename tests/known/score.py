"""How well the sensor tells what is known."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.command import vmsensor

from .capture import PORT, write
from .grid import Known
from .mirror import Mirror, Sighting
from .truth import CAUSES, SIZES, Direction, Truth, truth_of

WAYS = ("c2s", "s2c")
CLOSE_US = 2
OPTIONS = ("--to", "none", "--flows", "-", "--tcp-idle-timeout", "10m")
Flow = dict[str, Any]


@dataclass
class Cause:
    """One cause: counts, and directions of flows in which there are any."""

    truth: int = 0
    sensor: int = 0
    agreed: int = 0
    flows_truth: int = 0
    flows_sensor: int = 0
    flows_right: int = 0
    """Both say the same number."""

    def note(self, truth: int, sensor: int) -> None:
        """Take in one direction of a flow."""
        self.truth += truth
        self.sensor += sensor
        self.agreed += min(truth, sensor)
        self.flows_truth += truth > 0
        self.flows_sensor += sensor > 0
        self.flows_right += truth == sensor > 0

    def add(self, other: Cause) -> None:
        """Add another one's numbers."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def ratios(self) -> tuple[float, float, float, float]:
        """Precision and recall of the counts, then of the flows with exactly the right count."""
        return (
            _share(self.agreed, self.sensor), _share(self.agreed, self.truth),
            _share(self.flows_right, self.flows_sensor), _share(self.flows_right, self.flows_truth),
        )  # fmt: skip


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


@dataclass
class Times:
    """One kind of time: how many are known, and what the sensor made of them."""

    known: int = 0
    close: int = 0
    missing: int = 0
    unknown: int = 0
    """The sensor has a time where the truth has none."""

    def note(self, truth_ns: int | None, told_us: float | None) -> bool:
        """Take in one; False when the sensor's is missing or off."""
        if truth_ns is None:
            self.unknown += told_us is not None
            return True
        self.known += 1
        close = told_us is not None and abs(told_us - truth_ns / 1e3) <= CLOSE_US
        self.close += close
        self.missing += told_us is None
        return close

    def add(self, other: Times) -> None:
        """Add another one's numbers."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass
class Score:
    """All causes and times of a set of flows."""

    flows: int = 0
    packets: int = 0
    causes: dict[str, Cause] = field(default_factory=lambda: {name: Cause() for name in (*SIZES, *CAUSES)})
    times: dict[str, Times] = field(default_factory=lambda: {name: Times() for name in TIMES})
    wrong: list[str] = field(default_factory=list)
    reported: Counter[str] = field(default_factory=Counter)

    def add(self, other: Score) -> None:
        """Add another score's numbers."""
        self.flows += other.flows
        self.packets += other.packets
        for name, cause in other.causes.items():
            self.causes[name].add(cause)
        for name, times in other.times.items():
            self.times[name].add(times)
        self.wrong += other.wrong
        self.reported += other.reported


TIMES = ("rtt_min", "transit_min", "transit_avg", "transit_max", "handshake_server", "handshake_client")


def flows_of(capture: Path, *options: str) -> list[Flow]:
    """The sensor's flow records of a capture."""
    done = vmsensor("read", capture, *OPTIONS, *options)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def records(known: list[Known], mirror: Mirror, capture: Path) -> tuple[list[list[Sighting]], list[Flow]]:
    """What the mirror shows of the connections, and the sensor's flow records of that."""
    shown = [one.shown(mirror) for one in known]
    write(capture, [(sightings, one.where, one.connection.habits) for sightings, one in zip(shown, known, strict=True)])
    # Where the first sighting of a packet is missing, only its copy in the other VLAN may be there.
    flows = flows_of(capture, *(["--no-vlan-key"] if mirror.unseen else []))
    capture.unlink()
    return shown, flows


def score(known: list[Known], mirror: Mirror, capture: Path) -> Score:
    """Hold the sensor's flow records against the truth. `capture` is only for the time of the call."""
    shown, flows = records(known, mirror, capture)
    result = Score()
    found: dict[str, list[Flow]] = {}
    for flow in flows:
        client = "client" if flow["server_port"] == PORT else "server"
        found.setdefault(flow[f"{client}_ip"], []).append(flow)
    for one, sightings in zip(known, shown, strict=True):
        if not sightings:
            continue
        result.flows += 1
        result.packets += len(sightings)
        _compare(result, truth_of(sightings), found.get(one.where.client, []), one.where.client)
    return result


def _compare(result: Score, truth: Truth, flows: list[Flow], name: str) -> None:
    if len(flows) != 1 or flows[0]["server_port"] != PORT:
        result.wrong.append(f"{name}: {len(flows)} flows")
    flow = flows[0]
    for way, direction in zip(WAYS, truth.directions, strict=True):
        _compare_direction(result, direction, flow, way, name)
    for half, took in (("server", truth.handshake_server_ns), ("client", truth.handshake_client_ns)):
        _compare_time(result, f"handshake_{half}", took, flow[f"handshake_{half}_us"], name)


def _compare_direction(result: Score, direction: Direction, flow: Flow, way: str, name: str) -> None:
    for cause, counted in direction.counts.items():
        told = flow[f"{way}_{cause}"] or 0
        result.causes[cause].note(counted, told)
        if told != counted:
            result.wrong.append(f"{name} {way}: {cause} {told}, in truth {counted}")
    told = flow[f"{way}_rtt_min_us"]
    _compare_time(result, "rtt_min", _rtt_min(direction, told), told, f"{name} {way}")
    if (transits := direction.transit_ns) and not direction.has_twins:
        for statistic, took in (
            ("min", min(transits)),
            ("avg", sum(transits) // len(transits)),
            ("max", max(transits)),
        ):
            _compare_time(result, f"transit_{statistic}", took, flow[f"{way}_transit_{statistic}_us"], f"{name} {way}")


def _rtt_min(direction: Direction, told_us: float | None) -> int | None:
    """The smallest that has to be known; or a smaller one that is true as well, if the sensor has found it."""
    required = min(direction.rtt_ns, default=None)
    also = [ns for ns in direction.rtt_also_ns if told_us is not None and abs(told_us - ns / 1e3) <= CLOSE_US]
    return min([*also, *([] if required is None else [required])], default=None)


def _compare_time(result: Score, kind: str, truth_ns: int | None, told_us: float | None, name: str) -> None:
    if not result.times[kind].note(truth_ns, told_us):
        result.wrong.append(f"{name}: {kind} {told_us} us, in truth {(truth_ns or 0) / 1e3} us")
