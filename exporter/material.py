"""Text for one export: what calibration looks at and what files are judged on, made once and only when wanted.

Stage 3 of the way of one request. Goes in: the loaded model with its tokenizer, and the owner's files. Comes out:
``quantize.Calibration`` and ``quality.QualityReference``, which share no run of tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter import calibration, quality, quantize, texts
from exporter.checkpoint import Checkpoint
from exporter.facts import Clock
from exporter.spec import ExportSpec

OnProgress = Callable[[str, float, str], None]
"""(stage, fraction of it, message)"""


@dataclass
class Material:
    """Calibration and evaluation text of one export.

    Args:
        scratch: where the original's logits go; see ``quality.reference``.
    """

    model: Any
    tokenizer: Any
    ckpt: Checkpoint
    spec: ExportSpec
    max_seq_len: int
    scratch: Path
    clock: Clock
    progress: OnProgress
    _calibration: quantize.Calibration | None = field(default=None, init=False)
    _judge: quality.QualityReference | None = field(default=None, init=False)

    def calibration(self) -> quantize.Calibration:
        """Raises InvalidCalibration, as ``calibration.prepare``."""
        if self._calibration is None:
            chat = [passage for passage in self.judge().passages if passage.kind == "chat"]
            with self.clock.stage("calibration text"):
                self._calibration = calibration.prepare(
                    self.model,
                    self.tokenizer,
                    self.spec,
                    self.ckpt.directory,
                    max_seq_len=self.max_seq_len,
                    vocab_size=self.ckpt.vocab_size,
                    progress=lambda fraction, message: self.progress("calibrate", fraction, message),
                    judged=[passage.ids[0, passage.first + 1 :].tolist() for passage in chat],
                )
        return self._calibration

    def judge(self) -> quality.QualityReference:
        """Raises DiskFull, as ``quality.reference``."""
        if self._judge is None:
            own = calibration.own_evaluation(self.spec.calibration, self.ckpt.directory)
            passages = texts.evaluation(self.tokenizer, self.max_seq_len, self.ckpt.vocab_size, own)
            with self.clock.stage("quality reference"):
                self._judge = quality.reference(
                    self.model,
                    self.tokenizer,
                    passages,
                    max_seq_len=self.max_seq_len,
                    vocab_size=self.ckpt.vocab_size,
                    eos_ids=self.ckpt.eos_ids,
                    scratch=self.scratch,
                    progress=lambda fraction, message: self.progress("reference", fraction, message),
                )
        return self._judge
