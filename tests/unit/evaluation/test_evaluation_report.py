"""The report page: offline, escaped, honest about what it is, and readable without its charts."""

import base64
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from plotly.offline import get_plotlyjs

from aevorium.evaluation.fidelity import PairTrend
from aevorium.evaluation.overlays import MarginalOverlay
from aevorium.evaluation.report import charts, render
from aevorium.evaluation.report.model import LocalReport, NodeSpend, PhaseSpend, RoundFacts, RunReport, StudyFacts
from aevorium.evaluation.report.render import (
    local_report_html,
    local_report_json,
    run_report_html,
    run_report_json,
)
from aevorium.evaluation.risk import ClosestRecords, DistanceHistogram
from aevorium.evaluation.score import EXACT_MARKING, Score, Scorecard
from aevorium.evaluation.utility import ClassScore, ModelScore

HOSTILE = '<script>alert("x")</script><a href="https://elsewhere.example">&'
VOID = {"meta", "br", "img", "link", "input", "hr"}
SHAPES = {"path", "circle", "rect", "line"}

STUDY = StudyFacts(
    name="Six hospitals",
    schema_name="synthea",
    schema_hash="0123456789abcdef" * 4,
    unit="patient",
    recipe="warm-start",
    trust="local",
    epsilon=3.0,
    delta=1e-5,
    created="2026-11-24T09:12:00+00:00",
    version="0.1.0",
    synthetic_rows=1200,
    target="Diagnosis",
    derived=("RiskLevel",),
    warnings=("δ is large for so few patients.",),
    limits=("RiskLevel is computed.",),
    assumptions=("One record per patient.",),
)
NODES = (
    NodeSpend("north", 2.9, 10.0, (PhaseSpend("statistics", 1.1, 1),), 441.7),
    NodeSpend("south", 2.95, None, (), None),
)
ROUNDS = (RoundFacts(1, 2, 2, 2.1, 12.5, 0.9), RoundFacts(2, 1, 2, 2.95, 11.5, None))
DENSE = MarginalOverlay(
    "Age",
    tuple(f"{age} to {age + 5}" for age in range(0, 100, 5)),
    (0.05,) * 20,
    (0.06,) * 10 + (0.04,) * 10,
    0.1,
    None,
    True,
    False,
)
SPARSE = MarginalOverlay(
    "Gender", ("Male", "Female", "missing"), (0.5, 0.4, 0.1), (0.3, 0.6, 0.1), 0.2, (0.02, 0.02, 0.02), False, True
)
EMPTY = MarginalOverlay("Rare", ("a", "b"), (math.nan,) * 2, (0.5, 0.5), math.nan, (math.nan,) * 2, False, False)
RELEASED_CARD = Scorecard(
    (
        Score.judged("released_1way", 0.11, reading="As read.", reference=0.1, reference_name="expected from noise"),
        Score.skipped("released_worst", "No released table says anything."),
    ),
    "2 released noisy one-way tables",
    notes=("Single columns only.",),
)
EXACT_CARD = Scorecard(
    (
        Score.judged("shapes", 0.9, reading="As read.", reference=0.96, reference_name="training rows"),
        Score.judged("c2st", 0.7, reading="As read.", reference=0.5, reference_name="cannot tell", interval=(0.6, 0.8)),
        Score("tstr", -0.4, "R² can be negative.", (-0.6, -0.2), 0.9, "trained on real rows", "do not use"),
        Score("dcr_share", 0.5, "An alarm, not a proof.", (0.45, 0.55), 0.5, "as close to both"),
    ),
    "350 real rows held out",
    marking=EXACT_MARKING,
)
RUN = RunReport(STUDY, NODES, ROUNDS, RELEASED_CARD, (DENSE, SPARSE, EMPTY))
LOCAL = LocalReport(
    replace(STUDY, warnings=()),
    EXACT_CARD,
    (DENSE, replace(SPARSE, band=None)),
    pairs=(
        PairTrend("Age", "Gender", "ContingencySimilarity", 0.9, 0.4, 0.2),
        PairTrend("Age", "Rare", "ContingencySimilarity", math.nan, math.nan, 0.1),
    ),
    tstr=ModelScore("AUC", 0.8, (0.7, 0.9), "", (ClassScore("a", 0.8), ClassScore("b", None, "too few")), 100, 50),
    trtr=ModelScore("AUC", 0.9, (0.8, 0.95), "", (ClassScore("a", 0.9), ClassScore("b", None, "too few")), 100, 50),
    closest=ClosestRecords(0.5, (0.45, 0.55), DistanceHistogram((0.0, 1.0, 2.0), (0.5, 0.5), (0.4, 0.6)), 100),
)


class Page(HTMLParser):
    """Collects what the tests ask of a page and checks that elements close in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.texts, self.scripts = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag not in VOID | SHAPES:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((attributes, []))

    def handle_endtag(self, tag):
        if tag not in VOID | SHAPES:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] == ["script"]:
            self.scripts[-1][1].append(data)
        elif self.open[-1:] != ["style"]:
            self.texts.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def figures(self):
        return {
            attributes["data-for"]: json.loads("".join(parts))
            for attributes, parts in self.scripts
            if attributes.get("type") == "application/json"
        }

    def code(self):
        return ["".join(parts) for attributes, parts in self.scripts if "type" not in attributes]


@pytest.fixture(scope="module", autouse=True)
def short_library():
    """Most tests need not parse the five megabytes of plotly's own library."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(render, "get_plotlyjs", lambda: "var Plotly;")
        yield


@pytest.fixture(scope="module")
def pages(short_library):
    return {"run": run_report_html(RUN), "local": local_report_html(LOCAL)}


@pytest.fixture(scope="module", params=["run", "local"])
def page(request, pages):
    return Page(pages[request.param])


def test_pages_are_well_formed_with_unique_ids(pages):
    for text in pages.values():
        parsed = Page(text)
        assert text.startswith("<!DOCTYPE html>")
        assert len(parsed.ids) == len(set(parsed.ids))


def test_whole_page_with_its_library_is_well_formed_and_small(monkeypatch):
    monkeypatch.setattr(render, "get_plotlyjs", get_plotlyjs)
    text = local_report_html(LOCAL)
    assert 1_000_000 < len(text.encode("utf-8")) < 6_000_000
    code = Page(text).code()
    assert len(code) == 2
    assert code[0] == get_plotlyjs()


def test_no_element_refers_to_another_place(page):
    for tag, attributes in page.tags:
        assert tag not in {"link", "iframe", "object", "embed", "img", "base"}
        assert attributes.get("src") is None
        assert attributes.get("href", "#").startswith("#")


def test_policy_forbids_every_request_and_every_other_script(page):
    policy = next(a["content"] for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    assert "connect-src" not in directives
    allowed = set(re.findall(r"'(sha256-[^']+)'", directives["script-src"]))
    assert "unsafe" not in directives["script-src"]
    hashes = {"sha256-" + base64.b64encode(hashlib.sha256(code.encode()).digest()).decode() for code in page.code()}
    assert hashes == allowed
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_our_own_script_fetches_nothing(page):
    own = page.code()[-1]
    assert "Plotly" in own
    assert not re.search(r"fetch|XMLHttpRequest|import|WebSocket|sendBeacon|https?:|eval|innerHTML", own)


def test_links_lead_to_sections_and_charts_have_their_places(page):
    targets = {attributes["href"][1:] for tag, attributes in page.tags if tag == "a"}
    assert targets <= set(page.ids)
    assert set(page.figures()) <= set(page.ids)
    labelled = {attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes}
    assert labelled <= set(page.ids)


def test_every_chart_has_a_summary_and_a_table(page):
    count = len(page.figures())
    assert count == len([tag for tag, _ in page.tags if tag == "figcaption"]) > 0
    assert count == len([tag for tag, _ in page.tags if tag == "details"])
    assert all(a["aria-label"] for _, a in page.tags if a.get("role") == "img")


def test_verdicts_are_words(pages):
    assert "usable" in Page(pages["local"]).text
    assert "do not use" in Page(pages["local"]).text
    assert "good" in Page(pages["run"]).text
    assert "skipped" in Page(pages["run"]).text


def test_only_a_report_of_real_rows_is_marked(pages):
    assert EXACT_MARKING in Page(pages["local"]).text.lower()
    assert EXACT_MARKING not in Page(pages["run"]).text.lower()
    assert json.loads(local_report_json(LOCAL))["marking"] == EXACT_MARKING
    assert json.loads(run_report_json(RUN))["marking"] == ""


def banners(text):
    return re.findall(r'<div class="banner (\w+)" role="note"><strong>([^<]+)</strong>', text)


def test_banners_say_what_must_not_be_missed(pages):
    assert banners(pages["run"]) == [("warning", "Please note")]
    assert banners(pages["local"])[0] == ("danger", EXACT_MARKING.capitalize())
    unprotected = replace(STUDY, epsilon=math.inf, simulated=True, warnings=())
    nodes = tuple(replace(node, epsilon=math.inf) for node in NODES)
    rounds = tuple(replace(one, epsilon=math.inf) for one in ROUNDS)
    for text in (
        run_report_html(replace(RUN, study=unprotected, nodes=nodes, rounds=rounds)),
        local_report_html(replace(LOCAL, study=unprotected)),
    ):
        titles = [title for _, title in banners(text)]
        assert "NO PRIVACY" in titles
        assert "Simulated data" in titles
        assert "∞" in Page(text).text


def test_run_report_tells_spend_rounds_and_limits(pages):
    text = Page(pages["run"]).text
    for told in ("north", "2.95", "442", "1 release", "1 of 2", "RiskLevel is computed.", "One record per patient."):
        assert told in text
    assert "What not to use it for" in text


def test_hostile_names_stay_text():
    overlays = tuple(
        replace(overlay, column=HOSTILE, labels=tuple(HOSTILE + label for label in overlay.labels))
        for overlay in (DENSE, SPARSE)
    )
    study = replace(STUDY, name=HOSTILE, target=HOSTILE, limits=(HOSTILE,), warnings=(HOSTILE,))
    pairs = (PairTrend(HOSTILE, "b", "ContingencySimilarity", 0.9, 0.4, 0.2),)
    model = replace(LOCAL.tstr, classes=(ClassScore(HOSTILE, 0.8, HOSTILE),))
    local = replace(LOCAL, study=study, overlays=overlays, pairs=pairs, tstr=model, trtr=model)
    run = replace(RUN, study=study, overlays=overlays, nodes=(replace(NODES[0], node=HOSTILE),))
    for text, usual in ((local_report_html(local), LOCAL), (run_report_html(run), RUN)):
        parsed = Page(text)
        assert HOSTILE in parsed.text
        assert len([tag for tag, _ in parsed.tags if tag == "script"]) == len(parsed.figures()) + 2
        assert not [a for tag, a in parsed.tags if tag == "a" and not a["href"].startswith("#")], usual
        # plotly reads tags in its labels, so that a figure must not hold any but the line break of our own
        for figure in parsed.figures().values():
            assert not re.search(r"<(?!br>|extra></extra>|/extra>)", json.dumps(figure))


def test_labels_that_shorten_alike_stay_apart():
    labels = tuple("a very long category name, number " + str(number) for number in range(3))
    figure = charts.marginal(
        MarginalOverlay("c", labels, (0.2, 0.3, 0.5), (0.3, 0.3, 0.4), 0.1, None, False, False), reference_name="real"
    )
    assert list(figure.data[0].x) == list(figure.data[1].x) == [0, 1, 2]
    assert list(figure.layout.xaxis.ticktext) == [charts.plain(label) for label in labels]


def test_figures_hold_the_numbers_of_both_sides():
    figure = charts.marginal(SPARSE, reference_name="released")
    shown = {(trace.name, tuple(trace.y)) for trace in figure.data}
    assert shown == {
        ("released", (0.5, 0.4)),
        ("synthetic", (0.3, 0.6)),
        ("released", (0.1,)),
        ("synthetic", (0.1,)),
    }
    names, cells = charts.matrix_of(LOCAL.pairs, value="difference")
    assert names == ["Age", "Gender", "Rare"]
    assert cells[0][1] == cells[1][0] == pytest.approx(-0.2)
    assert cells[0][2] is cells[2][0] is cells[1][2] is None


@pytest.mark.parametrize(
    "report",
    [
        replace(RUN, rounds=(), overlays=()),
        replace(RUN, nodes=()),
        replace(RUN, rounds=(replace(ROUNDS[0], loss=None),)),
        replace(LOCAL, pairs=(), tstr=None, trtr=None, closest=None),
        replace(LOCAL, tstr=ModelScore("R2", -0.5, None), trtr=ModelScore("R2", 0.5, (0.4, 0.6))),
        replace(LOCAL, tstr=ModelScore("AUC", None, note="skipped"), overlays=()),
    ],
    ids=["no rounds", "no nodes", "no loss", "overlays only", "continuous target", "no model"],
)
def test_reports_with_parts_absent_still_render(report):
    text = run_report_html(report) if isinstance(report, RunReport) else local_report_html(report)
    parsed = Page(text)
    assert {attributes["href"][1:] for tag, attributes in parsed.tags if tag == "a"} <= set(parsed.ids)


def test_json_twins_hold_the_card_and_no_number_that_json_lacks():
    endless = replace(RUN, study=replace(STUDY, epsilon=math.inf))
    run, local = json.loads(run_report_json(endless)), json.loads(local_report_json(LOCAL))
    assert run["study"]["epsilon"] == "Infinity"
    assert run["card"] == RELEASED_CARD.to_json()
    assert run["overlays"][2]["distance"] is None
    assert local["card"] == EXACT_CARD.to_json()
    assert local["pairs"][1]["real"] is None
    assert {run["kind"], local["kind"]} == {"run", "local"}
