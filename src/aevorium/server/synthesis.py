"""From a trained model to a table: sample, decode, derive, and keep the rows that are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Literal

import pandas as pd
import torch

from aevorium.diffusion.checkpoint import Cipher, load_checkpoint
from aevorium.diffusion.denoiser import TabularDiffusion, load_vector
from aevorium.diffusion.device import CPU
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
from aevorium.threads import single_threads
from aevorium.workspace import Workspace

__all__ = ["SAMPLER", "STEPS", "Synthesis", "open_synthesis"]

SAMPLER: Literal["ddim", "ddpm"] = "ddim"
STEPS = 30
"""Of the second-order sampler, which `tests/statistical/test_diffusion_sampler.py` holds to exact densities."""

_BATCH = 512
"""Rows drawn at once: a hidden layer of more leaves the processor's cache and gets fresh pages from the system each
time, which takes twice as long; dispatch begins to show with fewer."""

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
        device: Where the rows are drawn, and where the model is.
        drawn: Rows drawn so far.
        rejected: Those of them that a constraint turned away.
    """

    model: TabularDiffusion
    encoder: TableEncoder
    schema: TableSchema
    seed: int
    sampler: Literal["ddim", "ddpm"] = SAMPLER
    steps: int = STEPS
    device: torch.device = CPU
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
        if condition is not None:
            condition.require_within(self.encoder.reach(self.schema), self.schema)
        seeds = _seeds(self.seed)
        search = Search(rows, condition=condition, balance=balance)
        parts = _regrouped(self._taken(search, advance=advance, seeds=seeds))
        if balance is None:
            yield from parts
        else:
            table = pd.concat(parts, ignore_index=True)
            order = torch.randperm(rows, generator=_generator(next(seeds))).numpy()
            yield from _regrouped(iter([table.iloc[order]]))

    def _taken(self, search: Search, *, advance: Callable[[int], None], seeds: Iterator[int]) -> Iterator[pd.DataFrame]:
        while not search.is_complete:
            size = min(_FRAME, search.draws)
            if search.is_choosy or self.schema.constraints:
                # A little more than is missing, so that rejections seldom need another round.
                size = max(_FEWEST, int(size * 1.05))
            frame = self._accepted(self._draw(size, seeds))
            self.drawn += size
            self.rejected += size - len(frame)
            self._check_constraints(size, seeds)
            taken = search.take(frame, drawn=size)
            advance(search.taken)
            yield taken
            if not search.is_complete:
                search.check()

    def _check_constraints(self, size: int, seeds: Iterator[int]) -> None:
        accepted = self.drawn - self.rejected
        if self.drawn >= _PATIENCE and accepted < _MIN_ACCEPTED * self.drawn:
            raise UserError(
                "CONSTRAINT_UNSATISFIABLE",
                f"Only {accepted} of {self.drawn} generated rows satisfy the schema's constraints. "
                f"{self._hardest(size, seeds)}",
            )

    def _draw(self, size: int, seeds: Iterator[int]) -> pd.DataFrame:
        """Rows of the model that hold the released shares together, before constraints and conditions."""
        made = self._sample(math.ceil(size * SURPLUS), seeds)
        members, shares = memberships(made, layout=self.model.layout, priors=self.encoder.priors(self.schema))
        kept = choose_rows(members, shares=shares, keep=size, generator=_generator(next(seeds)))
        frame = self.encoder.decode(made.values[kept].numpy(), made.codes[kept].numpy(), self.schema)
        # Rounded as it will be written, so that what is derived from and checked is what the file holds.
        return round_frame(derive(round_frame(frame, self.schema), self.schema), self.schema)

    def _sample(self, size: int, seeds: Iterator[int]) -> Generated:
        """Rows of the model. Each batch has a seed of its own: how many cores there are does not change a row."""
        sample = ddpm if self.sampler == "ddpm" else ddim
        levels = karras_levels(self.steps).to(self.device)
        self.model.eval()

        def draw(rows: int, seed: int) -> Generated:
            generator = _generator(seed, device=self.device)
            with torch.inference_mode():
                return sample(self.model, rows=rows, levels=levels, generator=generator)

        most, cores = (_BATCH, torch.get_num_threads()) if self.device == CPU else (_FRAME, 1)
        batches = [min(most, size - start) for start in range(0, size, most)]
        # A batch a core: the layers are too small to be worth dividing among cores.
        with single_threads(cores) as pool:
            parts = list(pool.map(draw, batches, (next(seeds) for _ in batches)))
        return Generated(
            values=torch.cat([part.values for part in parts]).cpu(),
            codes=torch.cat([part.codes for part in parts]).cpu(),
        )

    def _accepted(self, frame: pd.DataFrame) -> pd.DataFrame:
        for constraint in self.schema.constraints:
            frame = frame[~parse_expression(constraint.check).violated(frame)]
        return frame

    def _hardest(self, size: int, seeds: Iterator[int]) -> str:
        frame = self._draw(size, seeds)
        shares = {
            constraint.check: parse_expression(constraint.check).violated(frame).mean()
            for constraint in self.schema.constraints
        }
        worst = max(shares, key=lambda check: shares[check])
        return f"The hardest is {worst!r}, which {1 - shares[worst]:.2%} of rows satisfy."


def _seeds(seed: int) -> Iterator[int]:
    """Seeds without end, no two alike: PyTorch's generator takes 32 bits, too few to draw them at random."""
    first = int(torch.randint(2**32, (), generator=_generator(seed)))
    return (number % 2**32 for number in count(first))


def _generator(seed: int, *, device: torch.device = CPU) -> torch.Generator:
    return torch.Generator(device).manual_seed(seed)


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
    device: torch.device = CPU,
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
        device: Where the rows are drawn.

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
    return Synthesis(
        model=model.to(device),
        encoder=encoder,
        schema=schema,
        seed=seed,
        sampler=sampler,
        steps=steps,
        device=device,
    )
