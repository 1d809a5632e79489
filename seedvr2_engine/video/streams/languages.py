"""Languages of streams: Matroska takes any, MP4 ISO 639-2, QuickTime a list of its own in a spelling of its own."""

from __future__ import annotations

_QUICKTIME_CODES = """
eng fra ger ita dut sve spa dan por nor heb jpn ara fin gre ice mlt tur chi urd hin tha kor lit pol hun est lav rus per
iri alb ron ces slk slv yid mac bul ukr bel uzb kaz aze arm geo mol kir tgk tuk mon pus kur kas snd tib nep san mar ben
asm guj ori mal kan tam tel bur khm lao vie ind tgl may amh tir orm som swa run mlg epo wel baq cat lat que grn aym tat
uig dzo jav
"""
_OTHER_SPELLINGS = """
fre=fra deu=ger nld=dut swe=sve ell=gre isl=ice zho=chi fas=per sqi=alb rum=ron cze=ces slo=slk mkd=mac hye=arm kat=geo
bod=tib mya=bur msa=may cym=wel eus=baq
"""
_QUICKTIME = frozenset(_QUICKTIME_CODES.split())
"""Those that FFmpeg writes into MOV and reads back."""
_QUICKTIME_SPELLINGS = dict(pair.split("=") for pair in _OTHER_SPELLINGS.split())
"""ISO 639-2 has two codes for some languages, and QuickTime one of its own for Swedish."""
_ISO_SPELLINGS = {"sve": "swe", "iri": "per"}


def language_for(language: str, muxer: str) -> str | None:
    """The language as files of this muxer spell it; None if they cannot."""
    if muxer == "mov":
        spelled = _QUICKTIME_SPELLINGS.get(language, language)
        return spelled if spelled in _QUICKTIME else None
    language = _ISO_SPELLINGS.get(language, language)
    if muxer == "mp4" and not (len(language) == 3 and language.isascii() and language.islower()):
        return None
    return language
