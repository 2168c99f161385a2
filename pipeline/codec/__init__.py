"""Image bytes to pixels and masks to PNG bytes, in worker processes that hold one image at a time."""
