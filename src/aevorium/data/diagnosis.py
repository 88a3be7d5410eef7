"""One diagnosis per patient, from the descriptions of the conditions in a Synthea export."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["DIAGNOSES", "HEALTHY", "SOCIAL_FINDINGS", "Diagnosis", "diagnosis_rank"]


@dataclass(frozen=True)
class Diagnosis:
    """A diagnosis and the words by which a condition's description is recognised.

    Attributes:
        name: The category in the schema.
        pattern: A regular expression, matched anywhere and in any case.
    """

    name: str
    pattern: str


DIAGNOSES = (
    Diagnosis("Cancer", r"cancer|carcinoma|malignant|neoplasm|leuka?emia|lymphoma|melanoma|myeloma|sarcoma"),
    Diagnosis("ChronicKidneyDisease", r"chronic kidney disease|end[- ]stage renal"),
    Diagnosis("Diabetes", r"diabet"),
    Diagnosis("HeartDisease", r"heart|cardiac|coronary|myocardial|atrial fibrillation|valve"),
    Diagnosis("Hypertension", r"hypertension"),
)
"""In order of priority: a patient with several conditions has the first of these that any of them matches."""

HEALTHY = len(DIAGNOSES)
"""The rank of a description that matches none."""

_NOT_A_DIAGNOSIS = re.compile(r"prediabet|gestational|suspected|benign", re.IGNORECASE)
_PATTERNS = tuple(re.compile(entry.pattern, re.IGNORECASE) for entry in DIAGNOSES)

SOCIAL_FINDINGS = frozenset(
    {
        "105531004",  # housing unsatisfactory
        "1187604002",  # serving in military service
        "160903007",  # full-time employment
        "160904001",  # part-time employment
        "160968000",  # risk activity involvement
        "224295006",  # only received primary school education
        "224299000",  # received higher education
        "224355006",  # served in armed forces
        "266934004",  # transport problem
        "266948004",  # has a criminal record
        "314529007",  # medication review due
        "32911000",  # homeless
        "422650009",  # social isolation
        "423315002",  # limited social contact
        "424393004",  # reports of violence in the environment
        "446654005",  # refugee
        "473461003",  # educated to high school level
        "5251000175109",  # received certificate of high school equivalency
        "706893006",  # victim of intimate partner abuse
        "713458007",  # lack of access to transportation
        "73438004",  # unemployed
        "73595000",  # stress
        "741062008",  # not in labor force
    }
)
"""SNOMED CT codes that newer exports list among conditions although they describe a person's circumstances."""


def diagnosis_rank(description: str) -> int:
    """The priority of a condition's description: an index into `DIAGNOSES`, or `HEALTHY` if it decides nothing.

    Prediabetes, gestational conditions, suspicions and benign growths decide nothing.

    Args:
        description: As in the export, such as "Essential hypertension (disorder)".
    """
    if _NOT_A_DIAGNOSIS.search(description):
        return HEALTHY
    return next((rank for rank, pattern in enumerate(_PATTERNS) if pattern.search(description)), HEALTHY)
