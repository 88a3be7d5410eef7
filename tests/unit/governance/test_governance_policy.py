from __future__ import annotations

import math
import os
import stat

import pytest

from aevorium.errors import ConfigError
from aevorium.governance.policy import (
    Allowance,
    Budget,
    NodePolicy,
    load_policy,
    simulated_policy,
    write_default_policy,
)

DOCUMENTED = """
[budget]
max_epsilon = 10.0          # per period, at max_delta
max_delta = 1e-5
period = "2026"             # a label; a new one is opened by `budget new-period`, signed
[allow]
schemas = []                # content hashes; empty = any
purposes = []
servers = []                # server identities; empty = any enrolled
min_patients = 20           # checked against the noisy count
consent = "automatic"       # or "ask": each plan waits for the steward
"""


def test_the_documented_policy_is_the_default_one():
    assert NodePolicy.from_toml(DOCUMENTED, source="doc") == NodePolicy(budget=Budget(period="2026"))


def test_every_entry_is_read():
    policy = NodePolicy.from_toml(
        '[budget]\nmax_epsilon = inf\nmax_delta = 1e-6\nperiod = "Q3"\n'
        '[allow]\nschemas = ["ab"]\npurposes = ["research"]\nservers = ["s1", "s2"]\nmin_patients = 0\nconsent = "ask"',
        source="x",
    )
    assert policy.budget == Budget(max_epsilon=math.inf, max_delta=1e-6, period="Q3")
    assert policy.allow == Allowance(
        schemas=("ab",), purposes=("research",), servers=("s1", "s2"), min_patients=0, consent="ask"
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[budget]\nmax_epsilonn = 1", "budget.max_epsilonn"),
        ("[budget]\nmax_epsilon = 0", "budget.max_epsilon"),
        ("[budget]\nmax_epsilon = nan", "budget.max_epsilon"),
        ('[budget]\nmax_epsilon = "lots"', "budget.max_epsilon"),
        ("[budget]\nmax_delta = 0", "budget.max_delta"),
        ("[budget]\nmax_delta = 1.0", "budget.max_delta"),
        ('[budget]\nperiod = ""', "budget.period"),
        ("[allow]\nmin_patients = -1", "allow.min_patients"),
        ('[allow]\nconsent = "maybe"', "allow.consent"),
        ('[allow]\nservers = "s1"', "allow.servers"),
        ("[budgets]\nmax_epsilon = 1", "budgets"),
        ("max_epsilon = ", "not valid TOML"),
    ],
)
def test_a_wrong_policy_is_refused_by_name(text, named):
    with pytest.raises(ConfigError) as caught:
        NodePolicy.from_toml(text, source="policy.toml")
    assert caught.value.code == "POLICY_INVALID"
    assert "'policy.toml'" in caught.value.message
    assert named in caught.value.message


def test_a_policy_that_is_not_there_is_not_replaced_by_a_default(tmp_path):
    with pytest.raises(ConfigError) as caught:
        load_policy(tmp_path / "absent.toml")
    assert caught.value.code == "POLICY_INVALID"
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError) as caught:
        load_policy(tmp_path / "binary.toml")
    assert caught.value.code == "POLICY_INVALID"
    with pytest.raises(ConfigError):
        load_policy(tmp_path)


@pytest.mark.parametrize(
    "policy",
    [
        NodePolicy(),
        NodePolicy(budget=Budget(max_epsilon=math.inf, max_delta=1e-12, period='Jahr "Ä" \\ 1')),
        NodePolicy(allow=Allowance(schemas=("a", "b"), purposes=("ä\n#",), min_patients=3, consent="ask")),
    ],
)
def test_a_policy_survives_writing_and_reading(policy, tmp_path):
    path = tmp_path / "policy.toml"
    path.write_text(policy.to_toml(), encoding="utf-8")
    assert load_policy(path) == policy


def test_the_default_policy_is_written_for_its_owner_and_read_back(tmp_path):
    path = tmp_path / "node" / "policy.toml"
    policy = write_default_policy(path, period="2026")
    assert load_policy(path) == policy
    assert (policy.budget.max_epsilon, policy.budget.period) == (10.0, "2026")
    assert policy.allow.consent == "automatic"
    assert "#" in path.read_text(encoding="utf-8")
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_simulated_node_can_pay_for_one_run():
    policy = simulated_policy(epsilon=3.0, delta=1e-6)
    assert (policy.budget.max_epsilon, policy.budget.max_delta) == (3.0, 1e-6)
    assert simulated_policy(epsilon=math.inf, delta=1e-5).budget.max_epsilon == math.inf
