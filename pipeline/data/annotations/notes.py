"""What there is to say of one image's annotation, bounded: a sentence and how often."""

from collections import Counter

_KINDS = 20


class Notes:
    """Sentences about an image, each once with its count."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, sentence: str) -> None:
        if sentence in self._counts or len(self._counts) < _KINDS:
            self._counts[sentence] += 1
        else:
            self._counts["more of other kinds"] += 1

    def overlap(self, pixels: int) -> None:
        """Pixels of one region that lie under a later one of another class."""
        if pixels:
            self.add(f"regions of different classes overlap in {pixels:,} pixels; the upper one counts")

    def all(self) -> tuple[str, ...]:
        return tuple(text if count == 1 else f"{text} ({count:,} times)" for text, count in self._counts.items())
