"""Every figure of the source, reproduced; and where its prose differs from its own arithmetic."""

from __future__ import annotations

import re

import pytest

from ullage.slowdown.critical_batch import CLUSTERS, Cluster, cluster_table, critical_batch, run_seconds
from ullage.slowdown.published import (
    DAY,
    FLEET_RACKS,
    HOUR,
    Figure,
    covert_bytes_a_day,
    figures,
    largest_expert,
    rack_bytes_a_second,
    rack_tokens_a_second,
    sync_seconds,
)


def test_transfers_of_the_source() -> None:
    assert sync_seconds(10e9, 1e3) / DAY == pytest.approx(116, rel=0.005)
    assert sync_seconds(3e9, 100e3) / HOUR == pytest.approx(8.3, rel=0.005)
    assert largest_expert(60) == 6e6


def test_flow_through_a_rack() -> None:
    assert rack_tokens_a_second() == pytest.approx(6_100, rel=0.02)
    assert rack_bytes_a_second() == pytest.approx(24e3, rel=0.05)  # the prose says about 20 KB/s


@pytest.mark.parametrize(("fraction", "megabytes"), [(0.01, 86), (0.005, 43), (1e-4, 0.86)])
def test_unexplained_bytes_of_a_rack(fraction: float, megabytes: float) -> None:
    assert covert_bytes_a_day(fraction) / 1e6 == pytest.approx(megabytes, rel=0.01)


def test_unexplained_bytes_of_the_fleet() -> None:
    assert covert_bytes_a_day(1e-4, FLEET_RACKS) / 1e9 == pytest.approx(26, rel=0.01)


def test_critical_batch_and_the_run_at_it() -> None:
    assert critical_batch() / 1e6 == pytest.approx(118, rel=0.005)
    assert run_seconds(1.0) / DAY == pytest.approx(6, rel=0.02)


@pytest.mark.parametrize("cluster", CLUSTERS, ids=lambda cluster: cluster.name)
def test_cluster_ratios(cluster: Cluster) -> None:
    assert cluster.batch_ratio == pytest.approx(cluster.published_ratio, rel=0.1)


def test_dense_clusters_to_two_digits() -> None:
    assert [f"{cluster.batch_ratio:.2g}" for cluster in CLUSTERS] == ["0.43", "4.3", "0.54", "0.11"]


def test_slowdown_of_cut_clusters_at_a_fixed_step() -> None:
    small, large, *_ = cluster_table(0.05)
    assert small.fixed_step == pytest.approx(14, rel=0.02)
    assert large.fixed_step == pytest.approx(4.6, rel=0.02)


def test_where_prose_and_arithmetic_differ() -> None:
    differing = {figure.what for figure in figures() if not figure.agrees}
    assert differing == {
        "10 GB gradient over 1 KB/s",
        "largest expert in a one-minute wipe",
        "inference flow through a rack",
        "tokens of a rack",
    }


AGREEING = [figure for figure in figures() if figure.agrees and figure.prose != "–"]


@pytest.mark.parametrize("figure", AGREEING, ids=lambda figure: figure.what)
def test_every_other_figure_is_reproduced_to_the_digits_that_were_published(figure: Figure) -> None:
    found = re.match(r"[0-9.]+", figure.prose)
    assert found, figure.prose
    published = found.group()
    digits = max(1, len(published.replace(".", "").strip("0")))
    assert float(f"{figure.value:.{digits}g}") == pytest.approx(float(published), rel=1e-9)
