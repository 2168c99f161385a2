"""What a file is that is no image of ours, where its beginning shows it: a video, a web page, a pointer to a file.

The one thing to know: this only puts a name into a message. A name that is not certain is not given.
"""

import re

_BEGINNINGS = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the image itself; run `git lfs pull`"),
    (b"\0\5\x16\7", "an AppleDouble file (what macOS keeps beside a file, as ._name)"),
    (b"\0\5\x16\0", "an AppleSingle file of macOS"),
    (b"\x1a\x45\xdf\xa3", "a video (Matroska or WebM)"),
    (b"\0\0\1\xba", "a video (MPEG)"),
    (b"\0\0\1\xb3", "a video (MPEG)"),
    (b"FLV\1", "a video (Flash)"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a video (Windows Media)"),
    (b"OggS", "a video or sound (Ogg)"),
    (b"ID3", "a sound (MP3)"),
    (b"FUJIFILMCCD-RAW", "a camera raw file (RAF)"),
    (b"IIRO", "a camera raw file (ORF)"),
    (b"IIRS", "a camera raw file (ORF)"),
    (b"MMOR", "a camera raw file (ORF)"),
    (b"IIU\0", "a camera raw file (RW2)"),
    (b"FOVb", "a camera raw file (X3F)"),
    (b"\0MRM", "a camera raw file (MRW)"),
    (b"PK\3\4", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"PAR1", "a Parquet file"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "an array of NumPy"),
    (b"SQLite format 3", "an SQLite database"),
    (b"gimp xcf", "a picture of GIMP (XCF)"),
    (b"bplist00", "a property list of macOS"),
    (b"\xd0\xcf\x11\xe0", "a Windows document or thumbnail store (Thumbs.db)"),
)
_VIDEO_BRANDS = re.compile(
    rb"isom|iso[2-9]|mp4[12]|avc1|qt  |M4V|M4A|3gp|3g2|dash|mmp4|XAVC|MSNV|f4v|NDS", re.IGNORECASE
)
_LOOKED_AT = 2048


def other_kind(data: bytes) -> str | None:
    """What the file is, with its article, as "a video (MP4)"; None where that is not plain to see."""
    for beginning, kind in _BEGINNINGS:
        if data.startswith(beginning):
            return kind
    if data[4:8] in (b"ftyp", b"moov", b"mdat"):
        brand = data[8:12]
        if brand == b"crx ":
            return "a camera raw file (CR3)"
        return "a video (MP4 or QuickTime)" if data[4:8] != b"ftyp" or _VIDEO_BRANDS.match(brand) else None
    if data[:4] == b"RIFF" and data[8:12] in (b"AVI ", b"WAVE"):
        return "a video (AVI)" if data[8:12] == b"AVI " else "a sound (WAV)"
    if data[128:132] == b"DICM":
        return "a DICOM file"
    if len(data) > 376 and data[0] == data[188] == data[376] == 0x47:
        return "a video (MPEG transport stream)"
    if not data.strip(b"\0"):
        return "nothing but zero bytes; it was not written to its end, or is a hole in a file system"
    return _text(data)


def _text(data: bytes) -> str | None:
    beginning = data[:_LOOKED_AT].removeprefix(b"\xef\xbb\xbf").lstrip()
    lower = beginning.lower()
    if beginning.startswith(b"<"):
        if b"<svg" in lower:
            return "an SVG drawing"
        if lower.startswith(b"<!doctype html") or b"<html" in lower:
            return "an HTML page, such as a server sends in place of a file that it does not give"
        if b"<error>" in lower or b"<code>" in lower:
            return "an XML error, such as a storage service sends in place of an object that it does not give"
        return "an XML file" if lower.startswith(b"<?xml") else "a text with markup"
    try:
        text = beginning.decode()
    except UnicodeDecodeError as error:
        if error.start < len(beginning) - 4:
            return None
        text = beginning[: error.start].decode()
    if not all(char.isprintable() or char in "\t\r\n\f" for char in text):
        return None
    return "a JSON text" if text.startswith(("{", "[")) else "a text" if len(text) > 3 else None
