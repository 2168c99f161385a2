"""What formats have in common that write a file for each image and no document."""

from collections.abc import Iterable, Iterator
from typing import ClassVar

from pipeline.exports.formats.base import ExportContext, Option


class OneFile:
    """See `base.ExportFormat`; `write` is left to the format."""

    suffix: ClassVar[str] = ".png"
    folder: ClassVar[str | None] = ""
    needs_pixels: ClassVar[bool] = False
    needs_labels: ClassVar[bool] = False
    takes: ClassVar[frozenset[Option]] = frozenset()
    document: ClassVar[str | None] = None

    def __init__(self, context: ExportContext) -> None:
        self.context = context

    def lines(self, records: Iterable[str]) -> Iterator[str]:
        return iter(())
