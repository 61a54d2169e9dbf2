"""What is learned from the wire: spans of time, bounds, and what survives a restart."""

from __future__ import annotations

import errno
import json
import logging
import os
from pathlib import Path

import pytest

from sensor.config import build
from sensor.errors import OutputError
from sensor.identity import learned as module
from sensor.identity.domains import Domain, domain_of
from sensor.identity.heard import Heard
from sensor.identity.history import MOST_SPANS, History
from sensor.identity.learned import Card, Learned
from sensor.memory import Memory
from sensor.runner import Pipeline

A, B = "02:00:00:00:00:0a", "02:00:00:00:00:0b"
DEFAULT = domain_of((), None)


def test_a_history_has_spans_with_from_and_to() -> None:
    """A value lasts as long as it is seen; another one begins a span; a late packet changes nothing."""
    history: History[str] = History()
    assert history.at(5) is None
    for value, time_ns in (("a", 10), ("a", 20), ("b", 30), ("a", 25), ("b", 40)):
        history.see(value, time_ns)
    assert [(span.value, span.from_ns, span.to_ns) for span in history.spans] == [("a", 10, 20), ("b", 30, 40)]
    assert [history.at(time_ns) for time_ns in (9, 10, 29, 30, 99)] == [None, "a", "a", "b", "b"]


def test_a_history_is_bounded() -> None:
    """An address that changes hands for ever takes no more memory."""
    history: History[str] = History()
    for time_ns in range(100):
        history.see("ab"[time_ns % 2], time_ns)
    assert len(history.spans) == MOST_SPANS


def test_domains_have_names() -> None:
    """A VNI is a network by itself, tags beside it are the underlay's; a priority tag is no VLAN."""
    names = [domain_of(vlan, vni).name for vlan, vni in (((), None), ((10, 20), None), ((99,), 7), ((0,), None))]
    assert names == ["default", "vlan10.20", "vni7", "default"]


def test_a_name_belongs_to_whoever_had_the_address_then() -> None:
    """An address that DHCP hands to another VM names the one that had it at the time that is asked for."""
    learned = Learned()
    learned.hear([
        Heard(100, "hostname", A, ip="10.0.0.5", name="first"),
        Heard(200, "hostname", B, ip="10.0.0.5", name="second"),
    ])  # fmt: skip
    assert [learned.name_of(DEFAULT, "10.0.0.5", "", time_ns) for time_ns in (50, 150, 250)] == [
        None, "first", "second"
    ]  # fmt: skip
    assert learned.name_of(Domain((10,), None), "10.0.0.5", "", 250) is None


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of cards pushes out those heard least lately, and is counted; a card that goes on being heard stays."""
    monkeypatch.setattr(module, "MOST_CARDS", 100)
    learned = Learned()
    for i in range(1000):
        learned.hear([
            Heard(i, "binding", A, ip="10.0.0.1"),
            Heard(i, "binding", f"02:00:00:00:{i >> 8:02x}:{i & 255:02x}", ip=f"10.2.{i >> 8}.{i & 255}", vni=1),
        ])  # fmt: skip
    assert len(learned.cards) == 100
    assert len(learned.owners) == 100
    assert learned.forgotten == 901
    assert Card("default", A) in learned.cards


def test_a_card_keeps_few_addresses() -> None:
    """One that claims every address of a network takes no more memory for it."""
    learned = Learned()
    learned.hear([Heard(i, "binding", A, ip=f"10.0.0.{i}") for i in range(1, 255)])
    assert len(learned.cards[Card("default", A)].addresses) == module.MOST_ADDRESSES


def test_everything_survives_a_restart(tmp_path: Path) -> None:
    """What is kept in a file and read again gives the same answers."""
    learned = Learned()
    learned.hear([
        Heard(100, "hostname", A, ip="10.0.0.5", name="web", vni=7, vtep="192.0.2.1"),
        Heard(200, "binding", B, ip="10.0.0.6", vlan=(10,)),
        Heard(300, "switch_port", "02:00:00:00:00:0c", name="leaf-1", port="Eth1/7"),
    ])  # fmt: skip
    memory = Memory(tmp_path / "deep" / "memory.json")
    memory.save({"learned": learned.to_json()})
    again = Learned.from_json(memory.load()["learned"])
    assert again.cards == learned.cards or again.to_json() == learned.to_json()
    assert again.name_of(Domain((), 7), "10.0.0.5", "", 150) == "web"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 99}', '{"version": 1, "learned": 3', "\xff"])
def test_a_damaged_memory_is_said_and_left(text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line names the file; the sensor goes on and learns anew."""
    path = tmp_path / "memory.json"
    path.write_text(text, encoding="latin-1")
    with caplog.at_level(logging.WARNING):
        assert Memory(path).load() == {}
    assert [str(path) in record.getMessage() for record in caplog.records] == [True]


def test_no_memory(tmp_path: Path) -> None:
    """Without a file nothing is kept; one that is not there yet is no fault."""
    Memory(None).save({})
    assert Memory(None).load() == Memory(tmp_path / "new.json").load() == {}


def test_a_memory_that_cannot_be_written(tmp_path: Path) -> None:
    """One line with the file and the option that changes it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file/memory.json: cannot keep what was learned: .*--memory"):
        Memory(tmp_path / "file" / "memory.json").save({})


def test_a_damaged_part_is_refused() -> None:
    """What is no memory of a card raises, and does not come out as half of one."""
    for kept in (
        {},
        {"cards": [["a"]], "owners": []},
        {"cards": 3, "owners": []},
        json.loads('{"cards": [], "owners": [[1]]}'),
    ):
        with pytest.raises((ValueError, TypeError, KeyError, IndexError)):
            Learned.from_json(kept)


@pytest.mark.parametrize("is_full_at_the_end", [False, True])
def test_the_last_time_that_it_is_kept_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_full_at_the_end: bool
) -> None:
    """A disk that was full meanwhile is no failure; one that is so at the end is."""
    path = tmp_path / "memory.json"
    with Pipeline(build("read", {"to": ["none"], "memory": str(path)}), "eth1") as pipeline:
        with monkeypatch.context() as full:
            full.setattr(os, "fsync", no_space)
            pipeline._keep_in_mind()
        assert not path.exists()
        if is_full_at_the_end:
            monkeypatch.setattr(os, "fsync", no_space)
    monkeypatch.undo()
    if is_full_at_the_end:
        with pytest.raises(OutputError, match="cannot keep what was learned: No space left on device"):
            pipeline.raise_failure()
    else:
        pipeline.raise_failure()
    assert path.exists() is not is_full_at_the_end


def no_space(descriptor: int) -> None:
    """What a full disk makes of a file that is to be written out."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
