"""`Journal`: everything that a run leaves in its workspace while it goes on. All of it is safe to release."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from aevorium.diffusion.checkpoint import save_checkpoint
from aevorium.diffusion.denoiser import DenoiserConfig, named_arrays
from aevorium.encoding.associations import Associations
from aevorium.encoding.encoder import TableEncoder
from aevorium.encoding.evaluation import EvaluationTables
from aevorium.encoding.statistics import TableStatistics
from aevorium.governance.chain import AuditChain
from aevorium.governance.secrets import Secrets
from aevorium.progress import RoundFinished
from aevorium.server.record import StudyRecord
from aevorium.workspace import Workspace, write_atomically

__all__ = ["Journal"]


class Journal:
    """Writes artefacts and audit entries of one run.

    A workspace holds the results of one run. Those of an earlier one stay until the new run has results of its own
    (`begin_results`): a run that is refused, or fails before that, leaves an audit entry and nothing else.

    Args:
        workspace: Where they go.
        secrets: Encrypt the checkpoints, and sign the audit log.
        record: The run as it starts.
        schema_text: The study's schema as TOML.
    """

    def __init__(self, workspace: Workspace, *, secrets: Secrets, record: StudyRecord, schema_text: str) -> None:
        self.workspace = workspace
        self.record = record
        self._keys = secrets.keys
        self._schema_text = schema_text
        self._has_results = False
        self._chain = AuditChain(workspace.database, key=secrets.log)
        self._chain.require_key()
        self._lines: list[str] = []

    def note(self, action: str, detail: Mapping[str, object]) -> None:
        """Adds an entry to the server's audit chain and renews its view."""
        self._chain.append(actor=self.record.server, action=action, detail={"run_id": self.record.run_id, **detail})
        self._chain.write_view(self.workspace.audit_log)

    def update(self, **changes: object) -> None:
        """Changes the run's record, and writes it once there are results."""
        self.record = self.record.model_copy(update={**changes, "audit_head": self._chain.head})
        if self._has_results:
            self.record.write(self.workspace)

    def begin_results(self) -> None:
        """Removes the results of an earlier run and writes the schema of this one."""
        stale = [
            *self.workspace.checkpoints().values(),
            self.workspace.associations,
            self.workspace.evaluation,
            self.workspace.round_metrics,
            self.workspace.synthetic,
            self.workspace.report_html,
            self.workspace.report_json,
            self.workspace.local_report_html,
            self.workspace.local_report_json,
            self.workspace.privacy_statement,
            self.workspace.privacy_statement_json,
        ]
        # No rotation of keys may bring back a file that it had read before.
        with FileLock(self.workspace.key_lock):
            for path in stale:
                path.unlink(missing_ok=True)
        with write_atomically(self.workspace.schema) as temporary:
            temporary.write_text(self._schema_text, encoding="utf-8")
        self._has_results = True

    def write_encoder(self, encoder: TableEncoder, statistics: TableStatistics) -> None:
        """Writes the encoder, for Aevorium and for other tools, and the noisy counts that it was fitted to."""
        import joblib

        with write_atomically(self.workspace.encoder) as path:
            path.write_text(encoder.to_json() + "\n", encoding="utf-8")
        with write_atomically(self.workspace.preprocessor) as path:
            joblib.dump(encoder.model_dump(mode="json"), path)
        with write_atomically(self.workspace.statistics) as path:
            path.write_text(statistics.to_json() + "\n", encoding="utf-8")

    def write_associations(self, tables: Sequence[Associations]) -> None:
        """Writes the noisy tables of selected columns, in the order of their release."""
        content = {"schema_version": 1, "tables": [released.to_dict() for released in tables]}
        with write_atomically(self.workspace.associations) as path:
            path.write_text(json.dumps(content) + "\n", encoding="utf-8")

    def write_evaluation(self, tables: EvaluationTables) -> None:
        """Writes the noisy evaluation tables."""
        with write_atomically(self.workspace.evaluation) as path:
            path.write_text(tables.to_json() + "\n", encoding="utf-8")

    def write_round(
        self,
        finished: RoundFinished,
        *,
        vector: NDArray[np.float32],
        codes: Mapping[int, str],
        names: Mapping[int, str],
    ) -> None:
        """Writes a round's checkpoint, metrics and audit entry.

        Args:
            finished: The round.
            vector: float32 [parameters], the averaged model.
            codes: Error codes of nodes that failed, by node id.
            names: Names of the nodes by id.
        """
        path = self._write_checkpoint(finished.round, vector)
        metrics = {
            "round": finished.round,
            "nodes": [names[node_id] for node_id in names if node_id not in codes],
            "failed": {names[node_id]: code for node_id, code in codes.items()},
            "loss": finished.loss,
            "loss_noise": finished.loss_noise,
            "epsilon": finished.spent if math.isfinite(finished.spent) else "Infinity",
            "seconds": round(finished.seconds, 3),
        }
        self._lines.append(json.dumps(metrics))
        with write_atomically(self.workspace.round_metrics) as temporary:
            temporary.write_text("\n".join(self._lines) + "\n", encoding="utf-8")
        self.note("checkpoint_written", {"round": finished.round, "file": path.name, "nodes": metrics["nodes"]})

    def write_model(self, vector: NDArray[np.float32]) -> None:
        """Writes the checkpoint of a run without rounds, and its audit entry.

        Args:
            vector: float32 [parameters], the pre-trained model.
        """
        path = self._write_checkpoint(0, vector)
        self.note("checkpoint_written", {"round": 0, "file": path.name, "nodes": []})

    def _write_checkpoint(self, round: int, vector: NDArray[np.float32]) -> Path:
        path = self.workspace.checkpoint(round)
        # The keys as they are now: they may have been exchanged since the run began.
        with FileLock(self.workspace.key_lock):
            save_checkpoint(
                path,
                arrays=named_arrays(self.model, vector),
                model=self.model,
                schema_hash=self.record.plan.schema_hash,
                run_id=self.record.run_id,
                round_number=round,
                algorithm=self.record.plan.recipe,
                cipher=self._keys.load(),
            )
        return path

    @property
    def model(self) -> DenoiserConfig:
        """Size and shape of the run's model."""
        if self.record.model is None:
            raise ValueError("the run has no model yet")
        return self.record.model
