"""Plans that wait for a node's steward, where the policy says `consent = "ask"`.

What is asked lies in a file of the node's home, so that it outlives the node's process; what the steward decided is a
signed statement in the chain (`steward`), found by whoever waits. A plan is known by its content hash and the server
that asks, so the same plan of a later run is the same question:

- consent is good for one run. Another run of the same plan costs budget again, and is asked again; a run that ended
  before it released anything, because another node refused it, does not use consent up;
- a refusal stands until the steward agrees after all: a server gains nothing by asking often.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aevorium.errors import ConfigError, PolicyRefused
from aevorium.governance.steward import Statement, StatementAction, Steward, statements_of
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import PrivacyEvent
from aevorium.privacy.ledger import BudgetLedger
from aevorium.workspace import write_atomically

__all__ = [
    "ConsentDesk",
    "ConsentRequest",
    "ConsentState",
    "Pending",
    "PlanFacts",
    "ReleaseCost",
    "release_costs",
]

ConsentState = Literal["waiting", "lapsed", "agreed", "declined"]
"""A node waits for the answer; nobody waits any more; the next run of this plan passes; it is refused."""

_LOOK = 0.3
"""Seconds between two looks for the steward's decision."""

_HEAD_START = 2.0
"""Seconds before the server gives up at which a node stops waiting, so that its refusal still arrives."""

_SHORTEST = 6
"""Digits of a plan's hash that a steward has to type, at least."""


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class ReleaseCost(_Entry):
    """What one kind of release of a plan costs by itself."""

    purpose: str = Field(description="What is released.")
    epsilon: float = Field(description="ε of it alone at the plan's δ; all together cost less than the sum.")


class PlanFacts(_Entry):
    """What a steward is told of a plan. Public facts only."""

    plan_hash: str = Field(pattern=r"^[0-9a-f]{64}$", description="Content hash of the plan.")
    run_id: str = Field(description="The run that asked last.")
    server: str = Field(description="Identity of the server.")
    study: str = Field(description="Name of the study's schema.")
    purpose: str = Field(description="What the result is for.")
    recipe: str = Field(description="How the model is trained.")
    trust: str = Field(description="Who may see what the node sends.")
    epsilon: float = Field(description="ε of the whole run.")
    delta: float = Field(description="δ of the whole run.")
    costs: tuple[ReleaseCost, ...] = Field(description="What the plan announces, one kind after the other.")


class ConsentRequest(_Entry):
    """A plan that was put before the steward."""

    schema_version: int = 1
    plan: PlanFacts = Field(description="The plan.")
    asked_at: str = Field(description="When it was asked last: UTC, ISO 8601.")
    until: float = Field(description="When the server stops waiting: seconds since 1970.")


@dataclass(frozen=True)
class Pending:
    """A request and what became of it.

    Attributes:
        request: The request.
        state: Whether it is still to be decided.
    """

    request: ConsentRequest
    state: ConsentState


def release_costs(events: Sequence[PrivacyEvent] | None, *, delta: float) -> tuple[ReleaseCost, ...]:
    """What a plan's events cost, by their purpose, in the order in which they come. Takes about a second."""
    listed = tuple(events or ())
    purposes = dict.fromkeys(event.purpose for event in listed)
    groups = {purpose: [event for event in listed if event.purpose == purpose] for purpose in purposes}
    return tuple(ReleaseCost(purpose=purpose, epsilon=epsilon(group, delta=delta)) for purpose, group in groups.items())


class ConsentDesk:
    """Where plans wait for a steward.

    Args:
        folder: The node's home.
        steward: Signs decisions.
        ledger: Says which runs used consent up.
        now: The clock: seconds since 1970.
    """

    def __init__(
        self, folder: Path, *, steward: Steward, ledger: BudgetLedger, now: Callable[[], float] = time.time
    ) -> None:
        self._folder = folder / "requests"
        self._steward = steward
        self._ledger = ledger
        self._now = now

    def await_decision(
        self,
        plan: PlanFacts,
        *,
        until: float,
        tell: Callable[[ConsentRequest], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Returns once the steward agrees: at once if they did before. Holds no lock while it waits.

        Args:
            plan: The plan.
            until: When the server stops waiting: seconds since 1970.
            tell: Tells the steward what is asked, if they have to decide.
            sleep: Waits.

        Raises:
            PolicyRefused: POLICY_CONSENT_REFUSED, POLICY_CONSENT_AWAITED.
            ConfigError: WORKSPACE_UNWRITABLE.
        """
        decision = self._decision(plan)
        if decision is None:
            asked_at = datetime.fromtimestamp(self._now(), UTC).isoformat(timespec="milliseconds")
            request = ConsentRequest(plan=plan, asked_at=asked_at, until=until)
            self._write(request)
            tell(request)
        while decision is None and self._now() < until - _HEAD_START:
            sleep(_LOOK)
            decision = self._decision(plan)
        if decision == "consent_given":
            self._path(plan.plan_hash).unlink(missing_ok=True)
            return
        short = plan.plan_hash[:12]
        if decision == "consent_refused":
            raise PolicyRefused(
                "POLICY_CONSENT_REFUSED", f"Run {plan.run_id!r} refused. The node's steward declined its plan {short}."
            )
        raise PolicyRefused(
            "POLICY_CONSENT_AWAITED",
            f"Run {plan.run_id!r} refused. The node's steward was asked and did not decide on plan {short} in time.",
        )

    def pending(self) -> tuple[Pending, ...]:
        """What was asked and is not over, the latest first."""
        requests = [request for path in self._folder.glob("*.json") if (request := _read(path)) is not None]
        requests.sort(key=lambda request: request.asked_at, reverse=True)
        return tuple(Pending(request, self._state(request)) for request in requests)

    def find(self, prefix: str) -> ConsentRequest:
        """The request for a plan, by the first digits of its hash.

        Raises:
            ConfigError: CONSENT_UNKNOWN, if none or several begin so.
        """
        found = [each.request for each in self.pending() if each.request.plan.plan_hash.startswith(prefix.lower())]
        if len(prefix) < _SHORTEST or len(found) != 1:
            reason = "Give six digits at least" if len(prefix) < _SHORTEST else f"{len(found)} plans begin so"
            raise ConfigError("CONSENT_UNKNOWN", f"No decision on a plan {prefix!r} is possible. {reason}.")
        return found[0]

    def decide(self, request: ConsentRequest, *, action: Literal["consent_given", "consent_refused"]) -> Statement:
        """Signs the steward's decision; whoever waits for it goes on within a second.

        Raises:
            ArtefactError: KEY_INVALID or STEWARD_KEY_WRONG.
        """
        facts = request.plan.model_dump(mode="json", exclude={"costs"})
        with self._steward.speaking():
            return self._steward.state(action, facts)

    def _state(self, request: ConsentRequest) -> ConsentState:
        decision = self._decision(request.plan)
        if decision is not None:
            return "agreed" if decision == "consent_given" else "declined"
        return "waiting" if self._now() < request.until - _HEAD_START else "lapsed"

    def _decision(self, plan: PlanFacts) -> StatementAction | None:
        """The last decision on a plan of a server, if it stands and is not used up."""
        said = [
            statement
            for statement in statements_of(self._steward.chain, "consent_given", "consent_refused")
            if (statement.content.get("plan_hash"), statement.content.get("server")) == (plan.plan_hash, plan.server)
        ]
        if not said:
            return None
        if said[-1].action == "consent_refused":
            return "consent_refused"
        return None if self._is_used(plan.plan_hash, since=said[-1].time) else "consent_given"

    def _is_used(self, plan_hash: str, *, since: str) -> bool:
        """Whether a run of the plan was agreed after consent was given and may have released something."""
        runs = (run for period in self._ledger.periods() for run in self._ledger.runs(period).values())
        return any(
            run.plan_hash == plan_hash and run.agreed_at >= since and (run.releases or run.closed_at is None)
            for run in runs
        )

    def _path(self, plan_hash: str) -> Path:
        return self._folder / f"{plan_hash}.json"

    def _write(self, request: ConsentRequest) -> None:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with write_atomically(self._path(request.plan.plan_hash), mode=0o600) as path:
            path.write_text(request.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _read(path: Path) -> ConsentRequest | None:
    """A request; None for a file that is none, such as one that was taken away this moment."""
    try:
        return ConsentRequest.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
