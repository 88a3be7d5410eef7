"""Builds small Synthea exports by hand, in the column sets of several versions."""

import csv
import gzip
from pathlib import Path

# Synthea 2.4, as the SMART data sets have it.
OLDER = {
    "patients": "Id,BIRTHDATE,DEATHDATE,MARITAL,RACE,ETHNICITY,GENDER,BIRTHPLACE,CITY,STATE,COUNTY,ZIP",
    "encounters": "Id,START,STOP,PATIENT,ORGANIZATION,PROVIDER,PAYER,ENCOUNTERCLASS,CODE,DESCRIPTION,"
    "BASE_ENCOUNTER_COST,TOTAL_CLAIM_COST,PAYER_COVERAGE,REASONCODE,REASONDESCRIPTION",
    "conditions": "START,STOP,PATIENT,ENCOUNTER,CODE,DESCRIPTION",
    "medications": "START,STOP,PATIENT,PAYER,ENCOUNTER,CODE,DESCRIPTION,BASE_COST,PAYER_COVERAGE,DISPENSES,"
    "TOTALCOST,REASONCODE,REASONDESCRIPTION",
    "observations": "DATE,PATIENT,ENCOUNTER,CODE,DESCRIPTION,VALUE,UNITS,TYPE",
    "procedures": "DATE,PATIENT,ENCOUNTER,CODE,DESCRIPTION,BASE_COST,REASONCODE,REASONDESCRIPTION",
    "allergies": "START,STOP,PATIENT,ENCOUNTER,CODE,DESCRIPTION",
}
# Synthea 3.3.
NEWEST = {
    **OLDER,
    "patients": "Id,BIRTHDATE,DEATHDATE,SSN,DRIVERS,PASSPORT,PREFIX,FIRST,MIDDLE,LAST,SUFFIX,MAIDEN,MARITAL,RACE,"
    "ETHNICITY,GENDER,BIRTHPLACE,ADDRESS,CITY,STATE,COUNTY,FIPS,ZIP,LAT,LON,HEALTHCARE_EXPENSES,"
    "HEALTHCARE_COVERAGE,INCOME",
    "conditions": "START,STOP,PATIENT,ENCOUNTER,SYSTEM,CODE,DESCRIPTION",
    "observations": "DATE,PATIENT,ENCOUNTER,CATEGORY,CODE,DESCRIPTION,VALUE,UNITS,TYPE",
    "procedures": "START,STOP,PATIENT,ENCOUNTER,SYSTEM,CODE,DESCRIPTION,BASE_COST,REASONCODE,REASONDESCRIPTION",
    "allergies": "START,STOP,PATIENT,ENCOUNTER,CODE,SYSTEM,DESCRIPTION,TYPE,CATEGORY,REACTION1,DESCRIPTION1,"
    "SEVERITY1,REACTION2,DESCRIPTION2,SEVERITY2",
}


class Export:
    """Rows of the seven tables; one adult with one encounter to begin with, unless `empty`."""

    def __init__(self, *, columns=NEWEST, empty=False):
        self.columns = columns
        self.rows = {name: [] for name in columns}
        if not empty:
            self.patient("p1")
            self.encounter("p1")

    def patient(self, name, *, birth="1980-06-15", death="", gender="F"):
        self.rows["patients"].append({"Id": name, "BIRTHDATE": birth, "DEATHDATE": death, "GENDER": gender})
        return self

    def encounter(self, name, *, start="2020-06-14T10:00:00Z", kind="wellness", cost="100.0", organisation="o1"):
        self.rows["encounters"].append(
            {
                "START": start,
                "PATIENT": name,
                "ENCOUNTERCLASS": kind,
                "TOTAL_CLAIM_COST": cost,
                "ORGANIZATION": organisation,
            }
        )
        return self

    def condition(self, name, description, *, code="1", start="2010-01-01"):
        self.rows["conditions"].append({"START": start, "PATIENT": name, "CODE": code, "DESCRIPTION": description})
        return self

    def observation(self, name, code, value, *, date="2015-01-01T00:00:00Z", units=""):
        self.rows["observations"].append(
            {"DATE": date, "PATIENT": name, "CODE": code, "VALUE": value, "UNITS": units, "TYPE": "numeric"}
        )
        return self

    def event(self, table, name, *, start="2010-01-01T00:00:00Z"):
        self.rows[table].append({"START": start, "DATE": start, "PATIENT": name, "CODE": "1", "DESCRIPTION": "thing"})
        return self

    def write(self, directory: Path, *, gzipped=False) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        for name, header in self.columns.items():
            path = directory / f"{name}.csv{'.gz' if gzipped else ''}"
            with (gzip.open if gzipped else open)(path, "wt", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, header.split(","), restval="", extrasaction="ignore", lineterminator="\n")
                writer.writeheader()
                writer.writerows(self.rows[name])
        return directory
