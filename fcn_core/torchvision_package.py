"""torchvision, imported without PyTorch's compiler.

One of its modules (`torchvision.ops.roi_align`) imports the compiler for a single function, which nothing here calls.
That takes 1.2 seconds in every process that runs one of its networks: in the command, and in each actor. Its
transforms, which training uses, import the compiler by themselves, so who wants these has no use for this.
"""

import importlib
import sys
import threading
from types import ModuleType
from typing import Any

_COMPILER = "torch._dynamo"
_ASKED_FOR = f"{_COMPILER}.utils"

_lock = threading.Lock()


def load_torchvision() -> None:
    """Import torchvision, unless that is done. To be called before anything is imported from it."""
    with _lock:
        if "torchvision" in sys.modules or _COMPILER in sys.modules:
            return
        stand_in = _Later(_ASKED_FOR)
        sys.modules[_ASKED_FOR] = stand_in
        try:
            importlib.import_module("torchvision")
        finally:
            stand_in.leave()


class _Later(ModuleType):
    """In the place of a module: gives way to it as soon as anybody wants more than the one function's name."""

    @staticmethod
    def is_compile_supported(device_type: Any) -> Any:
        """The function of that name, which is imported when it is called."""
        return importlib.import_module(_ASKED_FOR).is_compile_supported(device_type)

    def leave(self) -> None:
        if sys.modules.get(_ASKED_FOR) is self:
            del sys.modules[_ASKED_FOR]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # what Python itself asks every module
            raise AttributeError(name)
        self.leave()
        return getattr(importlib.import_module(_ASKED_FOR), name)
