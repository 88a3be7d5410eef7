"""Which budget period is in force, who opens one, and what limit was in force when."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from aevorium.errors import AevoriumError, ConfigError, PolicyRefused
from aevorium.governance.chain import AuditChain
from aevorium.governance.periods import PeriodHistory, adopt_policy, open_period, set_limit
from aevorium.governance.policy import Allowance, Budget, NodePolicy, load_policy, new_limit, write_policy
from aevorium.governance.spend import node_spend
from aevorium.governance.steward import Steward, statements_of
from aevorium.privacy.accountant import epsilon
from aevorium.privacy.events import DiscreteGaussian
from aevorium.privacy.ledger import SqliteLedger

DELTA = 1e-5
TABLES = DiscreteGaussian(purpose="tables", sigma=9.0, count=14)
FIRST = Budget(max_epsilon=10.0, max_delta=DELTA, period="2026")


class Home:
    """A node's home, with a clock that goes on by a minute at each look."""

    def __init__(self, folder: Path) -> None:
        self._now = datetime(2026, 1, 1, tzinfo=UTC)
        self.file = folder / "policy.toml"
        self.chain = AuditChain(folder / "audit.db", now=self._clock)
        self.ledger = SqliteLedger(folder / "ledger.db", now=self._clock)
        self.steward = Steward(folder, node="n", chain=self.chain)

    def _clock(self) -> datetime:
        self._now += timedelta(minutes=1)
        return self._now

    def adopt(self, budget: Budget = FIRST) -> None:
        policy = NodePolicy(budget=budget)
        adopt_policy(lambda: policy, steward=self.steward, ledger=self.ledger)

    def open(self, period: str) -> NodePolicy:
        return open_period(period, file=self.file, steward=self.steward, ledger=self.ledger)

    def set(self, budget: Budget) -> NodePolicy:
        return set_limit(budget, file=self.file, steward=self.steward, ledger=self.ledger, node="n")

    def require(self, budget: Budget) -> None:
        self.history.require(budget, ledger=self.ledger, node="n")

    def run(self, run_id: str, *, period: str) -> None:
        self.ledger.open_run(
            run_id, plan_json="{}", plan_hash="", epsilon=3.0, delta=DELTA, period=period, agreed_events=[TABLES]
        )
        self.ledger.reserve(run_id, phase="tables", round=0, events=[TABLES], fingerprint="x")
        self.ledger.close_run(run_id)

    def spend(self, budget: Budget):
        return node_spend(budget, node="n", ledger=self.ledger, history=self.history)

    @property
    def history(self) -> PeriodHistory:
        return PeriodHistory.of(self.chain)

    @property
    def said(self) -> list[tuple[str, str]]:
        return [(each.action, each.content["how"]) for each in statements_of(self.chain)]


@pytest.fixture
def home(tmp_path) -> Home:
    return Home(tmp_path)


def test_the_first_label_is_opened_by_its_first_use_once(home):
    home.require(FIRST)
    home.adopt()
    home.adopt()
    assert home.said == [("period_opened", "first use")]
    assert home.history.current == FIRST
    home.require(FIRST)


def test_a_limit_changed_in_the_file_is_noted_and_another_label_is_not(home):
    home.adopt()
    lower = Budget(max_epsilon=2.0, max_delta=DELTA, period="2026")
    home.adopt(lower)
    assert home.said[1:] == [("limit_set", "policy file")]
    home.adopt(Budget(max_epsilon=99.0, max_delta=DELTA, period="2027"))
    assert home.history.current == lower
    with pytest.raises(PolicyRefused) as caught:
        home.require(Budget(period="2027"))
    assert (caught.value.code, caught.value.exit_status) == ("POLICY_PERIOD_UNSIGNED", 3)


def test_a_ledger_without_statements_still_knows_its_last_period(home):
    """Whoever takes the audit log away must not get a new period for it."""
    home.run("a", period="2025")
    home.run("b", period="2026")
    for label in ("2025", "2027"):
        with pytest.raises(PolicyRefused):
            home.require(Budget(period=label))
    home.adopt(Budget(period="2027"))
    assert home.said == []
    home.adopt()
    assert home.said == [("period_opened", "first use")]


def test_a_new_period_is_written_signed_and_keeps_everything_else(home):
    policy = NodePolicy(budget=FIRST, allow=Allowance(purposes=("a",), min_patients=7, consent="ask"))
    write_policy(home.file, policy)
    home.file.chmod(0o640)
    home.adopt()
    opened = home.open("2027")
    assert opened == load_policy(home.file)
    assert opened.allow == policy.allow
    assert opened.budget == FIRST.model_copy(update={"period": "2027"})
    assert home.file.stat().st_mode & 0o777 == 0o640
    assert home.said[-1] == ("period_opened", "command")
    home.require(opened.budget)
    with pytest.raises(PolicyRefused):
        home.require(FIRST)


@pytest.mark.parametrize("label", ["2026", "2027"])
def test_a_label_is_used_once(home, label):
    write_policy(home.file, NodePolicy(budget=FIRST))
    home.adopt()
    home.open("2027")
    with pytest.raises(ConfigError) as caught:
        home.open(label)
    assert caught.value.code == "PERIOD_USED"
    assert load_policy(home.file).budget.period == "2027"
    assert len(home.said) == 2


@pytest.mark.parametrize("cut_off", ["before the signature", "before the file"])
def test_a_command_that_was_cut_off_is_finished_by_typing_it_again(home, cut_off, monkeypatch):
    write_policy(home.file, NodePolicy(budget=FIRST))
    home.adopt()
    if cut_off == "before the signature":
        write_policy(home.file, NodePolicy(budget=FIRST.model_copy(update={"period": "2027"})))
    else:
        home.open("2027")
        write_policy(home.file, NodePolicy(budget=FIRST))
    with pytest.raises(PolicyRefused):
        home.require(load_policy(home.file).budget)
    home.open("2027")
    home.require(load_policy(home.file).budget)
    assert [action for action, _ in home.said] == ["period_opened", "period_opened"]


def test_a_limit_is_set_for_the_open_period_alone(home):
    write_policy(home.file, NodePolicy(budget=FIRST))
    home.adopt()
    home.set(new_limit(FIRST, epsilon=math.inf, delta=1e-6))
    assert load_policy(home.file).budget == Budget(max_epsilon=math.inf, max_delta=1e-6, period="2026")
    assert home.history.current == load_policy(home.file).budget
    with pytest.raises(PolicyRefused):
        home.set(Budget(period="2027"))


@pytest.mark.parametrize(("epsilon", "delta"), [(0.0, None), (-1.0, None), (math.nan, None), (1.0, 0.0), (1.0, 1.0)])
def test_an_impossible_limit_is_refused(epsilon, delta):
    with pytest.raises(ConfigError) as caught:
        new_limit(FIRST, epsilon=epsilon, delta=delta)
    assert caught.value.code == "CONFIG_INVALID"


def test_the_limit_at_the_first_run_settles_its_period(home):
    write_policy(home.file, NodePolicy(budget=FIRST))
    home.adopt()
    home.set(new_limit(FIRST, epsilon=3.0, delta=None))
    home.run("a", period="2026")
    last = new_limit(FIRST, epsilon=50.0, delta=None)
    home.set(last)
    runs = home.ledger.runs("2026")
    assert home.history.settling(runs, limit=last).max_epsilon == 3.0
    assert home.history.settling({}, limit=last) == last
    home.open("2027")
    assert home.history.limit_of("2026", budget=Budget(period="2027")) == last


def test_what_was_spent_is_shown_for_every_period_and_in_all(home):
    write_policy(home.file, NodePolicy(budget=FIRST))
    home.adopt()
    home.run("a", period="2026")
    home.run("b", period="2026")
    before = home.spend(FIRST)
    assert (before.earlier, before.lifetime) == ((), before.spent)
    second = home.open("2027").budget
    view = home.spend(second)
    assert (view.spent, view.left, view.runs) == (0, 10.0, ())
    assert [(each.period, each.runs, each.spent) for each in view.earlier] == [("2026", 2, before.spent)]
    assert view.lifetime == before.lifetime
    home.run("c", period="2027")
    view = home.spend(second)
    assert view.lifetime >= max(epsilon([TABLES] * 3, DELTA), before.spent, view.spent)
    third = home.open("2028").budget
    assert [each.period for each in home.spend(third).earlier] == ["2026", "2027"]
    assert home.spend(third).lifetime == view.lifetime


def test_a_lower_limit_does_not_lower_what_was_spent(home):
    write_policy(home.file, NodePolicy(budget=FIRST))
    home.adopt()
    home.run("a", period="2026")
    before = home.spend(FIRST)
    home.set(new_limit(FIRST, epsilon=0.5, delta=None))
    after = home.spend(home.history.current)
    assert (after.spent, after.lifetime, after.left) == (before.spent, before.lifetime, 0.0)


def test_an_unreadable_policy_is_not_replaced(home):
    home.adopt()
    home.file.write_text("[budget]\nmax_epsilon = 0")
    with pytest.raises(AevoriumError) as caught:
        home.open("2027")
    assert caught.value.code == "POLICY_INVALID"
    assert "max_epsilon = 0" in home.file.read_text()
    assert len(home.said) == 1
