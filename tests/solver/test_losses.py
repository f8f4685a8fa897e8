"""Losses and class weights, by their formulas."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from src.solver.losses import build_loss, class_weights

LOGITS = torch.tensor([[0.5, -1.0, 2.0], [0.0, 3.0, -2.0], [1.0, 1.0, 1.0], [-0.3, 0.2, 0.1]])
TARGETS = torch.tensor([2, 0, 1, 1])


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 0.5])])
def test_the_sigmoid_loss_is_the_sum_over_classes_and_the_mean_over_images(weights):
    ones = F.one_hot(TARGETS, 3).float()
    right = (LOGITS * (2 * ones - 1)).sigmoid()  # of every class: the probability of what it is, there or not there
    expected = -(right.log() * (1 if weights is None else weights)).sum(1).mean()
    loss = build_loss("sigmoid", weights, 0.0)
    torch.testing.assert_close(loss(LOGITS, TARGETS), expected)
    torch.testing.assert_close(loss(LOGITS, ones), expected)


def test_class_weights_have_mean_one_and_are_zero_without_images():
    labels = np.array([0] * 4 + [1] * 16 + [3])
    assert class_weights(labels, 4, "none") is None
    torch.testing.assert_close(class_weights(labels, 4, "inv"), torch.tensor([16.0, 4.0, 0.0, 64.0]) * 4 / 84)
    torch.testing.assert_close(class_weights(labels, 4, "inv_sqrt"), torch.tensor([2.0, 1.0, 0.0, 4.0]) * 4 / 7)
