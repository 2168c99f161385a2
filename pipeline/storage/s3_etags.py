"""What the etags of a service are worth: whether they are MD5s, and whether listings have the objects' own.

S3's are MD5s but for multipart uploads and some kinds of encryption. Some gateways make up others of the same length,
and some list other etags than they answer with. Either is learned from what the service answers, once per process.
"""

import hashlib
import logging
import re
import threading

from pipeline.logfmt import key_values

log = logging.getLogger(__name__)

_MD5 = re.compile(r"[0-9a-f]{32}")

_ENOUGH = 3
"""After so many objects whose etag is no MD5, and none whose is, further ones are not read three times."""


class Etags:
    """What is known of one bucket's etags. Thread-safe."""

    def __init__(self, bucket: str) -> None:
        self._bucket = bucket
        self._lock = threading.Lock()
        self._md5s = False
        self._others: set[str] = set()
        self._listing_told = False

    def proves(self, data: bytes, etag: str) -> bool | None:
        """Whether `etag` says that `data` is whole: True, False, or None where it says nothing."""
        if not _MD5.fullmatch(etag) or (not self._md5s and len(self._others) >= _ENOUGH):
            return None
        if hashlib.md5(data, usedforsecurity=False).hexdigest() != etag:
            return False
        self._md5s = True
        return True

    def written(self, data: bytes, etag: str) -> None:
        """Learn from the answer to a write: there can be no doubt about the bytes."""
        if not self._md5s and _MD5.fullmatch(etag):
            self.proves(data, etag)

    def accept_other(self, name: str, etag: str) -> bool:
        """Whether an object that came three times as the same bytes is what it says, though its etag is not their MD5.

        Not where the service's etags are known to be MD5s.
        """
        with self._lock:
            if self._md5s:
                return False
            if not self._others:
                log.warning(
                    "%s",
                    key_values(
                        etags="no MD5s",
                        bucket=self._bucket,
                        note="this service's etags look like MD5s and are none; damage on the way is noticed by "
                        "length alone, and the first objects are read three times",
                        object=name,
                    ),
                )
            self._others.add(etag)
            return True

    def listed_others(self) -> None:
        """Note that listings have other etags than objects; says so once."""
        with self._lock:
            told, self._listing_told = self._listing_told, True
        if not told:
            log.warning("%s", key_values(etags="listed ones differ from the objects'", bucket=self._bucket))
