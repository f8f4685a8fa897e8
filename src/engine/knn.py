"""Weighted nearest neighbours: how well frozen features tell classes apart, without training (Wu et al., 2018,
arXiv:1805.01978, as DINO and the Block Expansion paper, arXiv:2404.17245, measure forgetting)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

AT_ONCE = 2**26  # similarities in memory at a time: 256 MiB


def knn_votes(
    bank: Tensor, bank_labels: Tensor, features: Tensor, num_classes: int, k: int, temperature: float = 0.07
) -> Tensor:
    """Each class's votes (B, num_classes) from the k nearest of ``bank`` (N, D), exp(cosine / temperature) each.

    Args:
        bank_labels: (N,) integers.
        features: (B, D); they and the bank are scaled to length 1 here.

    Raises:
        ValueError: the bank has fewer than k entries.
    """
    similarity, nearest = neighbours(bank, features, k)
    return votes(similarity, bank_labels[nearest], num_classes, temperature)


def neighbours(bank: Tensor, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosines with the k nearest of ``bank`` (N, D), the nearest first, and where they are there: (B, k) each.

    Raises:
        ValueError: the bank has fewer than k entries.
    """
    if not 1 <= k <= len(bank):
        raise ValueError(f"k is {k}, and there are {len(bank)} images to look among")
    bank = F.normalize(bank, dim=1)
    chunks = F.normalize(features, dim=1).split(max(1, AT_ONCE // len(bank)))
    found = [(chunk @ bank.T).topk(k) for chunk in chunks]
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def votes(similarity: Tensor, labels: Tensor, num_classes: int, temperature: float) -> Tensor:
    """Cosines with neighbours and the labels of these, (B, k) each -> every class's votes (B, num_classes)."""
    empty = similarity.new_zeros(len(similarity), num_classes)
    return empty.scatter_add(1, labels, (similarity / temperature).exp())


def knn_accuracy(votes: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1 and top-5 as fractions. A class without a vote is never among the five: otherwise they would be filled up
    with whatever classes come first."""
    top = votes.topk(min(5, votes.shape[1]))
    hits = (top.indices == labels[:, None]) & (top.values > 0)
    return {"top1": hits[:, 0].float().mean().item(), "top5": hits.any(1).float().mean().item()}


def knn_accuracies(
    bank: Tensor,
    bank_labels: Tensor,
    features: Tensor,
    labels: Tensor,
    num_classes: int,
    ks: Sequence[int],
    temperature: float = 0.07,
) -> dict[int, dict[str, float]]:
    """``knn_accuracy`` for every k, from one search for the most that are asked for.

    Raises:
        ValueError: the bank has fewer than the largest k entries.
    """
    similarity, nearest = neighbours(bank, features, max(ks))
    near = bank_labels[nearest]
    return {k: knn_accuracy(votes(similarity[:, :k], near[:, :k], num_classes, temperature), labels) for k in ks}
