"""A whole site on one machine, from plain processes: `make site`, or `python -m deploy.local`."""
