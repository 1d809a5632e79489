"""Clips and pictures as streams of frames, in and out."""

from .coded import CodedFrame, Coding
from .color_tags import ColorRange, ColorTags, Matrix
from .hdr_metadata import ContentLight, HdrMetadata, MasteringDisplay
from .info import Frame, Orientation, PictureMetadata, SideStream, SourceInfo
from .reading.reader import open_source
from .reading.source import FrameSource
from .writing.options import SinkOptions
from .writing.sink import FrameSink
from .writing.writer import open_sink

__all__ = [
    "CodedFrame",
    "Coding",
    "ColorRange",
    "ColorTags",
    "ContentLight",
    "Frame",
    "FrameSink",
    "FrameSource",
    "HdrMetadata",
    "MasteringDisplay",
    "Matrix",
    "Orientation",
    "PictureMetadata",
    "SideStream",
    "SinkOptions",
    "SourceInfo",
    "open_sink",
    "open_source",
]
