"""From an Architecture to a network."""

from typing import cast

from fcn_core.models.architecture import Architecture
from fcn_core.models.network import Network
from fcn_core.models.networks import network_spec


def build(architecture: Architecture) -> Network:
    """A network with fresh random weights, in training mode."""
    return cast(Network, network_spec(architecture.arch).build(architecture))
