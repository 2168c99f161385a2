"""Annotations as labelling tools and published data sets write them, read as masks of one label set."""
