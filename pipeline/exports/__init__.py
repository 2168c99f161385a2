"""Masks of an output in the formats that other tools read: which images, under which names, and a call that resumes."""
