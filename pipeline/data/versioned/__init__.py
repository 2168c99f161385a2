"""Data sets in numbered versions that never change: made from annotations, added to, compared."""
