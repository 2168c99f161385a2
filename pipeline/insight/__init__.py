"""Questions after a run: what to label next, what changed between runs, and SQL on the tables."""
