"""The privacy statement on one page, as Markdown, for a data-protection officer. Safe to release."""

from __future__ import annotations

import math

from aevorium.server.attack_terms import AttackTerms
from aevorium.server.statement_form import MechanismRow, NodeRow, PrivacyStatement

__all__ = ["statement_page"]


def statement_page(statement: PrivacyStatement) -> str:
    """The page. It says what the statement says, and nothing else."""
    parts = [
        f"# Privacy statement: {statement.study}",
        *(f"> {warning}" for warning in statement.warnings),
        *_claim(statement),
    ]
    if statement.attack is not None:
        parts += _attack(statement.attack, unit=statement.unit, is_summed=statement.trust == "secure-aggregation")
    if statement.mechanisms:
        parts += ["## Mechanisms", _mechanisms(statement), _lines(_rules(statement))]
    parts += ["## Assumptions", _lines(statement.assumptions)]
    parts += ["## Not charged, and why", _lines(statement.uncharged)]
    parts += ["## Provenance", _lines(_provenance(statement))]
    return "\n\n".join(parts) + "\n"


def _claim(statement: PrivacyStatement) -> list[str]:
    views = ["| who looks | ε | δ | why |", "|---|---|---|---|"]
    views += [f"| {row.viewer} | {_number(row.epsilon)} | {row.delta:g} | {row.why} |" for row in statement.views]
    together = statement.federation
    return [
        "## Claim",
        f"{statement.subject}, together, is (ε, δ)-differentially private for one {statement.unit}"
        f" ({statement.adjacency}) with **ε = {_number(statement.epsilon)}, δ = {statement.delta:g}**. This covers"
        f" {statement.covers}.",
        "\n".join(views),
        f"Over the federation: {together.rule}. Claim {_number(together.epsilon)}, released"
        f" {_number(together.released)}.",
        _nodes(statement.nodes),
        "Limit and left count all runs of the node's budget period, by rules that hold whichever runs come later.",
    ]


def _nodes(nodes: tuple[NodeRow, ...]) -> str:
    groups: dict[tuple[str, str, str], list[str]] = {}
    for node in nodes:
        told = (_number(node.released), _known(node.limit), _known(node.left))
        groups.setdefault(told, []).append(node.name)
    rows = ["| node | ε of what it released | limit | left |", "|---|---|---|---|"]
    return "\n".join([*rows, *(f"| {', '.join(names)} | {' | '.join(told)} |" for told, names in groups.items())])


def _attack(terms: AttackTerms, *, unit: str, is_summed: bool) -> list[str]:
    priors = [bound.prior for bound in terms.tests[0].precision]
    heads = "".join(f" right at most, if {_percent(prior)} took part |" for prior in priors)
    rows = [f"| flags wrongly | finds at most |{heads}", f"|---|---|{'---|' * len(priors)}"]
    rows += [
        f"| {_percent(test.false_positive_rate)} of others | {_percent(test.true_positive_rate)} of participants |"
        + "".join(f" {_percent(bound.at_most)} |" for bound in test.precision)
        for test in terms.tests
    ]
    after = "; ".join(f"{_percent(bound.prior)} → {_percent(bound.at_most)}" for bound in terms.posterior)
    exception = " and the nodes' noise" if is_summed else ""
    return [
        "## What an attacker can do, at the most",
        f"One who knows everything but whether one {unit} took part{exception}, with a test that flags at least so many"
        " others:",
        "\n".join(rows),
        f"How likely participation was before, and is at most after everything was seen: {after}; but for outputs"
        f" that come up with probability {_percent(terms.exception)}. Computed from {terms.basis}.",
    ]


def _mechanisms(statement: PrivacyStatement) -> str:
    everyone = {node.name for node in statement.nodes}
    rows = ["| phase | mechanism | parameters | nodes |", "|---|---|---|---|"]
    rows += [
        f"| {row.phase} | {row.mechanism} | {row.parameters} | {_names(row, everyone)} |"
        for row in statement.mechanisms
    ]
    return "\n".join(rows)


def _names(row: MechanismRow, everyone: set[str]) -> str:
    return "all" if set(row.nodes) == everyone else ", ".join(row.nodes)


def _rules(statement: PrivacyStatement) -> list[str]:
    return [*statement.sensitivity, f"Sampling: {statement.sampling}.", f"Composition: {statement.composition}."]


def _provenance(statement: PrivacyStatement) -> list[str]:
    hashes, ended = statement.hashes, statement.finished_at or "not finished"
    return [
        f"Run `{statement.run_id}`, {statement.started_at} to {ended}, recipe {statement.recipe}, purpose:"
        f" {statement.purpose}",
        f"Schema `{hashes.schema_}`",
        f"Plan `{hashes.plan}`",
        *(f"Code of the nodes `{code}`" for code in sorted(set(hashes.code.values()))),
        f"Audit log, head `{hashes.audit_head}`",
        "Software: " + ", ".join(f"{name} {version}" for name, version in statement.software.items()),
        "The same for programs: `privacy_statement.json`. `aevorium audit verify` computes both anew from the ledgers.",
    ]


def _lines(texts: tuple[str, ...] | list[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def _number(value: float) -> str:
    """An ε as it is: never rounded down."""
    return "∞" if math.isinf(value) else f"{value:.12g}"


def _known(value: float | None) -> str:
    return "?" if value is None else _number(value)


def _percent(share: float) -> str:
    """A share that was rounded up already, with all its digits."""
    return f"{100 * share:.6g}%"
