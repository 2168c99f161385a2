"""Opens what images are read from, by its URI."""

from pipeline.errors import ObjectMissing
from pipeline.sources.lookup import MemberLookup, above_containers, may_be_member
from pipeline.sources.source import Source
from pipeline.storage.local import LocalStore
from pipeline.storage.opening import open_store, read_object
from pipeline.storage.uri import split_options, split_uri


def open_source(uri: str, *, follow_links: bool = False) -> Source:
    """Open the storage of images that may be a stranger's, who may have put links to your files into a local folder.

    Unless `follow_links` is set, what lies behind a link that leads out of the folder is not listed, and reading it
    raises LinkRefused. `uri` itself may be a link. What cannot be listed of a local folder is passed over, and
    logged by name: a folder that may not be read, a path that is too long. Raises InputError if the URI makes no sense.
    """
    store = open_store(uri)
    return Source(store.as_source(follow_links=follow_links) if isinstance(store, LocalStore) else store)


def read_image(uri: str, image_column: str | None = None) -> bytes:
    """The bytes of one file or object, or of a member of a container: `s3://bucket/photos.tar/000123.jpg`.

    `image_column` names the column of images of a Parquet file, as in `fcn segment`. Raises StorageError, InputError,
    or ImageError for a member that cannot be read.
    """
    try:
        return read_object(uri)
    except ObjectMissing:
        if not may_be_member(uri):
            raise
        place, options = split_options(uri)
        folder, name = above_containers(*split_uri(place))
        store = open_store(folder + options)
        found = MemberLookup(store, image_column).find(name)
        if found is None:
            raise
        return Source(store).get(name, size=found.size, etag=found.etag)
