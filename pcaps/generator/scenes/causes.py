"""The causes of odd TCP segments: for each the smallest story that shows it, told segment by segment.

The tap stands in the middle: 5 ms to the server and back, 5 ms to the client and back. Each story begins with a
handshake; sequence numbers count from the SYN.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from ..clock import EPOCH, MILLISECOND
from ..files import Frame, pcap
from ..headers import ACK, FIN, SYN, TCP, ip, tcp
from ..links import CTAG, frame_of, pad
from ..registry import capture
from .small import CLIENT, SERVER

PORT, SERVICE = 40001, 80
ISNS = {CLIENT: 1_000_000, SERVER: 2_000_000}
SEGMENT = 100
MSS = b"\x02\x04\x05\xb4"
TENTH = MILLISECOND // 10


@dataclass
class Story:
    """A connection as the tap sees it. `ms` is the time since the handshake began."""

    frames: list[Frame] = field(default_factory=list)
    idents: dict[str, int] = field(default_factory=lambda: {CLIENT: 100, SERVER: 500})

    def __post_init__(self) -> None:
        self.client(0, 0, flags=SYN, options=MSS)
        self.server(5, 0, 1, flags=SYN | ACK, options=MSS)
        self.client(10, 1, 1)

    def client(self, ms: float, seq: int, ack: int = 0, octets: int = 0, **more: object) -> Story:
        """The client sends."""
        return self._send(CLIENT, SERVER, ms, seq, ack, octets, **more)

    def server(self, ms: float, seq: int, ack: int, octets: int = 0, **more: object) -> Story:
        """The server sends."""
        return self._send(SERVER, CLIENT, ms, seq, ack, octets, **more)

    def data(self, ms: float, number: int, **more: object) -> Story:
        """The client's segment of that number, the first being 0."""
        return self.client(ms, 1 + number * SEGMENT, 1, SEGMENT, **more)

    def ack(self, ms: float, number: int, *blocks: tuple[int, int], window: int = 65000) -> Story:
        """The server has everything before the segment of that number, and the blocks of segments."""
        edges = [ISNS[CLIENT] + 1 + edge * SEGMENT for block in blocks for edge in block]
        option = struct.pack(f">BBBB{len(edges)}I", 1, 1, 5, 2 + 4 * len(edges), *edges) if edges else b""
        return self.server(ms, 1, 1 + number * SEGMENT, window=window, options=option)

    def lost_before_the_tap(self, side: str) -> Story:
        """A packet that its sender numbered and that the tap does not see."""
        self.idents[side] += 1
        return self

    def capture(self) -> bytes:
        """The file."""
        return pcap(sorted(self.frames, key=lambda frame: frame[0]))

    def _send(
        self, source: str, target: str, ms: float, seq: int, ack: int, octets: int, *, flags: int = ACK,
        window: int = 65000, options: bytes = b"", vlan: int | None = None, copy_ms: float | None = None,
        ident: int | None = None,
    ) -> Story:  # fmt: skip
        """`copy_ms` later the mirror shows the packet once more, behind a router and in another VLAN."""
        self.idents[source] += ident is None
        ports = (PORT, SERVICE) if source == CLIENT else (SERVICE, PORT)
        segment = tcp(
            source, ports[0], target, ports[1], seq=ISNS[source] + seq, ack=ISNS[target] + ack if flags & ACK else 0,
            flags=flags, window=window, payload=b"x" * octets, options=options,
        )  # fmt: skip
        number = self.idents[source] if ident is None else ident
        for late, hops, tag in ((0.0, 64, vlan), (copy_ms, 63, 200)):
            if late is not None:
                packet = ip(source, target, TCP, segment, ident=number, ttl=hops)
                tags = [(CTAG, tag)] if tag else []
                self.frames.append((EPOCH + int((ms + late) * 10) * TENTH, pad(frame_of(packet, tags))))
        return self


@capture("cause-mirror-duplicate.pcap")
def mirror_duplicate() -> bytes:
    """Mirror duplicate: a segment seen twice, the second time behind a router, 0.4 ms later."""
    return Story().data(20, 0, copy_ms=0.4).ack(25, 1).capture()


@capture("cause-retransmission.pcap")
def retransmission() -> bytes:
    """Retransmission: a segment lost behind the tap, sent again when three duplicate ACKs have asked for it."""
    story = Story().data(20, 0).data(20.1, 1).data(20.2, 2).data(20.3, 3)
    story.ack(25.1, 0, (1, 2)).ack(25.2, 0, (1, 3)).ack(25.3, 0, (1, 4))
    return story.data(30.3, 0).ack(35.3, 4).capture()


@capture("cause-spurious-acked.pcap")
def spurious_acked() -> bytes:
    """Spurious retransmission: the ACK was lost behind the tap, and what it ACKed is sent again."""
    return Story().data(20, 0).ack(25, 1).data(230, 0).ack(235, 1).capture()


@capture("cause-spurious-dsack.pcap")
def spurious_dsack() -> bytes:
    """Spurious retransmission: the ACK never reached the tap; after the resend a DSACK says that both copies came."""
    return Story().data(20, 0).lost_before_the_tap(SERVER).data(230, 0).ack(235, 1, (0, 1)).capture()


@capture("cause-upstream-loss.pcap")
def upstream_loss() -> bytes:
    """Upstream loss: a segment lost before the tap, seen only when it fills the hole a round later."""
    story = Story().lost_before_the_tap(CLIENT).data(20.1, 1).data(20.2, 2).data(20.3, 3)
    story.ack(25.1, 0, (1, 2)).ack(25.2, 0, (1, 3)).ack(25.3, 0, (1, 4))
    return story.data(30.3, 0).ack(35.3, 4).capture()


@capture("cause-reordering.pcap")
def reordering() -> bytes:
    """Reordering: a segment overtaken on its way to the tap fills the hole at once."""
    story = Story().data(20.4, 0, ident=104)
    story.idents[CLIENT] = 104
    return story.data(20.1, 1).data(20.2, 2).ack(25.1, 0, (1, 2)).ack(25.4, 3).capture()


@capture("cause-mirror-loss.pcap")
def mirror_loss() -> bytes:
    """Mirror loss: a segment that the receiver ACKs although the tap has never seen it."""
    return Story().data(20, 0).lost_before_the_tap(CLIENT).data(20.2, 2).ack(25.2, 3).capture()


@capture("cause-keep-alive.pcap")
def keep_alive() -> bytes:
    """Keep-alives: probes of an idle connection, with and without a byte, and their ACKs."""
    story = Story().data(20, 0).ack(25, 1)
    for seconds, octets in ((30, 0), (60, 1)):
        story.client(seconds * 1000, SEGMENT, 1, octets).ack(seconds * 1000 + 5, 1)
    return story.capture()


@capture("cause-window-probe.pcap")
def window_probe() -> bytes:
    """Window probes: the receiver's window is closed, the sender asks for it twice, until it opens."""
    story = Story().data(20, 0).ack(25, 1, window=0)
    story.client(230, SEGMENT, 1).ack(235, 1, window=0)
    return story.client(640, SEGMENT, 1).ack(645, 1).data(655, 1).ack(660, 2).capture()


@capture("cause-out-of-window.pcap")
def out_of_window() -> bytes:
    """Out of window: a forged segment far beyond what the receiver allows changes nothing."""
    story = Story().data(20, 0).ack(25, 1)
    return story.client(26, 50_000_000, 1, SEGMENT, ident=7777).data(30, 1).ack(35, 2).capture()


@capture("cause-unknown.pcap")
def unknown() -> bytes:
    """Unknown: joined in the middle, a segment from before the beginning can be anything."""
    story = Story().data(20, 0).data(20.1, 1).ack(25.1, 2).data(26, 2).data(27, 0).ack(32, 3)
    story.frames = story.frames[4:]
    return story.capture()


@capture("cause-resent-syn-and-fin.pcap")
def resent_syn_and_fin() -> bytes:
    """SYN and FIN are sent again as well: here both were lost behind the tap."""
    story = Story()
    story.frames = story.frames[:1]
    story.client(1000, 0, flags=SYN, options=MSS).server(1005, 0, 1, flags=SYN | ACK, options=MSS).client(1010, 1, 1)
    story.client(1020, 1, 1, flags=FIN | ACK).client(1230, 1, 1, flags=FIN | ACK)
    return story.server(1235, 1, 2, flags=FIN | ACK).client(1240, 2, 2).capture()
