"""Weighted nearest neighbours: how well frozen features tell classes apart, without training (Wu et al., 2018,
arXiv:1805.01978, as DINO and the Block Expansion paper, arXiv:2404.17245, measure forgetting)."""

import torch
from torch import Tensor
from torch.nn import functional as F


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
    if not 1 <= k <= len(bank):
        raise ValueError(f"k is {k}, and there are {len(bank)} images to look among")
    bank = F.normalize(bank, dim=1)
    votes = []
    for chunk in F.normalize(features, dim=1).split(1024):  # 1024 x N similarities at a time
        similarity, nearest = (chunk @ bank.T).topk(k)
        empty = chunk.new_zeros(len(chunk), num_classes)
        votes.append(empty.scatter_add(1, bank_labels[nearest], (similarity / temperature).exp()))
    return torch.cat(votes)


def knn_accuracy(votes: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1 and top-5 as fractions. A class without a vote is never among the five: otherwise they would be filled up
    with whatever classes come first."""
    top = votes.topk(min(5, votes.shape[1]))
    hits = (top.indices == labels[:, None]) & (top.values > 0)
    return {"top1": hits[:, 0].float().mean().item(), "top5": hits.any(1).float().mean().item()}
