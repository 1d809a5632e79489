"""Which of FFmpeg's demuxers may open a file, and which file endings are theirs."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import av

# Left out are all that open other files or places (playlists, DASH, IMF, VobSub, image sequences, devices, network
# sessions, filter graphs), that draw text as pictures, or that need to be told a size (raw samples).
_CONTAINERS = """
    asf asf_o avi dv f4v flv gxf kux live_flv lxf matroska,webm mov,mp4,m4a,3gp,3g2,mj2 mpeg mpegts mpegtsraw mxf nsv
    nut nuv ogg pva r3d rm swf ty wtv yuv4mpegpipe ivf ivr mlv cine
    4xm anm bethsoftvid bfi bink bmv c93 cdxl dfa dhav dsicin dxa ea ea_cdata film_cpk filmstrip flic frm gdv hnm idcin
    idf iff ifv ipmovie ipu iss iv8 jv lmlm4 lvf mgsts mm mods moflex msnwctcp mtv mv mvi mxg nc nsp paf pdv pmp psxstr
    rl2 roq rpl sdr2 ser sga siff simbiosis_imx smk smush thp tiertexseq tmv txd usm vc1test vidc vividas vivo vmd
    wc3movie wsvqa xmv yop luodat
"""
_STREAMS = """
    apv av1 avs avs2 avs3 cavsvideo dirac dnxhd evc h261 h263 h264 hevc hxvs m4v mjpeg mjpeg_2000 mpegvideo mpjpeg obu
    smjpeg vc1 vvc
"""
_PICTURES = """
    apng gif ico jpegxl_anim bmp_pipe cri_pipe dds_pipe dpx_pipe exr_pipe fits gem_pipe gif_pipe hdr_pipe j2k_pipe
    jpeg_pipe jpegls_pipe jpegxl_pipe jpegxs_pipe pam_pipe pbm_pipe pcx_pipe pfm_pipe pgm_pipe pgmyuv_pipe pgx_pipe
    phm_pipe photocd_pipe pictor_pipe png_pipe ppm_pipe psd_pipe qdraw_pipe qoi_pipe sgi_pipe sunrast_pipe tiff_pipe
    vbn_pipe webp_pipe xbm_pipe xpm_pipe xwd_pipe alias_pix brender_pix
"""
# Opened so that it can be said that there is only sound in them.
_SOUND = "aac ac3 aiff amr ape au caf eac3 flac mp3 mpc tta w64 wav wv"

_JPEG = (".jpg", ".jpeg", ".jpe", ".jfif")
_NETPBM = (".ppm", ".pgm", ".pnm", ".pbm", ".pam")
_OTHERS = (".png", ".webp", ".tif", ".tiff", ".bmp", ".dib", ".tga", ".dpx", ".exr", ".jp2", ".j2k", ".jxl", ".qoi")
PICTURE_SUFFIXES = frozenset((*_JPEG, *_NETPBM, *_OTHERS))
RAW_STREAMS = frozenset(_STREAMS.split())
"""Demuxers of bare coded pictures without a container, which carry no times: a rate is all that they may know."""

WHITELIST = ",".join(" ".join((_CONTAINERS, _STREAMS, _PICTURES, _SOUND)).split())
"""FFmpeg's option `format_whitelist`: the demuxers that a file may be opened with."""

_PLAYLISTS = (
    (b"ffconcat", "a list of files for FFmpeg's concat"),
    (b"#EXTM3U", "an M3U8 playlist"),
    (b"[playlist]", "a PLS playlist"),
    (b"<MPD", "a DASH manifest"),
    (b"<SmoothStreamingMedia", "a Smooth Streaming manifest"),
    (b"<asx", "an ASX playlist"),
    (b"<smil", "a SMIL playlist"),
    (b"<playlist", "an XSPF playlist"),
    (b"<CompositionPlaylist", "an IMF playlist"),
    (b"<AssetMap", "an IMF asset map"),
    (b"RTSPtext", "a link to a stream"),
    (b"[Reference]", "a link to a stream"),
    (b"v=0", "a description of a network session (SDP)"),
)


def playlist_kind(head: bytes) -> str | None:
    """Say what a file is that only points to others, from its first bytes; None for all else."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    for mark, kind in _PLAYLISTS:
        mark = mark.lower()
        if text.startswith(mark) or (mark.startswith(b"<") and text.startswith(b"<?xml") and mark in text):
            return kind
    return None


def is_picture(path: Path) -> bool:
    """Return whether the name ends like a picture's."""
    return path.suffix.lower() in PICTURE_SUFFIXES


@cache
def clip_endings() -> frozenset[str]:
    """Endings, `.mp4` for one, that FFmpeg gives to the clips which it reads or writes; lower case."""
    names = {name for group in f"{_CONTAINERS} {_STREAMS} apng gif".split() for name in group.split(",")}
    endings: set[str] = set()
    for name in names & av.formats_available:
        try:
            endings |= av.ContainerFormat(name, "r").extensions
        except ValueError:
            continue
    for name in av.formats_available:
        try:
            muxer = av.ContainerFormat(name, "w")
        except ValueError:
            continue
        # One muxer of a family has the family's endings: `mpegts` the .mts and .m2ts that its demuxer does not list.
        if name in names | _MUXERS:
            endings |= muxer.extensions
    return frozenset(f".{ending.lower()}" for ending in endings) - set(_OF_OTHERS.split())


_MUXERS = {"mov", "ipod", "psp", "3g2", "ogv", "vob", "dvd", "svcd", "mpeg1video", "mpeg2video", "mxf_d10", "matroska"}
# Endings that sound, pictures, scripts and data have more often than clips.
_OF_OTHERS = ".m4a .m4b .isma .ism .mka .mks .ra .wma .son .avif .heic .heif .j2k .mpo .avs .dat .v .xl .idf"
