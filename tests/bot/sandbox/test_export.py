"""A real export by root's ptebot: another user, no network, a model and a state directory that only root may enter."""

from __future__ import annotations

from pathlib import Path

from tests.bot.sandbox.as_root import UID, needs_root, open_folder, ptebot
from tests.exporter.models import tiny_model

CODE = """
from pathlib import Path
from bot import export_process, speed
from bot.sandbox.call import within
from exporter import spec as specs
asked = {"backends": ["xnnpack", "openvino"], "precisions": ["fp32"], "max_seq_len": 64, "rehearse": False}
report = export_process.run_export(specs.parse(asked), Path("model"), Path("out"), conditions=within(8 << 30))
found["cells"] = [(cell.backend, cell.status.value, cell.reason) for cell in report.cells]
found["texts"] = [text.name for text in report.cells[0].parity.texts]
found["name"] = report.model.name
found["owners"] = sorted({path.stat().st_uid for path in [Path("out"), *Path("out").rglob("*")]})
found["there"] = sorted(path.name for path in Path().iterdir())
found["speeds"] = speed.as_data(speed.measure(report, Path("out"), None, rounds=1, seconds=5))
"""


@needs_root
def test_an_export_works_and_its_files_are_roots() -> None:
    with open_folder() as name:
        closed = Path(name, "closed")
        closed.mkdir(mode=0o700)
        model = tiny_model("llama", closed / "model", num_hidden_layers=1)
        for path in model.iterdir():
            path.chmod(0o600)
        found = ptebot(CODE, cwd=closed, user=str(UID + 32), OMP_NUM_THREADS="1")
    assert found["cells"] == [["xnnpack", "ran", None], ["openvino", "ran", None]]
    assert "chat" in found["texts"], "the chat template's own process works there too"
    assert found["name"] == "model"
    assert found["owners"] == [0]
    assert found["there"] == ["model", "out"], "no staging stays behind"
    assert [one["backend"] for one in found["speeds"]["cells"]] == ["xnnpack", "openvino"]
    assert found["speeds"]["notes"] == []
