"""Audits: what the classes of an output really cover, and how sure that is, from a random sample annotated by hand."""
