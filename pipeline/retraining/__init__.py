"""From new data to a new champion: check, train, evaluate, compare, promote, relabel."""
