"""From settings to the options of a run."""

from __future__ import annotations

from aevorium.planning import RunOptions
from aevorium.settings import Settings

__all__ = ["run_options"]


def run_options(
    settings: Settings,
    *,
    records: int | None,
    min_nodes: int | None = None,
    purpose: str = "synthetic data",
    dropouts: int = 0,
    colluding: int = 0,
    max_nodes_per_patient: int = 1,
    evaluation_share: float = 0.0,
) -> RunOptions:
    """What a run takes from the settings, and what only its command line says."""
    return RunOptions(
        epsilon=settings.epsilon,
        delta=settings.delta,
        recipe=settings.recipe,
        trust=settings.trust,
        dropouts=dropouts,
        colluding=colluding,
        max_nodes_per_patient=max_nodes_per_patient,
        rounds=settings.num_rounds,
        epochs=settings.training_epochs,
        batch_size=settings.batch_size,
        noise_multiplier=settings.dp_noise_multiplier,
        records=records,
        seed=settings.seed,
        device=settings.device,
        min_nodes=min_nodes,
        purpose=purpose,
        timeout=settings.timeout,
        evaluation_share=evaluation_share,
        pretraining_steps=settings.pretraining_steps,
    )
