"""Weighted nearest neighbours: how well frozen features separate classes, without training (Wu et al., 2018,
arXiv:1805.01978; DINO and Block Expansion, arXiv:2404.17245, measure forgetting this way)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

AT_ONCE = 2**26  # similarities computed at a time: 256 MiB


def knn_votes(
    bank: Tensor, bank_labels: Tensor, features: Tensor, num_classes: int, k: int, temperature: float = 0.07
) -> Tensor:
    """Votes per class (B, num_classes) of the k nearest in ``bank`` (N, D), exp(cosine / temperature) each.

    Args:
        bank_labels: (N,) integers.
        features: (B, D); normalised to length 1 here, like the bank.

    Raises:
        ValueError: the bank has fewer than k entries.
    """
    similarity, nearest = neighbours(bank, features, k)
    return votes(similarity, bank_labels[nearest], num_classes, temperature)


def neighbours(bank: Tensor, features: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Cosines with the k nearest in ``bank`` (N, D), nearest first, and their indices: (B, k) each.

    Raises:
        ValueError: the bank has fewer than k entries.
    """
    if not 1 <= k <= len(bank):
        raise ValueError(f"k is {k}, but the bank has only {len(bank)} images")
    bank = F.normalize(bank, dim=1)
    chunks = F.normalize(features, dim=1).split(max(1, AT_ONCE // len(bank)))
    nearest = [(chunk @ bank.T).topk(k) for chunk in chunks]
    return torch.cat([part.values for part in nearest]), torch.cat([part.indices for part in nearest])


def votes(similarity: Tensor, labels: Tensor, num_classes: int, temperature: float) -> Tensor:
    """Cosines with neighbours and the neighbours' labels, (B, k) each -> votes per class (B, num_classes)."""
    empty = similarity.new_zeros(len(similarity), num_classes)
    return empty.scatter_add(1, labels, (similarity / temperature).exp())


def knn_accuracy(votes: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1 and top-5 as fractions. Classes without votes never count among the five, or the first classes by number
    would fill the gaps."""
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
    """``knn_accuracy`` for every k, from a single search for the largest.

    Raises:
        ValueError: the bank has fewer than the largest k entries.
    """
    similarity, nearest = neighbours(bank, features, max(ks))
    near = bank_labels[nearest]
    return {k: knn_accuracy(votes(similarity[:, :k], near[:, :k], num_classes, temperature), labels) for k in ks}
