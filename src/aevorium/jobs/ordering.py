"""Ordering a run: what is checked before it stands in the queue, and what of it the server's log keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aevorium.errors import BudgetExceeded
from aevorium.governance.chain import AuditChain, plain
from aevorium.governance.planning import PlanningPeriod
from aevorium.jobs.orders import Choices, RunOrder, schema_of
from aevorium.planning import node_names, plan_study
from aevorium.settings import Settings
from aevorium.state.jobs import Job, JobStore

__all__ = ["ordered_in", "prepare_run", "submit_run"]


def prepare_run(
    schema_text: str | None, choices: Choices, *, study: str | None = None, settings: Settings, nodes: Sequence[str]
) -> RunOrder:
    """An order that can be planned; whether nodes agree is asked when its turn comes. Reads no record.

    Args:
        schema_text: The schema as TOML; None takes that of Synthea exports.
        choices: What was chosen.
        study: Id of the study that it is a run of.
        settings: Say what was not chosen.
        nodes: Names of the nodes, if they are known.

    Raises:
        SchemaError: SCHEMA_INVALID.
        ConfigError: CONFIG_INVALID or CONFIG_CONFLICT.
        PolicyRefused: AGGREGATION_TOO_FEW_NODES.
    """
    schema, text = schema_of(schema_text)
    plan = plan_study(schema, nodes or node_names(settings.min_nodes), choices.options(settings))
    epsilon = plan.epsilon if plan.is_private else None
    return RunOrder(schema_text=text, choices=choices, study=study, epsilon=epsilon)


def submit_run(
    order: RunOrder, *, jobs: JobStore, chain: AuditChain, actor: str, idempotency_key: str | None = None
) -> Job:
    """Puts a run into the queue, unless this actor has already ordered it with this key.

    Args:
        order: What is ordered.
        jobs: The queue.
        chain: The server's log, which says what may be ordered, and is told.
        actor: Who orders.
        idempotency_key: Names the order for good.

    Raises:
        BudgetExceeded: PLANNING_LIMIT_EXCEEDED.
        ConfigError: IDEMPOTENCY_KEY_REUSED.
        AevoriumError: QUEUE_FULL.
    """
    request = order.model_dump(mode="json")
    if idempotency_key is not None:
        earlier = jobs.ordered("train", request, actor=actor, idempotency_key=idempotency_key)
        if earlier is not None:
            return earlier
    period = PlanningPeriod.of(chain)
    wanted = {"study": order.study, "epsilon": plain(order.epsilon or math.inf)}
    try:
        period.require(ordered_in(period, jobs=jobs), more=math.inf if order.epsilon is None else order.epsilon)
    except BudgetExceeded as error:
        chain.append(actor=actor, action="order_refused", detail={**wanted, "code": error.code})
        raise

    def note(job: Job) -> None:
        chain.append(actor=actor, action="run_ordered", detail={"job": job.id, **wanted})

    job, _ = jobs.submit("train", request, actor=actor, idempotency_key=idempotency_key, note=note)
    return job


def ordered_in(period: PlanningPeriod, *, jobs: JobStore) -> float:
    """ε of all runs ordered in a period: the sum of their targets, whatever nodes then spent of them.

    Runs that were stopped while they waited count nothing.

    Args:
        period: The period.
        jobs: The queue.
    """
    counted = (
        job
        for job in jobs.since(period.opened_at, kind="train")
        if job.state != "stopped" or job.started_at is not None
    )
    targets = (job.request["epsilon"] for job in counted)
    return math.fsum(math.inf if target is None else float(target) for target in targets)
