"""What is said of an HDR input before the work."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ...color.hdr import HdrChoice
    from ...video import SourceInfo


def hdr_sentence(info: SourceInfo, choice: HdrChoice) -> str | None:
    """What kind of HDR the input is and what is done about it, in one line; None for SDR."""
    from ...video.color_tags import HLG_TRANSFER, PQ_TRANSFER

    if info.color.transfer == HLG_TRANSFER:
        name, way = "HLG", "passes through the models as it is, which was made to be seen as SDR"
    elif info.color.transfer != PQ_TRANSFER:
        return None
    elif choice == "auto":
        name, way = "PQ", "passes through the models on an SDR-like scale and back (--hdr off: as it is)"
    else:
        name, way = "PQ", "its signal is taken for SDR by the models, as asked for (--hdr off)"
    metadata = info.hdr.describe()
    return f"{name}{f' ({metadata})' if metadata else ''}; {way}"
