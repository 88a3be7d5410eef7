"""How clean rows are corrupted, and how wrong a model's estimate of them is.

All columns share one variance-exploding process x = x0 + σ·n: continuous values as they are, states as one-hot blocks.
The losses are per record and per draw, never averaged over records: private training clips each record's own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from aevorium.diffusion.denoiser import Estimate
from aevorium.diffusion.layout import EncodedTable, Layout
from aevorium.diffusion.schedule import stratified_levels

__all__ = ["Estimator", "GaussianProcess", "MixedProcess", "SoftmaxProcess"]

Estimator = Callable[[Tensor, Tensor], Estimate]
"""A model, or anything that estimates clean rows from noisy ones and their noise levels as it does."""


class GaussianProcess:
    """Continuous columns."""

    def loss(self, estimate: Tensor, *, values: Tensor, observed: Tensor, sigma: Tensor) -> Tensor:
        """Weighted squared error (Karras et al. 2022, section 5), 0 where not observed.

        The weight (1 + σ²)/σ² makes the independent model's expected loss 1 at every level.

        Args:
            estimate: [..., C], expected clean values.
            values: The clean values, broadcastable to it.
            observed: Whether they are observed, or the probability that they are, broadcastable to it.
            sigma: [...], noise levels.

        Returns:
            [..., C].
        """
        weight = (1 + sigma.square().reciprocal()).unsqueeze(-1)
        return weight * (estimate - values).square() * observed


class SoftmaxProcess:
    """Categorical columns, as one-hot blocks whose states a softmax predicts.

    Args:
        layout: The columns.
    """

    def __init__(self, layout: Layout) -> None:
        self.categories = layout.categories
        self.blocks = layout.blocks

    def clean(self, codes: Tensor) -> Tensor:
        """One-hot blocks [..., D - C] of codes [..., K]."""
        parts = [one_hot(codes[..., column], states) for column, states in enumerate(self.categories)]
        return torch.cat(parts, dim=-1).float() if parts else codes.new_zeros(codes.shape, dtype=torch.float32)

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax within each block, [..., D - C].

        Along the first dimension, where neighbours in memory are of one state: with a few states a block that is four
        times as fast as along the last.
        """
        states = logits.movedim(-1, 0)
        parts = [states[block].softmax(dim=0) for block in self.blocks]
        return torch.cat(parts).movedim(0, -1) if parts else logits

    def log_probabilities(self, logits: Tensor) -> Tensor:
        """Its logarithm, [..., D - C]."""
        parts = [logits[..., block].log_softmax(dim=-1) for block in self.blocks]
        return torch.cat(parts, dim=-1) if parts else logits

    def loss(self, logits: Tensor, *, codes: Tensor) -> Tensor:
        """Cross-entropy of each column, [..., K]."""
        parts = []
        for column, block in enumerate(self.blocks):
            truth = codes[..., column].expand(logits.shape[:-1]).unsqueeze(-1)
            parts.append(-logits[..., block].log_softmax(dim=-1).gather(-1, truth))
        return torch.cat(parts, dim=-1) if parts else logits


class MixedProcess:
    """All columns of a table.

    Args:
        layout: The columns.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.gaussian = GaussianProcess()
        self.softmax = SoftmaxProcess(layout)

    def clean(self, batch: EncodedTable) -> Tensor:
        """The rows' vectors, [B, D]."""
        return torch.cat([batch.values, self.softmax.clean(batch.codes)], dim=-1)

    def noise(self, sigma: Tensor, *, generator: torch.Generator) -> Tensor:
        """Standard noise for rows at given levels, [..., D], one vector for each level.

        Args:
            sigma: [B] or [B, K].
            generator: Source of randomness, on the same device.
        """
        return torch.randn((*sigma.shape, self.layout.dimension), generator=generator, device=sigma.device)

    def corrupt(self, clean: Tensor, *, sigma: Tensor, noise: Tensor) -> Tensor:
        """Adds σ times standard noise.

        Args:
            clean: [B, D].
            sigma: [B] or [B, K].
            noise: [B, D] or [B, K, D].

        Returns:
            [B, D] or [B, K, D].
        """
        if sigma.dim() == 2:
            clean = clean.unsqueeze(1)
        return clean + sigma.unsqueeze(-1) * noise

    def loss(
        self,
        model: Callable[[Tensor, Tensor], Estimate],
        batch: EncodedTable,
        *,
        draws: int,
        generator: torch.Generator,
    ) -> Tensor:
        """How wrong the model is on each record, for several noise levels and draws of noise.

        Reads patient records.

        Args:
            model: The model.
            batch: B records.
            draws: Draws of (σ, noise) for each record, K.
            generator: Source of randomness, on the batch's device.

        Returns:
            [B, K], the mean over columns; about 1 for an untrained model.
        """
        sigma = stratified_levels(len(batch), draws=draws, generator=generator)
        return self.loss_at(model, batch, sigma=sigma, noise=self.noise(sigma, generator=generator))

    def loss_at(
        self,
        model: Callable[[Tensor, Tensor], Estimate],
        batch: EncodedTable,
        *,
        sigma: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """The same for given noise levels, [B, K], and noise, [B, K, D]. Reads patient records."""
        noisy = self.corrupt(self.clean(batch), sigma=sigma, noise=noise)
        estimate = model(noisy, sigma)
        values = self.gaussian.loss(
            estimate.values, values=batch.values[:, None], observed=batch.observed[:, None], sigma=sigma
        )
        states = self.softmax.loss(estimate.logits, codes=batch.codes[:, None])
        return torch.cat([values, states], dim=-1).sum(dim=-1) / self.layout.columns

    def expected_loss(
        self, estimate: Estimate, *, sigma: Tensor, values: Tensor, observed: Tensor, states: Tensor
    ) -> Tensor:
        """The expectation of the loss, up to what no estimate can change, for clean rows of which only that is known.

        Args:
            estimate: The model's, of B rows.
            sigma: [B], their noise levels.
            values: [B, C], the expected clean values, given that they are observed.
            observed: [B, C], the probability that they are.
            states: [B, D - C], the probability of each state.

        Returns:
            [B], the mean over columns.
        """
        errors = self.gaussian.loss(estimate.values, values=values, observed=observed, sigma=sigma)
        surprise = -states * self.softmax.log_probabilities(estimate.logits)
        return (errors.sum(dim=-1) + surprise.sum(dim=-1)) / self.layout.columns
