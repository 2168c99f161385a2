"""Inputs made to do harm: files, storage that misbehaves, secrets that want out."""
