"""Clips and pictures as streams of frames, in and out."""

from .info import ColorRange, ColorTags, Frame, Matrix, Orientation, SideStream, SourceInfo
from .options import SinkOptions
from .reader import FrameSource, open_source
from .sink import FrameSink
from .writer import open_sink

__all__ = [
    "ColorRange",
    "ColorTags",
    "Frame",
    "FrameSink",
    "FrameSource",
    "Matrix",
    "Orientation",
    "SideStream",
    "SinkOptions",
    "SourceInfo",
    "open_sink",
    "open_source",
]
