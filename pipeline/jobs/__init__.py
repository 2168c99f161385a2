"""The options of every job, defined once: for the command line, config files, Prefect's forms, and Python.

The one thing to know: a job is data. Nothing here does any work, so every package above may read what was asked for.
"""
