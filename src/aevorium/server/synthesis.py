"""From a trained model to a table: sample, decode, derive, and keep the rows that are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import torch

from aevorium.diffusion.checkpoint import Cipher, load_checkpoint
from aevorium.diffusion.denoiser import TabularDiffusion, load_vector
from aevorium.diffusion.sampler import Generated, ddim, ddpm
from aevorium.diffusion.schedule import karras_levels
from aevorium.encoding.encoder import TableEncoder
from aevorium.errors import ArtefactError, UserError
from aevorium.schema.condition import Condition
from aevorium.schema.expression import parse_expression
from aevorium.schema.frame import round_frame
from aevorium.schema.rules import derive
from aevorium.schema.table import TableSchema
from aevorium.server.reconciliation import SURPLUS, choose_rows, memberships
from aevorium.server.search import Balance, Search
from aevorium.workspace import Workspace

__all__ = ["SAMPLER", "STEPS", "Synthesis", "open_synthesis"]

SAMPLER: Literal["ddim", "ddpm"] = "ddim"
STEPS = 30
"""Of the second-order sampler, which `tests/statistical/test_diffusion_sampler.py` holds to exact densities."""

_BATCH = 2048
"""Rows drawn at once: hidden layers of more leave the processor's cache, which takes a third longer."""

_FEWEST = 256
"""Rows drawn at once at least, where some of them may be turned away."""

_FRAME = 8192
"""Rows of a frame that is handed on."""

_MIN_ACCEPTED = 0.005
"""Share of rows that must satisfy the constraints; below it, generation gives up rather than run for ever."""

_PATIENCE = 32_768
"""Rows drawn before the constraints are judged."""


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
        drawn: Rows drawn so far.
        rejected: Those of them that a constraint turned away.
    """

    model: TabularDiffusion
    encoder: TableEncoder
    schema: TableSchema
    seed: int
    sampler: Literal["ddim", "ddpm"] = SAMPLER
    steps: int = STEPS
    drawn: int = 0
    rejected: int = 0

    def frames(
        self,
        rows: int,
        *,
        advance: Callable[[int], None],
        condition: Condition | None = None,
        balance: Balance | None = None,
    ) -> Iterator[pd.DataFrame]:
        """Yields typed frames with exactly `rows` rows in all, every one within schema and constraints.

        Args:
            rows: How many.
            advance: Called with the number of rows made so far, again and again while rare rows are looked for.
            condition: What each row is to meet besides.
            balance: The column of whose categories there are to be equal numbers of rows. The whole table is then
                held in memory and shuffled: common categories would else stand before rare ones.

        Raises:
            UserError: CONSTRAINT_UNSATISFIABLE or CONDITION_UNSATISFIABLE, if next to no row is of the kind.
        """
        generator = torch.Generator().manual_seed(self.seed)
        search = Search(rows, condition=condition, balance=balance)
        parts = _regrouped(self._taken(search, advance=advance, generator=generator))
        if balance is None:
            yield from parts
        else:
            table = pd.concat(parts, ignore_index=True)
            order = torch.randperm(rows, generator=generator).numpy()
            yield from _regrouped(iter([table.iloc[order]]))

    def _taken(
        self, search: Search, *, advance: Callable[[int], None], generator: torch.Generator
    ) -> Iterator[pd.DataFrame]:
        while not search.is_complete:
            size = min(_FRAME, search.draws)
            if search.is_choosy or self.schema.constraints:
                # A little more than is missing, so that rejections seldom need another round.
                size = max(_FEWEST, int(size * 1.05))
            frame = self._accepted(self._draw(size, generator))
            self.drawn += size
            self.rejected += size - len(frame)
            self._check_constraints(size, generator)
            taken = search.take(frame, drawn=size)
            advance(search.taken)
            yield taken
            if not search.is_complete:
                search.check()

    def _check_constraints(self, size: int, generator: torch.Generator) -> None:
        accepted = self.drawn - self.rejected
        if self.drawn >= _PATIENCE and accepted < _MIN_ACCEPTED * self.drawn:
            raise UserError(
                "CONSTRAINT_UNSATISFIABLE",
                f"Only {accepted} of {self.drawn} generated rows satisfy the schema's constraints. "
                f"{self._hardest(size, generator)}",
            )

    def _draw(self, size: int, generator: torch.Generator) -> pd.DataFrame:
        """Rows of the model that hold the released shares together, before constraints and conditions."""
        made = self._sample(math.ceil(size * SURPLUS), generator)
        members, shares = memberships(made, layout=self.model.layout, priors=self.encoder.priors(self.schema))
        kept = choose_rows(members, shares=shares, keep=size, generator=generator)
        frame = self.encoder.decode(made.values[kept].numpy(), made.codes[kept].numpy(), self.schema)
        # Rounded as it will be written, so that what is derived from and checked is what the file holds.
        return round_frame(derive(round_frame(frame, self.schema), self.schema), self.schema)

    def _sample(self, size: int, generator: torch.Generator) -> Generated:
        sample = ddpm if self.sampler == "ddpm" else ddim
        levels = karras_levels(self.steps)
        self.model.eval()
        with torch.inference_mode():
            parts = [
                sample(self.model, rows=min(_BATCH, size - start), levels=levels, generator=generator)
                for start in range(0, size, _BATCH)
            ]
        return Generated(
            values=torch.cat([part.values for part in parts]), codes=torch.cat([part.codes for part in parts])
        )

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


def _regrouped(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The same rows in frames of `_FRAME` rows: some frames of rare rows would hold a row or none."""
    waiting: list[pd.DataFrame] = []
    for frame in frames:
        waiting.append(frame)
        if sum(map(len, waiting)) >= _FRAME:
            table = pd.concat(waiting, ignore_index=True)
            cuts = range(_FRAME, len(table) + 1, _FRAME)
            yield from (table.iloc[cut - _FRAME : cut].reset_index(drop=True) for cut in cuts)
            waiting = [table.iloc[cuts[-1] :]]
    rest = pd.concat(waiting, ignore_index=True)
    if len(rest):
        yield rest


def open_synthesis(
    workspace: Workspace,
    *,
    schema: TableSchema,
    run_id: str,
    cipher: Cipher,
    seed: int,
    sampler: Literal["ddim", "ddpm"] = SAMPLER,
    steps: int = STEPS,
) -> Synthesis:
    """Opens the newest checkpoint of a workspace for generation.

    Args:
        workspace: The workspace of a run.
        schema: The study's schema.
        run_id: The run that the checkpoint must be of.
        cipher: Decrypts the checkpoint.
        seed: Fixes the rows.
        sampler: "ddpm" (ancestral) or "ddim" (deterministic).
        steps: Noise levels of the sampler.

    Raises:
        ArtefactError: No checkpoint or encoder, or one that cannot be used.
    """
    path = workspace.newest_checkpoint()
    checkpoint = load_checkpoint(
        path,
        cipher=cipher,
        schema_hash=schema.content_hash,
        run_id=run_id,
        round_number=max(workspace.checkpoints()),
    )
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
