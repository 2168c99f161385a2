"""The XML of an OpenVINO graph, read as untrusted text.

The one thing to know: only elements, attributes and short text come through. A document type, and with it every entity,
is refused before it is read, as are processing instructions and comments: no reader agrees with another about these.
"""

from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

LARGEST_BYTES = 8 << 20
"""A graph of our deepest network has half a megabyte."""
LARGEST_ELEMENTS = 100_000
DEEPEST = 8


class GraphXmlError(ValueError):
    """Text that is no XML, or more than this reader takes. Says so in the words of a message after the file's name."""


def parse(data: bytes) -> Element:
    """The root of a document. Raises GraphXmlError."""
    if len(data) > LARGEST_BYTES:
        raise GraphXmlError(f"has {len(data)} bytes, over {LARGEST_BYTES}")
    reader = _Reader()
    parser = expat.ParserCreate("UTF-8")  # whatever the first line says
    parser.buffer_text = True
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    parser.CharacterDataHandler = reader.text
    parser.StartDoctypeDeclHandler = lambda *_: _refuse("a document type")
    parser.ProcessingInstructionHandler = lambda *_: _refuse("a processing instruction")
    parser.CommentHandler = lambda *_: _refuse("a comment")
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise GraphXmlError(f"is not XML ({error})") from error
    return reader.builder.close()


def _refuse(what: str) -> None:
    raise GraphXmlError(f"has {what}")


class _Reader:
    """Makes elements of a parser's events, and counts them."""

    def __init__(self) -> None:
        self.builder = TreeBuilder()
        self._depth = 0
        self._elements = 0

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        self._elements += 1
        if self._depth > DEEPEST:
            _refuse(f"elements nested deeper than {DEEPEST}")
        if self._elements > LARGEST_ELEMENTS:
            _refuse(f"more than {LARGEST_ELEMENTS} elements")
        self.builder.start(tag, attributes)

    def end(self, tag: str) -> None:
        self._depth -= 1
        self.builder.end(tag)

    def text(self, text: str) -> None:
        self.builder.data(text)
