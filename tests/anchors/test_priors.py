"""Clusters of boxes by the IoU of their sizes."""

import numpy as np
import pytest

from fldet.anchors.priors import cluster_sizes, iou_of_sizes


def test_iou_of_sizes_by_hand():
    found = iou_of_sizes(np.array([[2.0, 4.0]]), np.array([[2.0, 4.0], [4.0, 2.0], [1.0, 1.0]]))
    np.testing.assert_allclose(found, [[1, 4 / 12, 1 / 8]])


def test_separate_groups_give_their_means_smallest_first():
    small, wide = [[8.0, 10.0], [10.0, 8.0]], [[60.0, 20.0], [80.0, 24.0]]
    found = cluster_sizes(np.array([wide[0], small[0], wide[1], small[1]]), 2)
    np.testing.assert_allclose(found, [[9, 9], [70, 22]])


def test_no_box_is_nearer_to_another_cluster_and_centres_are_means():
    """What k-means ends with, whatever it began with."""
    sizes = np.random.default_rng(0).lognormal(3, 0.7, (300, 2))
    centres = cluster_sizes(sizes, 5)
    nearest = iou_of_sizes(sizes, centres).argmax(axis=1)
    for index, centre in enumerate(centres):
        np.testing.assert_allclose(sizes[nearest == index].mean(axis=0), centre)
    np.testing.assert_allclose(cluster_sizes(sizes[::-1], 5), centres)


def test_fewer_boxes_than_clusters():
    found = cluster_sizes(np.array([[3.0, 5.0]]), 3)
    np.testing.assert_array_equal(found, [[3, 5]] * 3)


@pytest.mark.parametrize("sizes", [np.zeros((0, 2)), np.array([[0.0, 1.0]])])
def test_what_cannot_be_clustered(sizes):
    with pytest.raises(ValueError, match="sizes above 0"):
        cluster_sizes(sizes, 2)
