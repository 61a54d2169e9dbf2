"""Classic BPF (linux/filter.h), written with labels: a program for the kernel that looks at a packet.

All loads are relative to the packet's network header, wherever the kernel has its data begin, and most also to X.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from dataclasses import dataclass

Instruction = tuple[int, int, int, int]
"""Code, jumps if true and if false, and operand: ``struct sock_filter``."""

_NET = -0x100000  # SKF_NET_OFF
_AD_PROTOCOL = -0x1000  # SKF_AD_OFF + SKF_AD_PROTOCOL
_JA = 0x05


@dataclass(frozen=True)
class Jump:
    """To a label further on; with ``code``, only where the comparison with ``operand`` holds."""

    label: str
    code: int | None = None
    operand: int = 0


Step = Instruction | Jump | str
"""An instruction, a jump, or a label."""


def _plain(code: int, operand: int = 0) -> Instruction:
    return code, 0, 0, operand & 0xFFFFFFFF


PROTOCOL = _plain(0x20, _AD_PROTOCOL)
"""A becomes the frame's EtherType."""

TAX, TXA, ADD_X, XOR_X, RETURN_A = _plain(0x07), _plain(0x87), _plain(0x0C), _plain(0xAC), _plain(0x16)


def word(offset: int) -> Instruction:
    """A becomes the four octets at X + offset."""
    return _plain(0x40, _NET + offset)


def half(offset: int) -> Instruction:
    """A becomes the two octets there."""
    return _plain(0x48, _NET + offset)


def octet(offset: int) -> Instruction:
    """A becomes the octet there."""
    return _plain(0x50, _NET + offset)


def x_is(value: int) -> Instruction:
    """X becomes a number."""
    return _plain(0x01, value)


def keep(place: int) -> Instruction:
    """A is remembered in one of sixteen places."""
    return _plain(0x02, place)


def keep_x(place: int) -> Instruction:
    """X is remembered."""
    return _plain(0x03, place)


def recall(place: int) -> Instruction:
    """A becomes what was remembered."""
    return _plain(0x60, place)


def recall_x(place: int) -> Instruction:
    """X becomes what was remembered."""
    return _plain(0x61, place)


def add(value: int) -> Instruction:
    """To A."""
    return _plain(0x04, value)


def multiply(value: int) -> Instruction:
    """A, by it."""
    return _plain(0x24, value)


def both(value: int) -> Instruction:
    """A keeps the bits that are in both."""
    return _plain(0x54, value)


def left(bits: int) -> Instruction:
    """A is shifted."""
    return _plain(0x64, bits)


def right(bits: int) -> Instruction:
    """A is shifted."""
    return _plain(0x74, bits)


def give(value: int) -> Instruction:
    """The program's answer is a number."""
    return _plain(0x06, value)


def if_is(value: int, label: str) -> Jump:
    """Where A is that number, go on at the label."""
    return Jump(label, 0x15, value)


def if_any(bits: int, label: str) -> Jump:
    """Where A has any of these bits, go on at the label."""
    return Jump(label, 0x45, bits)


def assemble(steps: Sequence[Step]) -> list[Instruction]:
    """The program. A conditional jump is two instructions, as only an unconditional one reaches further than 255."""
    labels: dict[str, int] = {}
    at = 0
    for step in steps:
        if isinstance(step, str):
            labels[step] = at
        else:
            at += 2 if isinstance(step, Jump) and step.code is not None else 1
    code: list[Instruction] = []
    for step in steps:
        if isinstance(step, Jump):
            if step.code is not None:
                code.append((step.code, 0, 1, step.operand))
            code.append((_JA, 0, 0, labels[step.label] - len(code) - 1))
        elif not isinstance(step, str):
            code.append(step)
    return code


class Program:
    """``struct sock_fprog``: how many instructions, and where they are, which is here as long as this lives."""

    def __init__(self, code: Sequence[Instruction]) -> None:
        self._code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *one) for one in code))
        self.octets = struct.pack("HP", len(code), ctypes.addressof(self._code))
