"""The process that decodes or encodes one image at a time for `pipeline.codec.processes`; not for use by hand.

Run as `python -m pipeline.codec.worker_main ARENA_FD PARENT_PID MEMORY_BYTES MAX_PIXELS HEIF`. HEIF is 1 for a worker
that reads HEIC, too, whose decoder starts threads, and otherwise 0. Fixed headers and small JSON come and go through
stdin and stdout; images lie in the arena, an anonymous file shared with the parent. Nothing is pickled, and the process
is confined before the first image comes (see `pipeline.codec.sandbox`): should one take it over, it can answer with a
wrong picture and, where the kernel has what confines it, do nothing else.
"""

import contextlib
import ctypes
import functools
import gc
import json
import os
import signal
import struct
import sys
from dataclasses import asdict
from typing import BinaryIO

import numpy as np
from PIL import AvifImagePlugin, Image

from fcn_core.decoding import mask_png
from fcn_core.decoding.libraries import load_all
from pipeline.codec.images import decode
from pipeline.codec.sandbox.confinement import confine
from pipeline.codec.taken_at import taken_at
from pipeline.errors import ImageError

OUT_OF_MEMORY = (
    "Decoding the image takes more memory than --image-memory allows, though --max-pixels allows its size; raise the "
    "one or lower the other."
)

DECODE, ENCODE = 1, 2
OK, FAILED, WORN_OUT = 0, 1, 2
# operation; length of the JSON that follows (a MaskStyle); length of the arena's content; mask height and width; the
# most pixels a side to decode to, 0 for all.
REQUEST = struct.Struct("<BIQIII")
# status; length of the JSON that follows (reason and message, or when the image was taken); length of the arena's
# content; height, width, orientation; height and width of the picture where the content is a smaller version of it,
# else 0.
REPLY = struct.Struct("<BIQIIBII")
READY = struct.Struct("<15sI")
"""The first word of a worker: VERSION, and the length of the JSON that follows, in which it says what confines it."""

VERSION = b"codec-worker-3\n"

_PR_SET_PDEATHSIG = 1
# An arena that has grown beyond this is given back to the system rather than kept for the next image.
ARENA_KEEP_BYTES = 64 << 20
_STDERR_KEEP_BYTES = 64 << 10
# The largest file that a worker may make: pixels, or a mask that turned out incompressible.
_BYTES_PER_PIXEL, _FILE_SLACK = 3, 64 << 20
# What an image leaves free is kept for the next one, up to so much. glibc would give memory of this size back to the
# system after each image and have it zeroed again, page by page: as much work as the decoding itself.
_FREE_KEEP_BYTES = 64 << 20
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # of mallopt(3)
_LARGEST_MMAP_THRESHOLD = 32 << 20


def main() -> None:
    arena, parent, memory, max_pixels, heif = (int(argument) for argument in sys.argv[1:])
    # A library that prints must not garble the answers: stdout is ours alone, everybody else's goes to
    # stderr.
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    _follow_parent(parent)
    load_all(heif=bool(heif))
    gc.freeze()
    confinement = confine(memory, _BYTES_PER_PIXEL * max_pixels + _FILE_SLACK, threads=bool(heif))
    told = json.dumps(asdict(confinement)).encode()
    replies.write(READY.pack(VERSION, len(told)) + told)
    _serve(sys.stdin.buffer, replies, arena, max_pixels)


def _follow_parent(parent: int) -> None:
    """Die with the parent, leave Ctrl-C to it, be the first whom the system kills for memory."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the parent is gone already")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("800")
    if hasattr(libc, "mallopt"):  # of glibc only
        libc.mallopt(_M_TRIM_THRESHOLD, _FREE_KEEP_BYTES)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        libc.mallopt(_M_ARENA_MAX, 1)  # a thread's own heap would map 128 MiB of the limit
    # Our own limit is checked from the header; Pillow's fixed one would warn or refuse on its own terms.
    Image.MAX_IMAGE_PIXELS = None
    # One image has one core here, and a confined process starts no threads.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def _serve(requests: BinaryIO, replies: BinaryIO, arena: int, max_pixels: int) -> None:
    """Answer requests until the parent closes the pipe."""
    while header := requests.read(REQUEST.size):
        operation, text_length, length, height, width, max_side = REQUEST.unpack(header)
        text = requests.read(text_length)
        try:
            if operation == DECODE:
                reply = _decode(arena, length, max_pixels, max_side or None)
            else:
                reply = _encode(arena, length, (height, width), text)
        except Exception as error:
            reply = _failure(error)
        replies.write(reply)
        if reply[0] == WORN_OUT:
            return  # a heap that has hit its limit once may fail the next image, too
        # Not fstat(): the C library makes a call of it that takes paths, too, and is refused for that.
        if os.lseek(2, 0, os.SEEK_END) > _STDERR_KEEP_BYTES:
            os.ftruncate(2, 0)


def _decode(arena: int, length: int, max_pixels: int, max_side: int | None) -> bytes:
    data = _read(arena, length)
    decoded = decode(data, max_pixels, max_side)
    taken = taken_at(data)
    text = json.dumps({"taken_at": taken.time.isoformat(), "offset": taken.offset}).encode() if taken else b""
    height, width, _ = decoded.pixels.shape
    _write(arena, decoded.pixels.reshape(-1).data)
    full = decoded.full_size or (0, 0)
    return REPLY.pack(OK, len(text), decoded.pixels.nbytes, height, width, decoded.orientation, *full) + text


def _encode(arena: int, length: int, shape: tuple[int, int], style_json: bytes) -> bytes:
    mask = np.frombuffer(_read(arena, length), np.uint8).reshape(shape)
    png = mask_png.encode(mask, _style(style_json))
    _write(arena, memoryview(png))
    return REPLY.pack(OK, 0, len(png), 0, 0, 0, 0, 0)


@functools.lru_cache(maxsize=4)
def _style(style_json: bytes) -> mask_png.MaskStyle:
    told = json.loads(style_json)
    return mask_png.MaskStyle(**{**told, "palette": bytes.fromhex(told["palette"])})


def _failure(error: Exception) -> bytes:
    if isinstance(error, MemoryError):
        error = ImageError("out_of_memory", "")
    if isinstance(error, ImportError):  # all of an installation is loaded, see `load_all`
        error = ImageError("unsupported_format", f"This variant of the format takes what is not loaded ({error.name}).")
    if isinstance(error, ImageError):
        message = OUT_OF_MEMORY if error.reason == "out_of_memory" else error.message
        told = {"reason": error.reason, "message": message}
    else:
        told = {"error": f"{type(error).__name__}: {error}"[:1000]}
    text = json.dumps(told).encode()
    return REPLY.pack(WORN_OUT if told.get("reason") == "out_of_memory" else FAILED, len(text), 0, 0, 0, 0, 0, 0) + text


def _read(arena: int, length: int) -> bytes:
    parts: list[bytes] = []
    done = 0
    while done < length:
        part = os.pread(arena, length - done, done)
        if not part:
            raise EOFError("the arena is shorter than announced")
        parts.append(part)
        done += len(part)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _write(arena: int, data: memoryview) -> None:
    done = 0
    while done < len(data):
        done += os.pwrite(arena, data[done:], done)


if __name__ == "__main__":
    main()
