"""Lloyd's rounds, against a plain loop."""

import torch

from rainfusion_core.selection.kmeans import kmeans, random_tokens


def test_rounds_are_lloyds_and_empty_clusters_keep_their_centroid():
    x = torch.randn(1, 2, 60, 5)
    start = random_tokens(x, 6)
    start[:, :, 5] = 1000  # nearest to nothing
    centroids, labels = kmeans(x, start, rounds=3)
    for head in range(2):
        middles = start[0, head].clone()
        for turn in range(4):
            nearest = torch.cdist(x[0, head], middles).argmin(-1)
            if turn == 3:
                break
            for cluster in nearest.unique():
                middles[cluster] = x[0, head][nearest == cluster].mean(0)
        torch.testing.assert_close(centroids[0, head], middles)
        assert labels[0, head].equal(nearest)
    assert (centroids[:, :, 5] == 1000).all()


def test_no_round_leaves_the_centroids():
    x = torch.randn(2, 1, 30, 4)
    start = random_tokens(x, 3)
    assert kmeans(x, start, rounds=0)[0].equal(start)


def test_first_centroids_are_different_tokens_and_can_be_repeated():
    x = torch.arange(40.0).view(1, 1, 40, 1)
    drawn = random_tokens(x, 12)
    assert len(drawn.unique()) == 12 and torch.isin(drawn, x).all()
    assert drawn.equal(random_tokens(x, 12)) and not drawn.equal(random_tokens(x, 12, seed=1))
