"""Names and combinations are checked before any work; what is skipped says why."""

from __future__ import annotations

import pytest

from exporter import backends, plan, quantize
from exporter.backends import Availability
from exporter.errors import UnknownBackend, UnknownPrecision, UnsupportedCombination
from exporter.report import Status
from exporter.spec import ExportSpec


def test_everything_by_default() -> None:
    found = plan.plan(ExportSpec())
    made = [(backend.name, precision) for backend, precision in found.make]
    assert made == [
        ("portable", "fp32"),
        ("portable", "8da4w"),
        ("xnnpack", "fp32"),
        ("xnnpack", "8da4w"),
        ("openvino", "fp32"),
    ]
    (skipped,) = found.skipped
    assert (skipped.backend, skipped.precision, skipped.status) == ("openvino", "8da4w", Status.SKIPPED)
    assert skipped.reason == "openvino does not take 8da4w; it takes: fp32, 8w, 4w, 4w-nncf"


def test_the_order_is_the_askers() -> None:
    found = plan.plan(ExportSpec(backends=("xnnpack", "portable"), precisions=("8da4w", "fp32")))
    made = [(backend.name, precision) for backend, precision in found.make]
    assert made == [("xnnpack", "8da4w"), ("xnnpack", "fp32"), ("portable", "8da4w"), ("portable", "fp32")]


@pytest.mark.parametrize("name", ["tpu", "", "XNNPACK", "../xnnpack", "exporter.backends.xnnpack"])
def test_an_unknown_backend_is_refused_with_the_choices(name: str) -> None:
    with pytest.raises(UnknownBackend, match="the choices are: portable, xnnpack, openvino"):
        plan.plan(ExportSpec(backends=("portable", name)))
    with pytest.raises(UnknownBackend):
        backends.get(name)


@pytest.mark.parametrize("name", ["2bit", "", "FP32"])
def test_an_unknown_precision_is_refused_with_the_choices(name: str) -> None:
    with pytest.raises(UnknownPrecision, match="the choices are: fp32, 8da8w, 8da4w, 8da4w-rtn, 4w"):
        plan.plan(ExportSpec(precisions=(name,)))
    with pytest.raises(UnknownPrecision):
        quantize.get(name)


def test_a_backend_that_takes_nothing_of_what_is_wanted_is_refused() -> None:
    words = r"No backend of openvino takes 8da4w; openvino takes: fp32, 8w, 4w, 4w-nncf\."
    with pytest.raises(UnsupportedCombination, match=words):
        plan.plan(ExportSpec(backends=("openvino",), precisions=("8da4w",)))


def test_a_backend_that_takes_nothing_is_skipped_beside_others() -> None:
    """`--precision auto` is asked of all backends, and one makes it."""
    found = plan.plan(ExportSpec(precisions=("auto",), max_kl=0.05))
    assert [(backend.name, precision) for backend, precision in found.make] == [("xnnpack", "auto")]
    assert {(cell.backend, cell.precision) for cell in found.skipped} == {("portable", "auto"), ("openvino", "auto")}


def test_what_is_not_here_is_skipped_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = Availability(available=False, reason="the packages nncf are missing", install="pip install nncf")
    monkeypatch.setattr(backends.get("openvino"), "availability", lambda: missing)
    found = plan.plan(ExportSpec())
    assert {backend.name for backend, _ in found.make} == {"portable", "xnnpack"}
    reasons = {cell.precision: cell.reason for cell in found.skipped}
    assert reasons["fp32"] == (
        "not available on this machine: the packages nncf are missing (to install: pip install nncf)"
    )
    assert reasons["8da4w"] == "openvino does not take 8da4w; it takes: fp32, 8w, 4w, 4w-nncf"


@pytest.mark.parametrize("name", backends.TABLE)
def test_every_backend_states_what_the_protocol_asks(name: str) -> None:
    backend = backends.get(name)
    assert backend.name == name
    assert set(backend.precisions) <= set(quantize.TABLE)
    assert set(backend.attentions) <= {"custom", "stock"}
    assert "stock" in backend.attentions, "every model has a stock attention"
    assert backend.shape_policy in ("dynamic", "single")
    assert backend.verified_as.good
    assert backend.title != name
    assert backend.availability().available, backend.availability().reason
