"""`aevorium budget`: what nodes have spent, and what their stewards decide."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aevorium.cli.console import Console, console_of
from aevorium.cli.options import Home, WorkspaceFolder
from aevorium.errors import AevoriumError, ConfigError

if TYPE_CHECKING:
    from aevorium.cli.stewarded import StewardedNode

__all__ = ["app"]

app = typer.Typer(help="The privacy budget of the nodes, for their stewards.", no_args_is_help=True)

NodeName = Annotated[str, typer.Option("--node", help="The node.")]
PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", help="The policy file that the node is started with. Default: policy.toml in its home."),
]
PlanDigits = Annotated[str, typer.Argument(help="The plan: the first digits of its hash, six at least.")]


@app.command("show")
def show(
    context: typer.Context,
    workspace: WorkspaceFolder = None,
    node: Annotated[
        str | None, typer.Option("--node", help="The ledger of this node, release by release.", show_default=False)
    ] = None,
    home: Home = None,
) -> dict[str, object]:
    """Shows what each node of a workspace spent in its run, or all that one node ever spent."""
    from aevorium.cli.workspaces import existing_workspace
    from aevorium.settings import load_settings

    console = console_of(context)
    if node is not None:
        return _show_node(node, workspace=workspace, home=home, console=console)
    folder = existing_workspace(load_settings({"workspace": workspace}).values.workspace, console=console)
    from aevorium.cli.summaries import (
        spend_data,
        tell_privacy,
        tell_simulated,
        tell_spend,
        tell_unfinished,
        with_ledgers,
    )
    from aevorium.server.record import load_study

    record = with_ledgers(load_study(folder)[0], folder)
    tell_unfinished(record, console=console)
    tell_simulated(is_simulated=record.is_simulated_data, console=console)
    tell_spend(record, console=console)
    tell_privacy(record.plan, console=console)
    return {
        "status": record.status,
        "epsilon": record.plan.epsilon,
        "delta": record.plan.delta,
        "nodes": spend_data(record),
    }


def _show_node(name: str, *, workspace: Path | None, home: Path | None, console: Console) -> dict[str, object]:
    from aevorium.cli.summaries import node_budget, tell_budget
    from aevorium.cli.workspaces import home_of

    view = node_budget(home_of(name, workspace=workspace, home=home, console=console), name)
    tell_budget(view, console=console)
    return view.model_dump(mode="json")


@app.command("new-period")
def new_period(
    context: typer.Context,
    label: Annotated[str, typer.Argument(help="The new period, such as 2027. It was never used before.")],
    node: NodeName,
    policy: PolicyFile = None,
    workspace: WorkspaceFolder = None,
    home: Home = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> dict[str, object]:
    """Opens a new period at a node: its limit starts anew, and what was spent before is kept and shown for ever."""
    from aevorium.governance.periods import open_period

    console = console_of(context)
    stewarded = _stewarded(node, policy=policy, workspace=workspace, home=home, console=console)
    if not 0 < len(label) <= 64 or not label.isprintable():
        raise ConfigError("CONFIG_INVALID", f"The label {label!r} is not possible. It holds 1 to 64 printable letters.")
    before = stewarded.budget()
    _tell_new_period(label, stewarded, console=console)
    if not yes and console.is_json:
        raise ConfigError("CONFIG_INVALID", "--yes is missing. With --json, nobody can be asked.")
    if not yes and not typer.confirm(f"Open the period {label!r}?", err=True):
        raise AevoriumError("RUN_INTERRUPTED", "Nothing was changed. You said no.", hint="Type the command again.")
    open_period(label, file=stewarded.policy_file, steward=stewarded.steward, ledger=stewarded.ledger)
    view = stewarded.write_views()
    console.say(f"Period {label!r} is open, signed in the audit log. A running node takes it with the next plan.")
    return {"node": node, "period": label, "before": before.period, "budget": view.model_dump(mode="json")}


def _tell_new_period(label: str, stewarded: StewardedNode, *, console: Console) -> None:
    from aevorium.cli.progress_view import number

    view, limit = stewarded.budget(), stewarded.policy().budget
    console.say(f"Node {stewarded.name}: period {view.period!r} ends with ε = {number(view.spent)}; {label!r} begins.")
    for line in (
        f"The limit starts anew: ε = {number(limit.max_epsilon)} at δ = {limit.max_delta:g} for runs from now on.",
        f"The lifetime total goes on: ε = {number(view.lifetime)} so far. Nothing is erased, and it never falls.",
        "The same patients' earlier releases add up with the new ones: a new period makes nobody more private.",
        f"The label {view.period!r} cannot be used again. Runs that go on stay charged to it.",
    ):
        console.say(f"  - {line}")


@app.command("set-limit")
def set_limit(
    context: typer.Context,
    epsilon: Annotated[float, typer.Option("--epsilon", help="Largest ε of the open period; 'inf' sets no limit.")],
    node: NodeName,
    delta: Annotated[
        float | None, typer.Option("--delta", help="The δ at which it holds. Default: as it is.", show_default=False)
    ] = None,
    policy: PolicyFile = None,
    workspace: WorkspaceFolder = None,
    home: Home = None,
) -> dict[str, object]:
    """Sets the limit of the open period of a node. It may be below what is spent: then nothing more fits."""
    from aevorium.cli.progress_view import number
    from aevorium.governance import periods
    from aevorium.governance.policy import new_limit

    console = console_of(context)
    stewarded = _stewarded(node, policy=policy, workspace=workspace, home=home, console=console)
    budget = new_limit(stewarded.policy().budget, epsilon=epsilon, delta=delta)
    periods.set_limit(budget, file=stewarded.policy_file, steward=stewarded.steward, ledger=stewarded.ledger, node=node)
    view = stewarded.write_views()
    console.say(
        f"The limit of period {view.period!r} is ε = {number(view.max_epsilon)} at δ = {view.max_delta:g}, signed in "
        f"the audit log. Committed: ε = {number(view.committed)}, left {number(view.left)}."
    )
    if view.committed > view.max_epsilon:
        console.warn("That is less than what is committed: nothing more fits, and runs that go on stop.")
    return {"node": node, "budget": view.model_dump(mode="json")}


@app.command("requests")
def requests(
    context: typer.Context, node: NodeName, workspace: WorkspaceFolder = None, home: Home = None
) -> dict[str, object]:
    """Lists the plans that wait for a node's steward (policy: consent = "ask")."""
    from aevorium.cli.progress_view import number

    console = console_of(context)
    pending = _stewarded(node, workspace=workspace, home=home, console=console).desk.pending()
    rows = [
        (
            plan.plan_hash[:12],
            each.state,
            each.request.asked_at[:19],
            plan.study,
            plan.purpose,
            plan.server[:16],
            number(plan.epsilon),
            f"{plan.delta:g}",
        )
        for each in pending
        for plan in [each.request.plan]
    ]
    headings = ("plan", "state", "asked (UTC)", "study", "purpose", "server", "ε", "δ")
    if rows:
        console.table(headings, rows, numbers=("ε", "δ"))
    waiting = sum(each.state == "waiting" for each in pending)
    console.say(f"{waiting} waiting. To answer: aevorium budget agree PLAN --node {node}, or decline.")
    found = [each.request.model_dump(mode="json") | {"state": each.state} for each in pending]
    return {"node": node, "requests": found}


@app.command("agree")
def agree(
    context: typer.Context, plan: PlanDigits, node: NodeName, workspace: WorkspaceFolder = None, home: Home = None
) -> dict[str, object]:
    """Agrees to a plan that waits for the steward: for one run of it, now or later."""
    return _decide(context, plan, action="consent_given", node=node, workspace=workspace, home=home)


@app.command("decline")
def decline(
    context: typer.Context, plan: PlanDigits, node: NodeName, workspace: WorkspaceFolder = None, home: Home = None
) -> dict[str, object]:
    """Declines a plan that waits for the steward; it stays declined until they agree after all."""
    return _decide(context, plan, action="consent_refused", node=node, workspace=workspace, home=home)


def _decide(
    context: typer.Context,
    digits: str,
    *,
    action: Literal["consent_given", "consent_refused"],
    node: str,
    workspace: Path | None,
    home: Path | None,
) -> dict[str, object]:
    from aevorium.cli.progress_view import number

    console = console_of(context)
    desk = _stewarded(node, workspace=workspace, home=home, console=console).desk
    request = desk.find(digits)
    desk.decide(request, action=action)
    plan = request.plan
    word = "Agreed" if action == "consent_given" else "Declined"
    console.say(
        f"{word}, signed in the audit log: plan {plan.plan_hash[:12]}, study {plan.study!r}, "
        f"ε = {number(plan.epsilon)}."
    )
    if action == "consent_given" and datetime.now().timestamp() > request.until:
        console.say("The server no longer waits for it: the next run of the same plan passes at once.")
    return {"node": node, "plan": plan.plan_hash, "decision": action}


def _stewarded(
    node: str, *, workspace: Path | None, home: Path | None, console: Console, policy: Path | None = None
) -> StewardedNode:
    from aevorium.cli.stewarded import StewardedNode
    from aevorium.cli.workspaces import home_of

    return StewardedNode(home_of(node, workspace=workspace, home=home, console=console), name=node, policy=policy)
