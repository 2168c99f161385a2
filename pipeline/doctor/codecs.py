"""Whether a process that decodes images starts here and works, and what confines it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipeline.doctor.finding import Finding

if TYPE_CHECKING:
    from pipeline.codec.sandbox.confinement import Confinement

_REMEDIES = {
    "no_new_privs": "allow prctl and capset in the container's seccomp profile",
    "Landlock": "use Linux 5.13 or later with landlock in its lsm= list, or allow its system calls in the container",
    "seccomp": "use Linux 3.17 or later on x86-64 or 64-bit ARM, or allow seccomp in the container",
}
"""What brings each of `Confinement.missing`."""


def check_codecs() -> Iterator[Finding]:
    """An image is sent to such a process, and comes back."""
    import io

    from PIL import Image

    from pipeline.codec.processes import CodecPool

    sink = io.BytesIO()
    Image.new("RGB", (3, 2), (255, 0, 0)).save(sink, "PNG")
    with CodecPool(1) as pool:
        pixels = pool.decode(sink.getvalue()).result(timeout=60).pixels
        held = pool.confinement()
    if pixels.shape != (2, 3, 3) or pixels[0, 0].tolist() != [255, 0, 0]:
        yield Finding("codecs", "wrong", "an image came back as another one", "install Pillow and NumPy again")
    else:
        yield Finding("codecs", "ok", "image decoding processes start and work")
    yield describe(held)


def describe(held: "Confinement") -> Finding:
    """What holds a decoding process on this machine, and what would, were it there."""
    in_force = ["hard limits"]
    in_force += ["no privileges"] if held.privileges else []
    in_force += [f"Landlock (version {held.landlock})"] if held.landlock else []
    in_force += ["a seccomp filter"] if held.seccomp else []
    found = f"image decoding processes are confined by {', '.join(in_force)}"
    if not held.missing:
        return Finding("codecs", "ok", found)
    remedy = "; ".join(_REMEDIES[name] for name in held.missing)
    return Finding("codecs", "note", f"{found}; not by {', '.join(held.missing)}, which is not to be had here", remedy)
