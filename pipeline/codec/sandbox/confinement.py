"""`confine`: all of it, in the only order in which it works, and word of what is in force.

Nothing here fails where a kernel lacks something: an image is decoded with what protection there is, and `fcn doctor`
says which that is.
"""

from dataclasses import dataclass

from pipeline.codec.sandbox import landlock, limits, privileges, seccomp


@dataclass(frozen=True, slots=True)
class Confinement:
    """What holds a process. Its hard limits always do.

    privileges: no new ones, no capabilities, not dumpable. landlock: the version of the kernel's, 0 for none.
    seccomp: whether only the listed system calls pass.
    """

    privileges: bool
    landlock: int
    seccomp: bool

    @property
    def missing(self) -> tuple[str, ...]:
        """What this kernel or container does not give, by name."""
        have = {"no_new_privs": self.privileges, "Landlock": self.landlock, "seccomp": self.seccomp}
        return tuple(name for name, there in have.items() if not there)


def confine(memory_bytes: int, file_bytes: int, *, threads: bool = False) -> Confinement:
    """Give up all that decoding does not take. There is no way back; what is to be loaded is loaded before.

    The process keeps the descriptors that it has. memory_bytes: what it may map beyond what it has mapped. file_bytes:
    the largest that a file may become in which it writes. threads: whether it may start threads; a process it may not
    start in any case. Only a seccomp filter tells the one from the other, so that without one it may start neither.
    """
    # Each step takes away what the earlier ones need: a look into /proc, a descriptor, the calls that confine.
    address_space = limits.mapped() + memory_bytes
    held = privileges.drop()
    version = landlock.restrict()
    limits.limit(address_space, file_bytes)
    if not threads:
        limits.start_nothing()
    filtered = seccomp.install(threads=threads)
    if not filtered:
        limits.start_nothing()
    return Confinement(held, version, filtered)
