"""The `fcn` command: options in, a call of the library, a few lines out."""
