"""What schemathesis cannot know: how an update frame and a task file begin (PROTOCOL.md, section 5; server/tests/tiny.toml)."""

import struct
from pathlib import Path

import schemathesis
from hypothesis import strategies as st

TASK = (Path(__file__).parents[2] / "server/tests/tiny.toml").read_bytes()


@st.composite
def frames(draw):
    """Whole frames of nobody's, with one byte changed, cut off, or with something after their end."""
    coordinates = draw(st.lists(st.integers(-128, 127), max_size=16))
    names = draw(st.binary(min_size=96, max_size=96))
    frame = bytearray(b"UNSU" + struct.pack("<HBB", 1, 1, 0) + names + struct.pack("<QI", draw(st.integers(0, 9)), len(coordinates)))
    frame += struct.pack(f"<{len(coordinates)}b", *coordinates)
    kind = draw(st.sampled_from(["whole", "changed", "cut", "longer"]))
    if kind == "changed":
        frame[draw(st.integers(0, len(frame) - 1))] = draw(st.integers(0, 255))
    elif kind == "cut":
        del frame[draw(st.integers(0, len(frame) - 1)) :]
    elif kind == "longer":
        frame += draw(st.binary(min_size=1, max_size=64))
    return bytes(frame)


@st.composite
def task_files(draw):
    """The task of the tests with lines left out, doubled or cut."""
    lines = TASK.splitlines(keepends=True)
    at = draw(st.integers(0, len(lines) - 1))
    kind = draw(st.sampled_from(["whole", "without", "twice", "cut"]))
    if kind == "without":
        del lines[at]
    elif kind == "twice":
        lines.insert(at, lines[at])
    elif kind == "cut":
        lines[at] = lines[at][: draw(st.integers(0, len(lines[at]) - 1))]
    return b"".join(lines)


schemathesis.openapi.media_type("application/vnd.unsaid.update", st.one_of(st.binary(max_size=300), frames()))
schemathesis.openapi.media_type("application/toml", st.one_of(st.binary(max_size=300), task_files()))


@schemathesis.deserializer("application/octet-stream")
def model(_context, response):
    """A model is bytes, of which the description says no more."""
    return response.content.decode("latin-1")
