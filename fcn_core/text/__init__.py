"""Text from outside: JSON read within bounds, and names and messages made fit to be shown."""
