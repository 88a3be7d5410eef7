"""From a trained model to a table: sample, decode, derive, and keep the rows that satisfy the constraints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch

from aevorium.diffusion.checkpoint import Cipher, load_checkpoint
from aevorium.diffusion.denoiser import TabularDiffusion, load_vector
from aevorium.diffusion.sampler import ddim, ddpm
from aevorium.diffusion.schedule import karras_levels
from aevorium.encoding.encoder import TableEncoder
from aevorium.errors import ArtefactError, UserError
from aevorium.schema.expression import parse_expression
from aevorium.schema.frame import round_frame
from aevorium.schema.rules import derive
from aevorium.schema.table import TableSchema
from aevorium.workspace import Workspace

__all__ = ["SAMPLER", "STEPS", "Synthesis", "open_synthesis"]

SAMPLER: Literal["ddim", "ddpm"] = "ddim"
STEPS = 30
"""Of the second-order sampler, which `tests/statistical/test_diffusion_sampler.py` holds to exact densities."""

_BATCH = 8192
_MIN_ACCEPTED = 0.005
"""Share of rows that must satisfy the constraints; below it, generation gives up rather than run for ever."""

_PATIENCE = 4 * _BATCH


@dataclass
class Synthesis:
    """Generates rows. Everything it uses is released, so everything it makes is.

    Attributes:
        model: The trained model.
        encoder: The study's encoder.
        schema: The study's schema.
        seed: Fixes the rows.
        sampler: "ddpm" (ancestral) or "ddim" (deterministic).
        steps: Noise levels of the sampler.
        rejected: Rows so far that a constraint turned away.
    """

    model: TabularDiffusion
    encoder: TableEncoder
    schema: TableSchema
    seed: int
    sampler: Literal["ddim", "ddpm"] = SAMPLER
    steps: int = STEPS
    rejected: int = 0

    def frames(self, rows: int, *, advance: Callable[[int], None]) -> Iterator[pd.DataFrame]:
        """Yields typed frames with exactly `rows` rows in all, every one within schema and constraints.

        Args:
            rows: How many.
            advance: Called with the number of rows made so far.

        Raises:
            UserError: CONSTRAINT_UNSATISFIABLE, if next to no row satisfies the constraints.
        """
        generator = torch.Generator().manual_seed(self.seed)
        made = drawn = 0
        while made < rows:
            # A little more than is missing, so that rejections seldom need another round.
            size = min(_BATCH, max(256, int((rows - made) * 1.05)))
            frame = self._accepted(self._draw(size, generator))
            drawn += size
            self.rejected += size - len(frame)
            frame = frame.iloc[: rows - made]
            made += len(frame)
            if drawn >= _PATIENCE and made < _MIN_ACCEPTED * drawn:
                raise UserError(
                    "CONSTRAINT_UNSATISFIABLE",
                    f"Only {made} of {drawn} generated rows satisfy the schema's constraints. "
                    f"{self._hardest(size, generator)}",
                )
            advance(made)
            if len(frame):
                yield frame.reset_index(drop=True)

    def _draw(self, size: int, generator: torch.Generator) -> pd.DataFrame:
        sample = ddpm if self.sampler == "ddpm" else ddim
        self.model.eval()
        with torch.inference_mode():
            made = sample(self.model, rows=size, levels=karras_levels(self.steps), generator=generator)
        frame = self.encoder.decode(made.values.numpy(), made.codes.numpy(), self.schema)
        # Rounded as it will be written, so that what is derived from and checked is what the file holds.
        return round_frame(derive(round_frame(frame, self.schema), self.schema), self.schema)

    def _accepted(self, frame: pd.DataFrame) -> pd.DataFrame:
        for constraint in self.schema.constraints:
            frame = frame[~parse_expression(constraint.check).violated(frame)]
        return frame

    def _hardest(self, size: int, generator: torch.Generator) -> str:
        frame = self._draw(size, generator)
        shares = {
            constraint.check: parse_expression(constraint.check).violated(frame).mean()
            for constraint in self.schema.constraints
        }
        worst = max(shares, key=lambda check: shares[check])
        return f"The hardest is {worst!r}, which {1 - shares[worst]:.2%} of rows satisfy."


def open_synthesis(
    workspace: Workspace,
    *,
    schema: TableSchema,
    cipher: Cipher,
    seed: int,
    sampler: Literal["ddim", "ddpm"] = SAMPLER,
    steps: int = STEPS,
) -> Synthesis:
    """Opens the newest checkpoint of a workspace for generation.

    Args:
        workspace: The workspace of a run.
        schema: The study's schema.
        cipher: Decrypts the checkpoint.
        seed: Fixes the rows.
        sampler: "ddpm" (ancestral) or "ddim" (deterministic).
        steps: Noise levels of the sampler.

    Raises:
        ArtefactError: No checkpoint or encoder, or one that cannot be used.
    """
    checkpoint = load_checkpoint(workspace.newest_checkpoint(), cipher=cipher, schema_hash=schema.content_hash)
    if not workspace.encoder.is_file():
        raise ArtefactError("ARTEFACT_NOT_FOUND", f"No encoder {str(workspace.encoder)!r}. The run did not get so far.")
    encoder = TableEncoder.from_json(workspace.encoder.read_text(encoding="utf-8"), schema)
    config = checkpoint.header.model
    if tuple(len(prior) for prior in encoder.priors(schema)) != config.layout.categories:
        raise ArtefactError(
            "CHECKPOINT_MODEL_MISMATCH", "The checkpoint holds a model for another encoder than the workspace's."
        )
    model = TabularDiffusion(config, priors=encoder.priors(schema), generator=torch.Generator())
    load_vector(model, checkpoint.vector)
    return Synthesis(model=model, encoder=encoder, schema=schema, seed=seed, sampler=sampler, steps=steps)
