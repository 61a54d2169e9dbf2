"""The worker over a scripted source: windows, revisions, counters and the end, by packet time and by the wall clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from pcaps.generator.files import Frame
from sensor.flowtable import FlowTable
from sensor.snapshot import Counters, Snapshot
from sensor.sources import Drops, Progress
from sensor.worker import DRAIN_SECONDS, LATENESS_NS, Done, Finished, Message, Worker, deadline, minus
from tests.streams import MILLISECOND, SECOND, START, WINDOW, batch, sums, table_of, udp_frame

Step = Sequence[Frame] | Progress | Callable[[], None]
"""What a poll comes to: frames to count, nothing, the end; or something that happens meanwhile."""


@dataclass
class Script:
    """A source that plays steps; when they are over, it ends, or is idle for ever."""

    steps: list[Step]
    then: Progress = Progress.END
    lost: Drops = field(default_factory=Drops)
    _left: Sequence[Frame] = ()

    def open(self, table: FlowTable) -> None:
        """Nothing to claim."""

    def close(self) -> None:
        """Nothing to give back."""

    def drops(self) -> Drops:
        """What the script says."""
        return self.lost

    def poll(self, table: FlowTable) -> Progress:
        """Play one step, or go on with the frames that the table held up."""
        if not self._left:
            step = self.steps.pop(0) if self.steps else self.then
            if isinstance(step, Progress):
                return step
            if callable(step):
                step()
                return Progress.READ
            self._left = step
        self._left = self._left[table.ingest(*batch(self._left), 0, 1) :]
        return Progress.HELD if self._left else Progress.READ


def packets(*at: float, port: int = 40000) -> list[Frame]:
    """Datagrams of one flow, so many seconds after the start."""
    return [
        (START + round(second * SECOND), udp_frame("10.0.0.1", port, "10.0.0.2", 53, ident=i))
        for i, second in enumerate(at)
    ]


def run(
    steps: list[Step], *, clock: Callable[[], int] | None = None, stop: Callable[[], bool] = lambda: False,
    lost: Drops | None = None, then: Progress = Progress.END, is_looked_at: bool = True, **options: object,
) -> list[Message]:  # fmt: skip
    """What a worker hands on."""
    messages: list[Message] = []
    table = table_of(**options)
    script = Script(steps, then, lost or Drops())
    Worker(script, table, messages.append, stop, clock, is_looked_at=is_looked_at).run()
    return messages


def snapshots(messages: list[Message]) -> list[Snapshot]:
    """The windows among them."""
    return [message for message in messages if isinstance(message, Snapshot)]


def seconds(messages: list[Message]) -> list[int]:
    """Where the windows start, in seconds after START."""
    return [(window.start_ns - START) // SECOND for window in snapshots(messages)]


class Clock:
    """A wall clock that a script sets."""

    def __init__(self, at: float = 0) -> None:
        self.now_ns = START + round(at * SECOND)

    def __call__(self) -> int:
        """The time."""
        return self.now_ns

    def pass_(self, span: float) -> Callable[[], None]:
        """A step in which so many seconds pass."""

        def step() -> None:
            self.now_ns += round(span * SECOND)

        return step


# ---- packet time


def test_packets_make_the_windows() -> None:
    """Windows at multiples of their length, those without a packet left out, the last one partial."""
    messages = run([packets(1, 2, 11), packets(35, 36)])
    windows = snapshots(messages)
    assert seconds(messages) == [0, 10, 30]
    assert [window.partial for window in windows] == [False, False, True]
    assert [window.end_ns - window.start_ns for window in windows] == [WINDOW] * 3
    assert [window.counters.received for window in windows] == [2, 1, 2]
    assert [sums(window.records, "packets")[0] for window in windows] == [2, 1, 2]


def test_done_comes_last_and_holds_the_sums() -> None:
    """One Done, after everything else; windows and totals agree."""
    messages = run([packets(1, 11, 21), packets(31)], keep_finished=True)
    assert [type(message) for message in messages].count(Done) == 1
    assert isinstance(messages[-1], Done)
    assert messages[-1].counters.received == sum(window.counters.received for window in snapshots(messages)) == 4
    assert messages[-1].counters.fates["flow"] == 4


def test_no_packets() -> None:
    """An empty source: no window, totals of zero."""
    (done,) = run([])
    assert isinstance(done, Done)
    assert (done.counters.received, set(done.counters.fates.values())) == (0, {0})


def test_finished_flows_are_handed_on_once() -> None:
    """Flows that end on the way and those that end with the input; every packet is in one of them."""
    frames = [frame for port in range(1, 9) for frame in packets(port * 3, port * 3 + 1, port=port)]
    messages = run([frames], keep_finished=True, idle_timeout_ns=2 * SECOND)
    finished = [record for message in messages if isinstance(message, Finished) for record in message.records]
    assert sorted(record["flow_id"] for record in finished) == list(range(1, 9))
    assert sum(int(record["c2s_packets"]) for record in finished) == len(frames)


def test_more_finished_flows_than_are_kept() -> None:
    """The table holds packets up until finished flows are taken; the worker does so and goes on in the same window."""
    flows = 9000
    frames = [
        (START + i * 1000, udp_frame(f"10.1.{i >> 8}.{i & 255}", 1, "10.0.0.2", 53)) for i in range(flows)
    ] + [(START + 5 * SECOND + i, frame) for i, (_, frame) in enumerate(packets(0, 0, 0))]  # fmt: skip
    messages = run([frames], keep_finished=True, idle_timeout_ns=SECOND)
    assert seconds(messages) == [0]
    assert sum(len(message.records) for message in messages if isinstance(message, Finished)) == flows + 1
    assert snapshots(messages)[0].counters.received == len(frames)


def test_without_flow_lines_nothing_is_finished() -> None:
    """Finished flows are only kept for who asked for them."""
    assert not any(isinstance(message, Finished) for message in run([packets(1, 11, 300)]))


def test_stop_ends_a_read() -> None:
    """After the stop nothing is polled; what was counted is handed on as a partial window."""
    asked: list[bool] = []
    messages = run([packets(1), lambda: asked.append(True), packets(2)], stop=lambda: bool(asked))
    (window,) = snapshots(messages)
    assert (window.counters.received, window.partial) == (1, True)
    assert isinstance(messages[-1], Done)


# ---- a clock that steps back


def test_a_window_opened_again_is_another_revision() -> None:
    """Packets older by more than a minute open their own window again: same start, next revision, own counters."""
    messages = run([packets(1, 2), packets(100), packets(3), packets(101), packets(4)])
    found = [(start, window.revision) for start, window in zip(seconds(messages), snapshots(messages), strict=True)]
    assert found == [(0, 0), (100, 0), (0, 1), (100, 1), (0, 2)]
    assert [window.counters.received for window in snapshots(messages)] == [2, 1, 1, 1, 1]


def test_no_two_windows_share_start_and_revision() -> None:
    """However the time jumps about (several overlapping files, say), no window's points overwrite another's."""
    messages = run([packets(1), packets(100), packets(2), packets(200), packets(3), packets(300), packets(101)])
    found = [(window.start_ns, window.revision) for window in snapshots(messages)]
    assert len(set(found)) == len(found)


def test_a_small_step_back_stays_in_the_window() -> None:
    """Queues of a NIC deliver out of order: no window is closed for it."""
    messages = run([packets(11, 9.9, 10.5, 12)])
    assert seconds(messages) == [10]
    (window,) = snapshots(messages)
    assert (window.counters.received, window.counters.notes["time_backwards"]) == (4, 2)


# ---- the wall clock


def test_the_wall_clock_closes_silent_windows() -> None:
    """Nothing arrives: windows follow one another all the same, no earlier than packets may be late."""
    clock = Clock(1)
    tick = clock.pass_(1)
    steps: list[Step] = [packets(1.1)]
    for _ in range(25):
        steps += [tick, Progress.IDLE]
    messages = run(steps, clock=clock)
    assert seconds(messages) == [0, 10, 20]
    assert [window.partial for window in snapshots(messages)] == [False, False, True]
    assert [window.counters.received for window in snapshots(messages)] == [1, 0, 0]


def test_a_late_packet_is_waited_for() -> None:
    """A window stays open for packets that are still on their way from the wire."""
    clock = Clock(9)
    almost = 1 + LATENESS_NS / SECOND - 0.01
    steps: list[Step] = [clock.pass_(almost), Progress.IDLE, packets(9.9), clock.pass_(0.02), Progress.IDLE]
    messages = run(steps, clock=clock)
    assert seconds(messages) == [0, 10]
    assert [window.counters.received for window in snapshots(messages)] == [1, 0]


def test_a_silent_wire_ends_flows() -> None:
    """Flows whose time is over are handed on while nothing arrives."""
    clock = Clock(0)
    steps: list[Step] = [packets(0.1), clock.pass_(5), Progress.IDLE, Progress.IDLE]
    messages = run(steps, clock=clock, keep_finished=True, idle_timeout_ns=2 * SECOND)
    assert [type(message) for message in messages] == [Finished, Snapshot, Done]


def test_a_capture_without_packets_has_its_window() -> None:
    """The time of the first window is the start of the capture, not its first packet."""
    messages = run([], clock=Clock(3))
    (window,) = snapshots(messages)
    assert (window.start_ns, window.partial, window.counters.received, len(window.records)) == (START, True, 0, 0)


def test_a_file_knows_no_wall_clock() -> None:
    """An idle source without a clock closes nothing."""
    messages = run([packets(1), Progress.IDLE, Progress.IDLE, packets(2)])
    assert [window.counters.received for window in snapshots(messages)] == [2]


def test_what_is_on_its_way_at_the_stop_is_drained() -> None:
    """After the stop a live worker goes on for a moment: the kernel's last block still counts."""
    asked: list[bool] = []
    clock = Clock(0)
    steps: list[Step] = [packets(1), lambda: asked.append(True), Progress.IDLE, packets(2), Progress.IDLE, packets(3)]
    messages = run(steps, clock=clock, stop=lambda: bool(asked))
    assert [window.counters.received for window in snapshots(messages)] == [3]


def test_the_drain_ends() -> None:
    """A busy wire does not keep a stopped worker for ever."""
    left = deadline(DRAIN_SECONDS + 5)
    clock = Clock(0)
    messages = run([], clock=clock, stop=lambda: True, then=Progress.IDLE)
    assert isinstance(messages[-1], Done)
    assert not left()


# ---- counters


def test_drops_are_differences_in_windows_and_sums_in_the_end() -> None:
    """What libpcap counts since its start becomes each window's own share."""
    clock = Clock(0)
    script = Script([packets(1)], lost=Drops(5, 0))

    def lose() -> None:
        script.lost = Drops(12, 7)

    script.steps += [packets(11), lose]
    messages: list[Message] = []
    Worker(script, table_of(), messages.append, clock=clock).run()
    counted = [window.counters for window in snapshots(messages)]
    assert [c.dropped_kernel for c in counted] == [5, 7]
    done = messages[-1]
    assert isinstance(done, Done)
    assert (done.counters.dropped_kernel, done.counters.unread) == (12, 7)


def test_minus() -> None:
    """Differences of everything; what is unknown stays unknown, and what became known counts from zero."""
    before = Counters(10, 1000, {"flow": 9, "arp": 1}, {"fragments": 2}, None, 4, None)
    total = Counters(25, 3000, {"flow": 22, "arp": 3}, {"fragments": 2}, 6, None, 3)
    assert minus(total, before) == Counters(15, 2000, {"flow": 13, "arp": 2}, {"fragments": 0}, 6, None, 3)
    assert minus(total, Counters()) == total
    assert minus(total, total) == Counters(0, 0, {"flow": 0, "arp": 0}, {"fragments": 0}, 0, None, 3)


@pytest.mark.parametrize("window_ns", [MILLISECOND, SECOND, 7 * SECOND, 3600 * SECOND])
def test_any_window_holds_every_packet_once(window_ns: int) -> None:
    """The length of windows changes how packets are told apart by time, not how many there are."""
    messages = run([packets(*(i * 0.37 for i in range(200)))], window_ns=window_ns)
    windows = snapshots(messages)
    assert sum(window.counters.received for window in windows) == 200
    assert sum(sums(window.records, "packets")[0] for window in windows) == 200
    assert all(window.start_ns % window_ns == 0 for window in windows)
    assert len({window.start_ns for window in windows}) == len(windows)


def test_windows_that_nobody_looks_at_are_not_handed_on_but_all_is_counted() -> None:
    """The same sums of the run, and the same windows have been closed: only what would be looked at is left out."""
    kept, dropped = (run([packets(0, 1, 4, 5, 11)], is_looked_at=look) for look in (True, False))
    assert len(snapshots(kept)) > 1
    assert dropped == kept[-1:]
