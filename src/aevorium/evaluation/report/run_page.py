"""The page of a run's own report: charged numbers only. Safe to release."""

from __future__ import annotations

from aevorium.evaluation.comparison import TableDistance
from aevorium.evaluation.report import charts
from aevorium.evaluation.report.model import NodeSpend, RoundFacts, RunReport
from aevorium.evaluation.report.view import (
    Card,
    Chart,
    Page,
    Section,
    Table,
    about_study,
    format_epsilon,
    overlay_charts,
    plural,
    score_card,
    score_groups,
    study_banners,
)
from aevorium.evaluation.score import percent

__all__ = ["run_page"]

_MOST_PAIRS = 50
"""The farthest pairs of columns are shown; `report.json` has all of them."""

_NOT_FOR = (
    "Decisions about any single person, or statements on one: no synthetic row is a patient.",
    "Rare groups and extreme values: a count below the noise band of its column is noise, not a finding.",
    "Conclusions that someone acts on or publishes: confirm each on real records, at the nodes.",
    "Confidence intervals and p-values as they come: synthetic rows know nothing of the noise that made them, so both "
    "are too narrow.",
    "A claim of privacy beyond ε: a further run on the same patients spends further budget, and each node's ledger "
    "keeps the total.",
)


def run_page(report: RunReport) -> Page:
    """Lays the report out."""
    study = report.study
    told = " Every number here was charged to a privacy budget, or computed from such numbers."
    charged = told if study.is_private else ""
    return Page(
        title=study.name,
        subtitle=f"A synthetic table from {plural(len(report.nodes), 'node')}, recipe {study.recipe}.{charged}",
        kind="Run report",
        created=study.created,
        version=study.version,
        marking="",
        banners=study_banners(study),
        cards=_cards(report),
        sections=tuple(section for section in _sections(report) if section is not None),
    )


def _cards(report: RunReport) -> tuple[Card, ...]:
    study = report.study
    limit = f"of {format_epsilon(study.epsilon)}, δ = {study.delta:g}, per {study.unit}"
    cards = [
        Card(
            "Privacy spent, ε", format_epsilon(report.epsilon), limit if study.is_private else "no limit", "", "privacy"
        ),
        Card("Synthetic rows", f"{study.synthetic_rows:,}", "compared in this report", "", "study"),
        Card("Nodes", f"{len(report.nodes)}", f"trust: {study.trust}", "", "privacy"),
    ]
    if report.rounds:
        seconds = sum(one.seconds for one in report.rounds)
        cards.append(Card("Rounds", f"{len(report.rounds)}", f"{seconds:,.0f} s of training", "", "training"))
    labels = {
        "released_1way": "Columns, mean",
        "released_worst": "Columns, worst",
        "evaluation_1way": "Evaluation, columns",
        "evaluation_2way": "Evaluation, pairs",
    }
    cards += [score_card(score, label=labels[score.name]) for score in report.card.scores if score.name in labels]
    return tuple(cards)


def _sections(report: RunReport) -> list[Section | None]:
    study, card = report.study, report.card
    scores = Section(
        "scores",
        "Scores",
        f"Compared with {card.compared_with}. Each score stands beside its reference, and the verdict follows.",
        scores=score_groups(card),
        points=card.notes,
    )
    not_for = Section("limits", "What not to use it for", points=(*_NOT_FOR, *study.limits))
    parts = [_privacy(report), _training(report), _columns(report), _pairs(report), _evaluation(report)]
    return [scores, *parts, not_for, about_study(study)]


def _privacy(report: RunReport) -> Section:
    study, nodes = report.study, report.nodes
    tables = [_phase_table(nodes)] if any(node.phases for node in nodes) else []
    if not study.is_private or not nodes:
        lead = "This run had no privacy budget: what left the nodes is not protected."
        return Section("privacy", "Privacy", lead, tables=(_node_table(nodes), *tables))
    lead = (
        f"ε bounds what anyone can learn about one {study.unit} from everything that left the nodes, taken together. "
        f"The nodes hold different {study.unit}s, so the federation's ε is the highest of the nodes, not their sum."
    ) + (" The claim rests on this:" if study.assumptions else "")
    worst = max(nodes, key=lambda node: node.epsilon)
    chart = Chart(
        "epsilon-nodes",
        "ε by node",
        f"The highest is {worst.node} with ε = {worst.epsilon:.3f}; the target was {study.epsilon:g}.",
        charts.epsilon_by_node(nodes, target=study.epsilon),
        _node_table(nodes),
        size="large",
    )
    return Section("privacy", "Privacy", lead, points=study.assumptions, charts=(chart,), tables=tuple(tables))


def _node_table(nodes: tuple[NodeSpend, ...]) -> Table:
    rows = tuple(
        (
            node.node,
            format_epsilon(node.epsilon),
            "–" if node.limit is None else format_epsilon(node.limit),
            "–" if node.records is None else f"{node.records:,.0f}",
        )
        for node in nodes
    )
    return Table("Spend by node", ("node", "ε of this study", "limit of its policy", "records (noisy)"), rows)


def _phase_table(nodes: tuple[NodeSpend, ...]) -> Table:
    phases = tuple(dict.fromkeys(spend.phase for node in nodes for spend in node.phases))
    rows = []
    for node in nodes:
        cells = dict.fromkeys(phases, "–")
        for spend in node.phases:
            cells[spend.phase] = f"{format_epsilon(spend.epsilon)} ({plural(spend.releases, 'release')})"
        rows.append((node.node, *cells.values(), format_epsilon(node.epsilon)))
    caption = "ε of each phase alone, as planned for the node's size; together they compose to less than their sum"
    return Table(caption, ("node", *phases, "together"), tuple(rows))


def _training(report: RunReport) -> Section | None:
    rounds = report.rounds
    if not rounds:
        return None
    table = _round_table(rounds)
    shown = []
    if report.study.is_private:
        summary = f"After round {rounds[-1].number} the highest ε of any node is {rounds[-1].epsilon:.3f}."
        figure = charts.epsilon_by_round(rounds, target=report.study.epsilon)
        shown.append(Chart("epsilon-rounds", "ε over rounds", summary, figure, table, "medium"))
    paid = [one for one in rounds if one.loss is not None]
    if paid:
        summary = (
            f"The noisy loss is {paid[0].loss:.3f} in round {paid[0].number} and {paid[-1].loss:.3f} in round "
            f"{paid[-1].number}; each was paid for."
        )
        shown.append(Chart("loss-rounds", "Loss over rounds", summary, charts.loss_by_round(paid), table, "medium"))
    lead = "A round is one or more exchanges with the nodes and one checkpoint."
    return Section("training", "Private training", lead, charts=tuple(shown), tables=() if shown else (table,))


def _round_table(rounds: tuple[RoundFacts, ...]) -> Table:
    rows = tuple(
        (
            str(one.number),
            f"{one.nodes_replied} of {one.nodes_asked}",
            "–" if one.loss is None else f"{one.loss:.4f}",
            format_epsilon(one.epsilon),
            f"{one.seconds:.1f}",
        )
        for one in rounds
    )
    return Table("Rounds", ("round", "nodes", "loss (noisy)", "ε so far", "seconds"), rows)


def _columns(report: RunReport) -> Section | None:
    if not report.overlays:
        return None
    lead = (
        "What the nodes released (filled, with the 95% band of its noise) and the synthetic table (line or diamonds). "
        "Where the two differ by less than the band, nothing can be said."
    )
    return Section("columns", "Columns", lead, charts=overlay_charts(report.overlays, reference_name="released"))


def _evaluation(report: RunReport) -> Section | None:
    compared = report.comparison
    if compared is None:
        return None
    lead = (
        f"Noisy tables of {compared.subject} against the synthetic table. Noise alone makes a distance, so it is taken "
        "off cell by cell; a difference in a cell that noise hides is told too small."
    )
    if not compared.columns:
        lead = f"Noise outweighs the counts of {compared.subject}: nothing can be said."
    tables = tuple(
        _distance_table(caption, distances)
        for caption, distances in (("Single columns", compared.columns), ("Pairs of columns", compared.pairs))
        if distances
    )
    return Section("evaluation", f"Evaluation: {compared.subject}", lead, tables=tables)


def _pairs(report: RunReport) -> Section | None:
    if not report.pairs:
        return None
    lead = (
        "Noisy tables of two columns that the model was made from, against the synthetic table: whether it kept what "
        "it was given. Noise is taken off cell by cell; a difference in a cell that noise hides is told too small."
    )
    farthest = sorted(report.pairs, key=lambda distance: -distance.corrected)[:_MOST_PAIRS]
    caption = "Pairs of columns" if len(farthest) == len(report.pairs) else "Pairs of columns, the farthest"
    return Section("pairs", "Pairs", lead, tables=(_distance_table(caption, tuple(farthest)),))


def _distance_table(caption: str, distances: tuple[TableDistance, ...]) -> Table:
    rows = tuple(
        (
            " and ".join(distance.columns),
            str(distance.cells),
            percent(max(0.0, distance.corrected)),
            f"± {percent(1.96 * distance.deviation)}",
            percent(distance.measured),
            percent(distance.noise),
        )
        for distance in distances
    )
    return Table(caption, ("table", "cells", "distance", "95%", "with noise", "noise alone"), rows)
