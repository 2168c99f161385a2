"""One listing by several requests at once, in key order.

S3 hands out a listing one page (1,000 keys) a round trip, each from the last key of the page before. But a page may
start after any key, there or not; so a range of keys can be cut anywhere, and its parts listed at once. Where to cut is
guessed from the keys seen last, which costs no request of its own and serves folders and flat names alike. A bad guess
costs a request, never a key: the ranges always hold every key between them.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from pipeline.errors import StorageError
from pipeline.storage.store import ObjectInfo

REQUESTS_AT_ONCE = 16
"""At most; a listing starts with one, and doubles with each page that is taken, so that short ones waste nothing."""

PAGES_AHEAD = 128
"""Pages held in memory at most beyond those that are being fetched."""

_PAGES_A_PART = 2  # what a part should hold
_SAMPLED_KEYS = 64


@dataclass(frozen=True, slots=True)
class Page:
    """One answer: objects in key order, and the key after which to go on; None at the end of the listing."""

    objects: list[ObjectInfo]
    end: str | None


@dataclass(eq=False, slots=True)
class _Range:
    """The keys above `after`, up to and with `until`; None stands for no limit."""

    after: str | None
    until: str | None
    pages: deque[list[ObjectInfo]] = field(default_factory=deque)
    fetching: Future[Page] | None = None
    finished: bool = False
    seen: list[ObjectInfo] | None = None  # the newest page, until the range was cut by it
    tried: int | None = None  # the place in keys where `after` has a character that no key had there before

    @property
    def untouched(self) -> bool:
        return self.fetching is None and not self.finished and self.seen is None and not self.pages


def list_in_parallel(fetch: Callable[[str | None], Page], prefix: str = "") -> Iterator[ObjectInfo]:
    """All objects that `fetch` pages through, in key order.

    `fetch(after)` is called in several threads and answers with the first page above the key `after` (None: from the
    beginning) of the keys that start with `prefix`. Memory is bounded by PAGES_AHEAD pages. Raises what `fetch` raises,
    and StorageError when pages are not in order or do not start where they were asked to.
    """
    first = _checked(fetch(None), None)
    yield from first.objects
    if first.end is not None:
        yield from _Listing(fetch, prefix, first).objects()


class _Listing:
    """The ranges that are still to be handed out, in order. All but the fetching happens in the caller's thread."""

    def __init__(self, fetch: Callable[[str | None], Page], prefix: str, first: Page) -> None:
        self._fetch = fetch
        self._prefix = prefix
        self._ranges = [_Range(first.end, None, seen=first.objects)]
        self._taken = 1
        self._names = Names()
        self._names.learn(first.objects)

    def objects(self) -> Iterator[ObjectInfo]:
        threads = ThreadPoolExecutor(REQUESTS_AT_ONCE, "list")
        try:
            while self._ranges:
                self._collect()
                self._start(threads)
                front = self._ranges[0]
                if front.pages:
                    self._taken += 1
                    yield from front.pages.popleft()
                elif front.finished:
                    self._ranges.pop(0)
                else:
                    wait([part.fetching for part in self._ranges if part.fetching], return_when=FIRST_COMPLETED)
        finally:
            # Who stops reading need not wait for answers that nobody wants.
            threads.shutdown(wait=False, cancel_futures=True)

    def _start(self, threads: ThreadPoolExecutor) -> None:
        """Begin as many requests as may run, the foremost ranges first."""
        allowed = min(REQUESTS_AT_ONCE, 2**self._taken)
        running = sum(part.fetching is not None for part in self._ranges)
        room = PAGES_AHEAD - running - sum(len(part.pages) for part in self._ranges)
        while running < allowed:
            front = self._ranges[0]
            waiting = next((part for part in self._ranges if part.fetching is None and not part.finished), None)
            if waiting is not None and (room > 0 or (waiting is front and not front.pages)):
                waiting.fetching = threads.submit(self._ask, waiting.after)
                running += 1
                room -= 1
            elif room <= 0 or waiting is not None or not self._cut():
                return

    def _ask(self, after: str | None) -> Page:
        return _checked(self._fetch(after), after)

    def _cut(self) -> bool:
        """Cut the foremost range that can be cut; False when there is none."""
        for place, part in enumerate(self._ranges):
            if part.finished or not part.seen:
                continue
            keys = [info.key for info in part.seen]
            part.seen = []  # cut once by each page
            points = cuts(keys, part.until, self._names, floor=len(self._prefix))
            if points:
                ends = [*(point for point, _ in points[1:]), part.until]
                part.until = points[0][0]
                self._ranges[place + 1 : place + 1] = [
                    _Range(after, until, tried=tried) for (after, tried), until in zip(points, ends, strict=True)
                ]
                return True
        return False

    def _collect(self) -> None:
        for place, part in enumerate(self._ranges):
            if part.fetching is not None and part.fetching.done():
                page, part.fetching = part.fetching.result(), None
                self._names.learn(page.objects)
                self._sort_in(place, page)
                if part.tried is not None and not part.pages:
                    self._names.closed.add(part.tried)
                part.tried = None

    def _sort_in(self, place: int, page: Page) -> None:
        """Give the page to the range that asked for it, and what lies beyond to those behind it that are untouched."""
        objects = page.objects
        for part in self._ranges[place:]:
            if part is not self._ranges[place] and not part.untouched:
                return
            inside = objects
            if part.until is not None:
                inside = objects[: bisect_right(objects, part.until, key=lambda info: info.key)]
            if inside:
                part.pages.append(inside)
            if page.end is None or (part.until is not None and page.end >= part.until):
                part.finished, part.seen = True, None
                objects = objects[len(inside) :]
                continue
            part.after, part.seen = page.end, page.objects
            return


@dataclass
class Names:
    """What the names of a listing have in common: the characters that stand at each place of a key.

    `closed` are places where a character beyond those was tried in vain.
    """

    at: dict[int, set[str]] = field(default_factory=dict)
    closed: set[int] = field(default_factory=set)

    def learn(self, objects: Sequence[ObjectInfo]) -> None:
        """Look at some keys of a page."""
        for info in objects[:: -(-len(objects) // _SAMPLED_KEYS) or 1]:
            for place, char in enumerate(info.key):
                self.at.setdefault(place, set()).add(char)


def cuts(keys: Sequence[str], until: str | None, names: Names, *, floor: int = 0) -> list[tuple[str, int | None]]:
    """Where to cut the keys between the last of `keys`, one page, and `until`, so that parts hold a few pages each.

    Names count: by digits, hexadecimal digits or letters. The characters they count with are those that differ within
    the page; how many keys share a beginning follows from how far the page came. So the next places are the page's last
    key with one of its characters raised, from the back to the front, but not within its first `floor` characters.
    Raised to characters that were seen at that place before, and to one that was not: then the place is given as well.
    """
    first, last = keys[0], keys[-1]
    differing = (place for place, (one, other) in enumerate(zip(first, last, strict=False)) if one != other)
    shared = next(differing, len(first))
    some = keys[:: -(-len(keys) // _SAMPLED_KEYS)]
    columns = [{key[place] for key in some if place < len(key)} for place in range(shared, len(last))]
    alphabet = sorted({char for column in columns if len(column) > 1 for char in column if char.isalnum()})
    below = float(len(keys))  # keys that share a beginning up to and with the character at `place`
    if shared < len(first) and first[shared] in alphabet and last[shared : shared + 1] in alphabet:
        below /= max(1, alphabet.index(last[shared]) - alphabet.index(first[shared]))
    wanted, limit = _PAGES_A_PART * len(keys), PAGES_AHEAD * len(keys)
    points: list[tuple[str, int | None]] = []
    covered = 0.0
    for place in range(min(shared, len(last) - 1), floor - 1, -1):
        if last[place] not in alphabet:
            continue  # a character that does not count, as in "cam" or "/"
        known = names.at.get(place, set())
        step = max(1, math.ceil(wanted / below))
        for char in alphabet[alphabet.index(last[place]) + step :: step]:
            point, new = last[:place] + char, char not in known
            covered += step * below
            if (until is not None and point >= until) or (points and covered > limit):
                return points
            if new and place in names.closed:
                break
            points.append((point, place if new else None))
            if len(points) == REQUESTS_AT_ONCE:
                return points
            if new:
                break
        below *= max(2, len(known))
    return points


def _checked(page: Page, after: str | None) -> Page:
    last = after
    for info in page.objects:
        # What resumes and merges relies on the order: a service that has another (S3 Express) must not pass unnoticed.
        if last is not None and info.key <= last:
            raise StorageError(f"this service does not list keys in order ({last!r}, {info.key!r})")
        last = info.key
    if page.end is not None and after is not None and page.end <= after:
        raise StorageError(f"this service does not go on after the key {after!r}")
    return page
