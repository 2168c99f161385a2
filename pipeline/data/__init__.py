"""Labelled data: layouts, manifests, and the check before anybody trains on them."""
