"""Samples of whole folders: frames of a video or of one camera, which are quicker to annotate together and resemble
each other. What is drawn are folders, and of each some images; intervals then follow from the folders.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.audit.arrays import Array, Ints
from pipeline.audit.population import Lottery, Population, Totals, domain_of, with_masks
from pipeline.audit.strata import StrataRule, make_rule
from pipeline.errors import InputError

MOST_CLUSTERS = 100_000
LEAST_CLUSTERS = 2


@dataclass(frozen=True)
class ClusterFrame:
    """All clusters of a population: their names, sums and the mean confidence of their images [clusters]."""

    names: tuple[str, ...]
    totals: tuple[Totals, ...]
    confidence: Array
    without_mask: int
    runs: frozenset[str]

    @property
    def shares(self) -> Array:
        """Float64 [clusters, classes]."""
        return np.array([each.model / each.pixels for each in self.totals])


def read_clusters(population: Population, cluster: str) -> ClusterFrame:
    """Look at every row once. Raises InputError for too few or too many clusters."""
    found: dict[str, Totals] = {}
    confidence: dict[str, float] = {}
    without_mask, runs = 0, set()
    for batch in population.batches():
        runs.update(batch["run_id"].unique().to_pylist())
        rows = with_masks(batch, population.classes)
        without_mask += len(batch) - len(rows.pixels)
        encoded = domain_of(rows.batch, cluster).dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        for code, name in enumerate(encoded.dictionary.to_pylist()):
            here = codes == code
            sums = found.setdefault(name, Totals(0, 0.0, np.zeros(population.classes)))
            sums.images += int(here.sum())
            sums.pixels += float(rows.pixels[here].sum())
            sums.model += rows.model[here].sum(axis=0)
            confidence[name] = confidence.get(name, 0.0) + float(rows.confidence[here].sum())
        if len(found) > MOST_CLUSTERS:
            raise InputError(f"--cluster {cluster} makes more than {MOST_CLUSTERS:,} clusters; choose a coarser one")
    if len(found) < LEAST_CLUSTERS:
        raise InputError(
            f"--cluster {cluster} makes {len(found)} cluster of the images, and from one no interval follows"
        )
    names = tuple(sorted(found))
    totals = tuple(found[name] for name in names)
    mean = np.array([confidence[name] / found[name].images for name in names])
    return ClusterFrame(names, totals, mean, without_mask, frozenset(runs))


def cluster_rule(frame: ClusterFrame, clusters: int) -> StrataRule:
    """Strata of clusters for a sample of so many of them: four or more in each."""
    return make_rule(frame.shares, frame.confidence, 2 * clusters)


def draw_images(
    population: Population, cluster: str, chosen: Mapping[str, int], per_cluster: int, seed: int
) -> pa.Table:
    """Up to `per_cluster` images of each chosen cluster, at random: rows of COLUMNS with `stratum` (as `chosen` has it
    by cluster) and `cluster`."""
    names = sorted(chosen)
    lottery = Lottery(len(names), per_cluster, seed)
    for batch in population.batches():
        rows = with_masks(batch, population.classes)
        at = pc.index_in(domain_of(rows.batch, cluster), value_set=pa.array(names, pa.string()))
        places = pc.fill_null(at, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        (inside,) = np.nonzero(places >= 0)
        if len(inside):
            lottery.add(rows.batch.take(pa.array(inside)), places[inside])
    table = lottery.candidates()
    places = table["stratum"].to_numpy().astype(np.int64)
    strata = np.array([chosen[name] for name in names])[places]
    table = table.drop_columns(["stratum"]).append_column("stratum", pa.array(strata))
    return table.append_column("cluster", pa.array([names[place] for place in places.tolist()], pa.string()))


def choose_clusters(stratum: Ints, chosen: Ints, seed: int) -> Ints:
    """Places of the clusters that a simple random sample of `chosen` [strata] of each stratum takes."""
    random = np.random.default_rng(seed)
    order = random.random(len(stratum))
    places = []
    for index, count in enumerate(chosen.tolist()):
        (here,) = np.nonzero(stratum == index)
        places.append(here[np.argsort(order[here], kind="stable")[:count]])
    return np.sort(np.concatenate(places))
