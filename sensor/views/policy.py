"""``vmsensor policy check``: what a policy says of the flows in captures, before it is used live."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace

from sensor.analysis.findings import Finding, Scene
from sensor.analysis.policy.detector import Talk, denied_talks
from sensor.analysis.policy.judge import judge
from sensor.analysis.policy.rules import Policy
from sensor.config import Settings
from sensor.errors import PolicyBroken, UsageError
from sensor.mind import watched, watched_policy
from sensor.output import write
from sensor.runner import read_files
from sensor.stopping import Stop
from sensor.summary import console_for_people, count, scaled

MOST_TALKS = 100_000
"""Talks kept apart; further ones are counted."""

MOST_SHOWN = 50


class Tally:
    """Adds up over windows what a policy forbids, and which rules were used. A detector that finds nothing."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.talks: dict[tuple[str, ...], Talk] = {}
        self.used: Counter[int] = Counter()
        self.unlisted = 0
        """Talks of a window beyond ``MOST_TALKS``."""

    def look(self, scene: Scene) -> Iterable[Finding]:
        """Take a window in."""
        judgement = judge(self.policy, scene.records, scene.parties, every=True)
        self.used.update(judgement.rule[judgement.rule >= 0].tolist())
        talks, left = denied_talks(scene, judgement, MOST_TALKS)
        self.unlisted += left
        for talk in talks:
            key = (talk.client_tenant, talk.client, talk.server_tenant, talk.server, talk.protocol, talk.service)
            before = self.talks.get(key)
            if before is not None:
                self.talks[key] = _sum(before, talk)
            elif len(self.talks) < MOST_TALKS:
                self.talks[key] = replace(talk, flows=talk.begun)
            else:
                self.unlisted += 1
        return ()


def _sum(one: Talk, other: Talk) -> Talk:
    return replace(
        one, flows=one.flows + other.begun, answered=one.answered + other.answered, octets=one.octets + other.octets
    )  # fmt: skip


def check(files: list[str], settings: Settings, form: str, stop: Stop) -> None:
    """Print what the policy forbids; PolicyBroken when there is something."""
    if settings.policy is None:
        raise UsageError("policy check needs a policy file")
    policy = watched_policy(settings.policy, watched(settings.inventory)).current()
    tally = Tally(policy)
    read_files(replace(settings, policy=None), files, None, stop, detectors=[tally])
    talks = sorted(tally.talks.values(), key=lambda talk: -talk.octets)
    write(_json(tally, talks) if form == "json" else _table(tally, talks))
    if talks:
        raise PolicyBroken(f"{settings.policy}: {count(len(talks), 'talk')} not allowed, listed above")


def _json(tally: Tally, talks: list[Talk]) -> str:
    rules = [
        {"rule": number + 1, "place": rule.place, "flows": tally.used[number]}
        for number, rule in enumerate(tally.policy.rules)
    ]
    return json.dumps({"denied": [_object(talk) for talk in talks], "rules": rules}, indent=2) + "\n"


def _object(talk: Talk) -> dict[str, object]:
    names = ("client", "client_tenant", "server", "server_tenant", "protocol", "service", "scope", "flows", "addresses")
    return {**{name: getattr(talk, name) for name in names}, "bytes": talk.octets, "answered": talk.answered > 0}


def _table(tally: Tally, talks: list[Talk]) -> str:
    from rich.markup import escape
    from rich.table import Table as RichTable

    console = console_for_people()
    with console.capture() as text:
        if talks:
            table = RichTable(title="Not allowed", title_justify="left", header_style="bold", box=None, pad_edge=False)
            for name in ("client", "tenant", "server", "tenant", "service", "scope", "flows", "octets", "answered"):
                table.add_column(name, justify="right" if name in ("flows", "octets") else "left")
            for talk in talks[:MOST_SHOWN]:
                table.add_row(*map(escape, _cells(talk)))
            console.print(table)
        for line in _beneath(tally, talks):
            console.print(escape(line))
    return text.get()


def _cells(talk: Talk) -> list[str]:
    ends = [f"{name} ({', '.join(talk.addresses)})" if talk.addresses and name == "external" else name
            for name in (talk.client, talk.server)]  # fmt: skip
    service = talk.service if talk.protocol in ("tcp", talk.service) else f"{talk.service}/{talk.protocol}"
    return [
        ends[0], talk.client_tenant, ends[1], talk.server_tenant, service, talk.scope, f"{talk.flows:,}",
        scaled(talk.octets, "B"), "yes" if talk.answered else "no",
    ]  # fmt: skip


def _beneath(tally: Tally, talks: list[Talk]) -> Iterator[str]:
    if len(talks) > MOST_SHOWN:
        yield f"{len(talks) - MOST_SHOWN:,} more; --format json has all."
    if tally.unlisted:
        yield f"{tally.unlisted:,} more talks are not allowed, of further clients and servers."
    if not talks:
        yield "Everything is allowed."
    for number, rule in enumerate(tally.policy.rules):
        if not tally.used[number]:
            yield f"{rule.place} was not used."
