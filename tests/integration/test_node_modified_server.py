"""What a modified server may try at a node: all of it is refused with a code, written down, and costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict

from aevorium.diffusion.denoiser import DenoiserConfig, TabularDiffusion, to_vector
from aevorium.diffusion.layout import Layout
from aevorium.encoding.associations import TableDesign
from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.grid import table_grids
from aevorium.encoding.statistics import TableStatistics
from aevorium.encoding.steps import Step
from aevorium.federation.flower_internals.messages import assume_identity, through_the_wire
from aevorium.federation.protocol import (
    ASSOCIATIONS,
    COUNT,
    EVALUATION,
    FINISH,
    GRADIENT,
    LOSS,
    PLAN,
    STATISTICS,
    TRAIN,
    AssociationsRequest,
    CountRequest,
    EvaluationRequest,
    FinishRequest,
    GradientRequest,
    LossRequest,
    PlanRequest,
    StatisticsRequest,
    TrainingSettings,
    TrainRequest,
    error_code,
    pack,
    read_array,
)
from aevorium.governance.chain import AuditChain
from aevorium.governance.policy import NodePolicy
from aevorium.node.app import create_client_app
from aevorium.node.session import NodeConfig, NodeSession
from aevorium.planning import RunOptions, plan_study
from aevorium.privacy.ledger import SqliteLedger
from aevorium.privacy.mechanisms import OsNoise
from aevorium.privacy.phases import plan_budget
from aevorium.privacy.plan import StudyPlan
from aevorium.progress import ignore
from aevorium.schema.table import TableSchema

SCHEMA = 'name = "clinic"\n' + "".join(
    f'[columns.c{place}]\nkind = "categorical"\ncategories = ["a", "b", "c"]\n' for place in range(6)
)
BINS, RECORDS = 24, 200.0
# The count's noise has a scale of 40: that of 2000 records is below the policy's 20 once in 10^21 runs.
OPTIONS = RunOptions(epsilon=0.5, rounds=2, records=200, epochs=1, batch_size=64)
REFUSED = {"plan_refused", "release_refused", "request_refused", "events_refused"}


@dataclass
class Node:
    """A node's app with its state on disk, and the requests of the study that it is asked to take part in."""

    folder: Path
    policy: NodePolicy = field(default_factory=NodePolicy)
    server: str | None = None
    evaluation_share: float = 0.0
    trains: bool = True

    def __post_init__(self) -> None:
        assume_identity(1)
        text = SCHEMA.replace("\n", '\nunit_id = "id"\n', 1) if self.evaluation_share else SCHEMA
        self.schema = TableSchema.from_toml(text, source="test")
        options = replace(OPTIONS, evaluation_share=self.evaluation_share)
        self.plan = plan_study(
            self.schema, ["a"], options if self.trains else replace(options, epochs=None, batch_size=None)
        )
        table = self.folder / "a.csv"
        rng = np.random.default_rng(0)
        pd.DataFrame(rng.choice(["a", "b", "c"], (2000, 6)), columns=list(self.schema.measured)).to_csv(
            table, index_label="id"
        )
        config = NodeConfig(name="a", data=table, schema=self.schema, home=self.folder / "home", policy=self.policy)
        self.session = NodeSession(config, noise=OsNoise(), report=ignore)
        if self.server is not None:
            self.session.connect(self.server)
        self._app = create_client_app({"a": self.session})
        self._context = Context(run_id=1, node_id=7, node_config={"name": "a"}, state=RecordDict(), run_config={})
        self.ledger = SqliteLedger(self.folder / "home" / "ledger.db")
        self.chain = AuditChain(self.folder / "home" / "audit.db")

    def send(self, kind: str, content: RecordDict, *, ttl: float = 60.0) -> Message:
        message = Message(content, dst_node_id=7, message_type=kind, ttl=ttl)
        return through_the_wire(self._app(through_the_wire(message), self._context))

    def ask(self, kind: str, body: object, array: np.ndarray | None = None) -> Message:
        return self.send(kind, pack(body, array))

    @property
    def run(self) -> dict[str, str]:
        return {"run_id": "r1", "plan_hash": self.plan.content_hash}

    def plan_request(self, plan: StudyPlan | None = None, *, run_id: str = "r1", server: str = "s") -> PlanRequest:
        return PlanRequest(run_id=run_id, server=server, plan=plan or self.plan)

    def statistics_request(self, **changes: object) -> StatisticsRequest:
        return StatisticsRequest.model_validate({**self.run, "bins": BINS, "records": RECORDS, **changes})

    def design(self, pairs: int, *, first: int = 0) -> TableDesign:
        grids = table_grids(self.schema, bins=BINS)
        names = list(grids)
        everything = [(one, two) for place, one in enumerate(names) for two in names[place + 1 :]]
        cells = {name: tuple(range(grid.cells)) for name, grid in grids.items()}
        return TableDesign(cells=cells, pairs=tuple(everything[first : first + pairs]))

    def tables_request(self, stage: str, design: TableDesign) -> AssociationsRequest:
        return AssociationsRequest.model_validate({**self.run, "stage": stage, "design": design})

    def evaluation_request(self, *, first: int = 0, pairs: int | None = None, **changes: object) -> EvaluationRequest:
        planned = plan_budget(self.plan, records=RECORDS).evaluation.pairs
        design = self.design(planned if pairs is None else pairs, first=first)
        return EvaluationRequest.model_validate({**self.run, "design": design, **changes})

    @cached_property
    def tables(self) -> tuple[int, int]:
        """How many coarse and fine tables the plan holds."""
        schedule = plan_budget(self.plan, records=RECORDS).associations
        assert schedule.candidates > schedule.pairs > 1
        return schedule.candidates, schedule.pairs

    @cached_property
    def encoder(self) -> TableEncoder:
        """Fitted to the node's noisy histograms, which it sends again for it."""
        values = np.asarray(read_array(self.ask(STATISTICS, self.statistics_request()), np.int64), dtype=np.int64)
        statistics = TableStatistics.from_sum(values, self.schema, bins=BINS, noise=1.0)
        return TableEncoder.fit(statistics, self.schema, total=RECORDS)

    def training_request(self, number: int, **changes: object) -> TrainRequest:
        layout = Layout.for_table(self.encoder, self.schema)
        body = {
            **self.run,
            "round": number,
            "encoder": self.encoder,
            "model": DenoiserConfig(layout=layout, width=16, blocks=1),
            "settings": TrainingSettings(learning_rate=1e-3, draws=1),
        }
        return TrainRequest.model_validate({**body, **changes})

    @cached_property
    def vector(self) -> np.ndarray:
        request, generator = self.training_request(1), torch.Generator().manual_seed(0)
        return to_vector(TabularDiffusion(request.model, priors=self.encoder.priors(self.schema), generator=generator))

    def go_on(self, until: str, *, after: str | None = None) -> None:
        """Answers an honest server from the step after one up to another."""
        coarse, fine = self.tables
        steps: list[tuple[str, Callable[[], Message]]] = [
            ("plan", lambda: self.ask(PLAN, self.plan_request())),
            ("count", lambda: self.ask(COUNT, CountRequest(**self.run))),
            ("statistics", lambda: self.ask(STATISTICS, self.statistics_request())),
            ("coarse", lambda: self.ask(ASSOCIATIONS, self.tables_request("coarse", self.design(coarse)))),
            ("fine", lambda: self.ask(ASSOCIATIONS, self.tables_request("fine", self.design(fine)))),
            ("round 1", lambda: self.ask(TRAIN, self.training_request(1), self.vector)),
            ("round 2", lambda: self.ask(TRAIN, self.training_request(2), self.vector)),
            ("finish", lambda: self.ask(FINISH, FinishRequest(**self.run))),
        ]
        names = [name for name, _ in steps]
        for name, step in steps[0 if after is None else names.index(after) + 1 :]:
            assert error_code(step()) is None, name
            if name == until:
                return

    def refuses(self, attempt: Callable[[], Message], code: str) -> None:
        """The attempt gets a code and nothing else; the ledger is as it was, and the chain tells of it."""
        before, entries = self.ledger.run("r1"), len(self.chain.entries())
        reply = attempt()
        assert error_code(reply) == code
        assert not reply.has_content()
        assert self.ledger.run("r1") == before
        # One entry tells of the refusal; the others, if any, of numbers sent again to build the attempt.
        added = self.chain.entries()[entries:]
        refused = [entry.detail["code"] for entry in added if entry.action in REFUSED]
        assert refused == [code]
        assert {entry.action for entry in added} <= {*REFUSED, "release_repeated"}
        assert self.chain.verify().is_sound


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def another(node: Node) -> Node:
    folder = node.folder / "other"
    folder.mkdir()
    return Node(folder)


OUTSIDE, INVALID = "RELEASE_OUTSIDE_PLAN", "MESSAGE_INVALID"


def test_another_schema_is_refused(node: Node) -> None:
    for changes in ({"schema_hash": "f" * 64}, {"columns": 5}, {"numbers": 1}):
        plan = node.plan.model_copy(update=changes)
        node.refuses(lambda plan=plan: node.ask(PLAN, node.plan_request(plan)), "SCHEMA_MISMATCH")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"epsilon": 11.0}, "BUDGET_EXCEEDED"),
        ({"epsilon": float("inf")}, "BUDGET_EXCEEDED"),
        ({"noise_multiplier": 0.0}, "BUDGET_EXCEEDED"),
        ({"noise_multiplier": 0.3}, "BUDGET_EXCEEDED"),
        ({"delta": 1e-3}, "POLICY_DELTA_REFUSED"),
    ],
)
def test_a_plan_with_less_noise_than_its_epsilon_or_the_policy_asks_for_is_refused(
    node: Node, changes: dict[str, float], code: str
) -> None:
    plan = node.plan.model_copy(update=changes)
    node.refuses(lambda: node.ask(PLAN, node.plan_request(plan)), code)


def test_an_altered_plan_under_the_same_name_is_refused_and_the_run_goes_on(node: Node) -> None:
    node.go_on("count")
    altered = node.plan.model_copy(update={"rounds": 3})
    node.refuses(lambda: node.ask(PLAN, node.plan_request(altered)), OUTSIDE)
    node.refuses(lambda: node.ask(PLAN, node.plan_request(server="another")), OUTSIDE)
    node.refuses(lambda: node.ask(COUNT, CountRequest(run_id="r1", plan_hash=altered.content_hash)), OUTSIDE)
    assert error_code(node.ask(PLAN, node.plan_request())) is None
    assert error_code(node.ask(STATISTICS, node.statistics_request())) is None


def test_a_run_that_nobody_agreed_to_gets_nothing(node: Node) -> None:
    unknown = {"run_id": "r9", "plan_hash": node.plan.content_hash}
    node.refuses(lambda: node.ask(COUNT, CountRequest(**node.run)), OUTSIDE)
    node.go_on("statistics")
    for kind, body, array in (
        (COUNT, CountRequest(**unknown), None),
        (STATISTICS, node.statistics_request(**unknown), None),
        (ASSOCIATIONS, node.tables_request("fine", node.design(2)).model_copy(update=unknown), None),
        (TRAIN, node.training_request(1, **unknown), node.vector),
        (FINISH, FinishRequest(**unknown), None),
    ):
        node.refuses(lambda kind=kind, body=body, array=array: node.ask(kind, body, array), OUTSIDE)


def test_phases_in_another_order_are_refused(node: Node) -> None:
    coarse, _ = node.tables
    tables = node.tables_request("coarse", node.design(coarse))
    node.go_on("plan")
    node.refuses(lambda: node.ask(STATISTICS, node.statistics_request()), OUTSIDE)
    node.refuses(lambda: node.ask(ASSOCIATIONS, tables), OUTSIDE)
    node.go_on("count")
    node.refuses(lambda: node.ask(ASSOCIATIONS, tables), OUTSIDE)
    other = another(node)
    other.go_on("statistics")
    training = other.training_request(1)
    node.refuses(lambda: node.ask(TRAIN, training, other.vector), OUTSIDE)
    node.go_on("round 1")
    node.refuses(lambda: node.ask(ASSOCIATIONS, node.tables_request("coarse", node.design(coarse, first=1))), OUTSIDE)
    # A phase that was left out cannot be had later.
    other.ask(TRAIN, other.training_request(2), other.vector)
    other.refuses(lambda: other.ask(ASSOCIATIONS, tables), OUTSIDE)
    other.refuses(lambda: other.ask(TRAIN, other.training_request(1), other.vector), OUTSIDE)


def test_a_second_request_for_histograms_says_what_the_first_one_said_or_is_refused(node: Node) -> None:
    node.go_on("statistics")
    for changes in ({"bins": 60}, {"records": 300.0}, {"bins": 60, "records": 1.0}):
        node.refuses(lambda changes=changes: node.ask(STATISTICS, node.statistics_request(**changes)), OUTSIDE)


def test_other_tables_than_planned_and_tables_that_cannot_be_counted_are_refused(node: Node) -> None:
    coarse, fine = node.tables
    node.go_on("statistics")
    for stage, pairs in (("coarse", coarse - 1), ("coarse", fine), ("fine", fine + 1), ("fine", coarse), ("fine", 0)):
        request = node.tables_request(stage, node.design(pairs))
        node.refuses(lambda request=request: node.ask(ASSOCIATIONS, request), OUTSIDE)
    good = node.design(coarse)
    for broken in (
        good.model_copy(update={"cells": {**good.cells, "c0": (0, 1)}}),
        good.model_copy(update={"cells": {**good.cells, "c0": (0, 1, -1)}}),
        good.model_copy(update={"cells": {name: cells for name, cells in good.cells.items() if name != "c0"}}),
        good.model_copy(update={"pairs": (good.pairs[1], *good.pairs[1:])}),
        good.model_copy(update={"pairs": (("c0", "c0"), *good.pairs[1:])}),
        good.model_copy(update={"pairs": (("PatientId", "c0"), *good.pairs[1:])}),
    ):
        request = node.tables_request("coarse", broken)
        node.refuses(lambda request=request: node.ask(ASSOCIATIONS, request), INVALID)
    # A triple is a table as every other: none comes for free beside the pairs, or in the place of one.
    triple = {"triples": (("c0", "c1", "c2"),), "thirds": {"c2": good.cells["c2"]}}
    for stage, pairs in (("coarse", good.pairs), ("coarse", good.pairs[1:]), ("fine", good.pairs[:fine])):
        request = node.tables_request(stage, good.model_copy(update={**triple, "pairs": pairs}))
        node.refuses(lambda request=request: node.ask(ASSOCIATIONS, request), OUTSIDE)
    # Nor does a table of single values, nor is one counted of anything but whole numbers.
    values = {"values": {"c3": ((0, 9),)}}
    for stage, pairs in (("coarse", good.pairs), ("coarse", good.pairs[1:]), ("fine", good.pairs[:fine])):
        request = node.tables_request(stage, good.model_copy(update={**values, "pairs": pairs}))
        node.refuses(lambda request=request: node.ask(ASSOCIATIONS, request), OUTSIDE)
    for name in ("c3", "PatientId"):
        update = {"values": {name: ((0, 9),)}, "pairs": good.pairs[: fine - 1]}
        request = node.tables_request("fine", good.model_copy(update=update))
        node.refuses(lambda request=request: node.ask(ASSOCIATIONS, request), INVALID)
    node.go_on("fine")
    other = node.tables_request("fine", node.design(fine, first=1))
    node.refuses(lambda: node.ask(ASSOCIATIONS, other), OUTSIDE)


def test_no_record_is_trained_on_where_the_plan_holds_no_training(tmp_path: Path) -> None:
    """Without training in the plan a round would have no noise of its own, and nothing to be charged for."""
    node = Node(tmp_path, trains=False)
    node.go_on("fine")
    request, vector = node.training_request(1), node.vector
    node.refuses(lambda: node.ask(TRAIN, request, vector), OUTSIDE)
    assert "Its plan holds no training." in str(node.chain.entries()[-1].detail["reason"])
    gradient = GradientRequest(
        **node.run, round=1, step=1, encoder=node.encoder, model=node.training_request(1).model,
        settings=TrainingSettings(draws=1),
    )  # fmt: skip
    node.refuses(lambda: node.ask(GRADIENT, gradient, node.vector), OUTSIDE)
    loss = LossRequest(**node.run, round=1, encoder=node.encoder, model=node.training_request(1).model)
    node.refuses(lambda: node.ask(LOSS, loss, node.vector), OUTSIDE)
    assert node.ledger.run("r1").events == node.ledger.run("r1").planned_events


def test_more_rounds_than_planned_and_rounds_with_another_model_are_refused(node: Node) -> None:
    node.go_on("round 1")
    node.refuses(lambda: node.ask(TRAIN, node.training_request(1), node.vector + 1), OUTSIDE)
    settings = TrainingSettings(learning_rate=1e-2, draws=1)
    node.refuses(lambda: node.ask(TRAIN, node.training_request(1, settings=settings), node.vector), OUTSIDE)
    node.go_on("round 2", after="round 1")
    node.refuses(lambda: node.ask(TRAIN, node.training_request(3), node.vector), OUTSIDE)
    # The first round's numbers are no longer kept, and it is not trained once more.
    node.refuses(lambda: node.ask(TRAIN, node.training_request(1), node.vector), OUTSIDE)


def test_a_round_that_cannot_be_trained_is_refused_before_it_costs_anything(node: Node) -> None:
    node.go_on("fine")
    encoder = node.encoder.model_copy(update={"schema_hash": "f" * 64})
    wide = node.training_request(1).model.model_copy(update={"width": 9})
    attempts: list[tuple[TrainRequest, np.ndarray | None, str]] = [
        (node.training_request(1), node.vector[:-1], "CHECKPOINT_MODEL_MISMATCH"),
        (node.training_request(1, model=wide), node.vector, "CHECKPOINT_MODEL_MISMATCH"),
        (node.training_request(1, encoder=encoder), node.vector, INVALID),
        (node.training_request(1, settings=TrainingSettings()), node.vector, INVALID),
        (node.training_request(1), None, INVALID),
        (node.training_request(1), node.vector.astype(np.float64), INVALID),
        (node.training_request(1), node.vector.reshape(1, -1), INVALID),
    ]
    for request, vector, code in attempts:
        node.refuses(lambda request=request, vector=vector: node.ask(TRAIN, request, vector), code)
    node.go_on("round 1", after="fine")


def test_evaluation_comes_after_training_and_ends_it(tmp_path: Path) -> None:
    node = Node(tmp_path, evaluation_share=0.2)
    for step in ("plan", "count", "statistics", "fine"):
        node.go_on(step)
        node.refuses(lambda: node.ask(EVALUATION, node.evaluation_request()), OUTSIDE)
    node.go_on("round 1", after="fine")
    assert error_code(node.ask(EVALUATION, node.evaluation_request())) is None
    node.refuses(lambda: node.ask(TRAIN, node.training_request(2), node.vector), OUTSIDE)
    node.refuses(lambda: node.ask(STATISTICS, node.statistics_request(bins=30)), OUTSIDE)


def test_evaluation_is_had_once_and_the_same_request_gets_the_same_numbers(tmp_path: Path) -> None:
    node = Node(tmp_path, evaluation_share=0.2)
    node.go_on("round 2")
    first = node.ask(EVALUATION, node.evaluation_request())
    spent = node.ledger.run("r1")
    again = node.ask(EVALUATION, node.evaluation_request())
    assert (read_array(first, np.int64) == read_array(again, np.int64)).all()
    assert node.ledger.run("r1") == spent
    node.refuses(lambda: node.ask(EVALUATION, node.evaluation_request(first=1)), OUTSIDE)
    # A holdout of a fifth of 2000 patients, and noise of the holdout's own budget in every cell.
    counts = read_array(first, np.int64)[:18].reshape(6, 3)
    assert counts.sum() / 6 == pytest.approx(400, abs=200)
    node.go_on("finish", after="round 2")
    node.refuses(lambda: node.ask(EVALUATION, node.evaluation_request()), OUTSIDE)


def test_other_evaluation_tables_than_planned_are_refused(tmp_path: Path) -> None:
    node = Node(tmp_path, evaluation_share=0.2)
    node.go_on("round 1")
    good = node.evaluation_request().design
    fewer = {name: cells for name, cells in good.cells.items() if name != "c0"}
    left = tuple(pair for pair in node.design(15).pairs if "c0" not in pair)[: len(good.pairs)]
    for design in (
        node.design(len(good.pairs) - 1),
        node.design(len(good.pairs) + 1),
        node.design(0),
        good.model_copy(update={"cells": fewer, "pairs": left}),
        good.model_copy(update={"cells": {**good.cells, "id": (0, 1, 2)}}),
        good.model_copy(update={"triples": (("c0", "c1", "c2"),), "thirds": {"c2": good.cells["c2"]}}),
    ):
        node.refuses(lambda design=design: node.ask(EVALUATION, node.evaluation_request(design=design)), OUTSIDE)
    for broken in (
        good.model_copy(update={"cells": {**good.cells, "c0": (0, 2, 2)}}),
        good.model_copy(update={"pairs": (good.pairs[1], *good.pairs[1:])}),
    ):
        node.refuses(lambda design=broken: node.ask(EVALUATION, node.evaluation_request(design=design)), INVALID)
    assert error_code(node.ask(EVALUATION, node.evaluation_request())) is None


def test_a_plan_without_an_evaluation_gives_none_and_one_that_misstates_the_holdout_is_refused(node: Node) -> None:
    node.go_on("round 1")
    node.refuses(lambda: node.ask(EVALUATION, node.evaluation_request(pairs=6)), OUTSIDE)
    folder = node.folder / "held"
    folder.mkdir()
    held = Node(folder, evaluation_share=0.2)
    sums = held.plan.model_copy(update={"has_holdout": False})
    held.refuses(lambda: held.ask(PLAN, held.plan_request(sums)), "SCHEMA_MISMATCH")
    # Without a unit_id nobody can be held out: the two groups would not be known to be disjoint.
    claimed = another(node)
    plan = claimed.plan.model_copy(update={"evaluation_share": 0.2, "has_holdout": True})
    claimed.refuses(lambda: claimed.ask(PLAN, claimed.plan_request(plan)), "SCHEMA_MISMATCH")


def test_after_the_end_nothing_is_released_but_the_end_may_be_told_again(node: Node) -> None:
    node.go_on("finish")
    other = another(node)
    other.go_on("statistics")
    for kind, body, array in (
        (PLAN, node.plan_request(), None),
        (COUNT, CountRequest(**node.run), None),
        (STATISTICS, node.statistics_request(), None),
        (ASSOCIATIONS, node.tables_request("fine", node.design(node.tables[1])), None),
        (TRAIN, other.training_request(2), other.vector),
    ):
        node.refuses(lambda kind=kind, body=body, array=array: node.ask(kind, body, array), OUTSIDE)
    assert error_code(node.ask(FINISH, FinishRequest(**node.run))) is None
    assert [entry.action for entry in node.chain.entries()].count("run_closed") == 1


def test_what_is_no_request_at_all_is_refused(node: Node) -> None:
    node.go_on("statistics")
    text = CountRequest(**node.run).model_dump_json()
    for kind in (PLAN, COUNT, STATISTICS, ASSOCIATIONS, TRAIN, GRADIENT, LOSS, FINISH):
        for content in (
            RecordDict(),
            RecordDict({"body": ConfigRecord({"json": "{"})}),
            RecordDict({"body": ConfigRecord({"json": '{"run_id": "r1"}'})}),
            RecordDict({"body": ArrayRecord([node.vector])}),
            RecordDict({"body": ConfigRecord({"json": text.replace("}", ', "rows": true}')})}),
        ):
            node.refuses(lambda kind=kind, content=content: node.send(kind, content), INVALID)
    for kind in ("query.rows", "evaluate", "train.more", "query.audit"):
        node.refuses(lambda kind=kind: node.send(kind, pack(CountRequest(**node.run))), INVALID)
    node.refuses(lambda: node.send(COUNT, pack(CountRequest(**node.run)), ttl=1e-6), "REQUEST_EXPIRED")


def test_steps_of_secure_aggregation_are_no_way_around_a_plan_without_it(node: Node) -> None:
    node.go_on("fine")
    for step in (1, 2):
        gradient = GradientRequest.model_validate(
            {**node.training_request(1).model_dump(), "step": step, "encoder": node.encoder}
        )
        node.refuses(lambda gradient=gradient: node.ask(GRADIENT, gradient, node.vector), OUTSIDE)
    loss = LossRequest(**node.run, round=1, encoder=node.encoder, model=node.training_request(1).model)
    node.refuses(lambda: node.ask(LOSS, loss, node.vector), OUTSIDE)


def test_another_server_cannot_go_on_with_a_run(tmp_path: Path) -> None:
    node = Node(tmp_path, server="s")
    node.refuses(lambda: node.ask(PLAN, node.plan_request(server="another")), "POLICY_SERVER_REFUSED")
    node.go_on("count")
    restarted = Node(tmp_path, server="another")
    for kind, body in (
        (COUNT, CountRequest(**node.run)),
        (STATISTICS, node.statistics_request()),
        (FINISH, FinishRequest(**node.run)),
        (PLAN, node.plan_request()),
    ):
        restarted.refuses(lambda kind=kind, body=body: restarted.ask(kind, body), "POLICY_SERVER_REFUSED")


def test_a_restarted_node_goes_on_in_every_phase_and_keeps_refusing(tmp_path: Path) -> None:
    done = None
    for phase in ("plan", "count", "statistics", "coarse", "fine", "round 1", "round 2"):
        node = Node(tmp_path)
        node.go_on(phase, after=done)
        events = node.ledger.run("r1").events
        # Started once more, and asked the same once more: the same numbers, at no charge.
        Node(tmp_path).go_on(phase, after=done)
        assert node.ledger.run("r1").events == events
        done = phase
    node = Node(tmp_path)
    assert node.ledger.run("r1").events == node.ledger.run("r1").planned_events
    node.refuses(lambda: node.ask(TRAIN, node.training_request(3), node.vector), OUTSIDE)


def test_a_minimum_that_is_raised_during_a_run_stops_it(node: Node) -> None:
    node.go_on("count")
    policy = NodePolicy()
    raised = policy.model_copy(update={"allow": policy.allow.model_copy(update={"min_patients": 20_000})})
    stricter = Node(node.folder, raised)
    stricter.refuses(lambda: stricter.ask(STATISTICS, stricter.statistics_request()), "POLICY_MIN_PATIENTS")


@pytest.mark.parametrize("change", ["a state too few", "other bins", "no distribution", "missing", "a step"])
def test_an_encoder_that_would_fail_for_some_records_alone_is_refused_for_all(node: Node, change: str) -> None:
    """Such a failure would tell of a single record, and no noise is in it. Layout and model fit the encoder here."""
    node.go_on("fine")
    true = node.encoder
    name = next(iter(node.schema.measured))
    code, bins = true.columns[name], true.bins
    if change == "a state too few":
        rest = sum(code.shares[:-1])
        code = code.model_copy(update={"shares": tuple(share / rest for share in code.shares[:-1])})
    elif change == "other bins":
        bins = true.bins + 7
    elif change == "no distribution":
        code = code.model_copy(update={"shares": (float("nan"), *code.shares[1:])})
    elif change == "a step":
        code = code.model_copy(update={"step": Step(digits=1, exponent=-20)})
    else:
        code = code.model_copy(update={"missing": 0.5 if code.missing is None else None})
    encoder = true.model_copy(update={"bins": bins, "columns": {**true.columns, name: code}})
    layout = Layout.for_table(encoder, node.schema)
    model = DenoiserConfig(layout=layout, width=16, blocks=1)
    priors = [np.full(states, 1 / states) for states in layout.categories]
    vector = to_vector(TabularDiffusion(model, priors=priors, generator=torch.Generator().manual_seed(0)))
    request = node.training_request(1, encoder=encoder, model=model)
    node.refuses(lambda: node.ask(TRAIN, request, vector), INVALID)
    node.go_on("round 1", after="fine")


@pytest.mark.parametrize(
    "settings", [{"clip_norm": 1e-42}, {"clip_norm": float("inf")}, {"draws": 10**9}, {"learning_rate": float("inf")}]
)
def test_settings_beyond_their_bounds_are_refused(node: Node, settings: dict[str, float]) -> None:
    node.go_on("fine")
    request = node.training_request(1)
    wild = request.settings.model_copy(update=settings)
    content = pack(request.model_copy(update={"settings": wild}), node.vector)
    node.refuses(lambda: node.send(TRAIN, content), INVALID)
