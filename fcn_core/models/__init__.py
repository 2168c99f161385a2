"""Networks: architectures, backbones, families of FCNs, and the catalogue that lists them.

The one thing to know: every network has the same few methods (`network.Network`), so prediction and training name none.
"""
