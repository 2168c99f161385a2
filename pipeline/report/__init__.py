"""A run's report: one HTML file that shows what a run did, to whoever opens it, with no network.

`make` gathers and writes it; `summary` reads the committed results as a stream, `changes` compares them with an earlier
run, `pictures` draws what there is to see, `charts` and `sections` lay it out, `page` is the document around them.
"""
