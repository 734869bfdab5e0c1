"""OpenVINO's own weight compression (nncf) of a traced graph.

Goes in: a float32 graph of one token a call, calibration inputs. Comes out: the graph with weights packed as nncf does
it: int4, symmetric, one scale per 32 inputs, found on the activations that calibration saw (nncf's scale estimation);
the embedding and the output layer in int8 rows. nncf keeps scales in half precision.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from torch.fx import GraphModule

from exporter.backend_quantize import Inputs, Rounded

GROUP_SIZE = 32
"""Inputs per int4 scale, as in the project's other 4-bit formats, so that figures compare."""
_SUFFIX = "_updated_constant0"
"""What nncf 3.1 appends to a constant's name when it puts the packed one in its place."""


def compress(graph: GraphModule, inputs: Sequence[Inputs], precision: str) -> Rounded:
    """Compress the weights of ``graph``, which changes; without inputs, by rounding to nearest."""
    import nncf
    from executorch.backends.openvino.quantizer.quantizer import OpenVINOQuantizer, QuantizationMode
    from nncf.experimental.torch.fx import compress_pt2e

    names: dict[int, str] = {}
    sizes, spelled = {}, {}
    for name, parameter in graph.named_parameters(remove_duplicate=False):
        first = names.setdefault(id(parameter), name)
        sizes[first] = parameter.numel()
        spelled[name.replace(".", "_") + _SUFFIX] = first
    logging.getLogger("nncf").setLevel(logging.WARNING)  # it prints tables of every layer
    done = compress_pt2e(
        graph,
        OpenVINOQuantizer(mode=QuantizationMode.INT4WO_SYM, group_size=GROUP_SIZE),
        dataset=nncf.Dataset(inputs) if inputs else None,
        scale_estimation=bool(inputs),
        # A smaller number would end the pass over the text there.
        subset_size=max(len(inputs), 1),
    )
    formats = {
        spelled[name]: "int4" if 2 * buffer.numel() == sizes[spelled[name]] else "int8"
        for name, buffer in done.named_buffers()
        if name in spelled
    }
    how = "scales estimated on calibration text" if inputs else "rounded to nearest"
    return Rounded(
        graph=done,
        algorithm=f"int4 weights (groups of {GROUP_SIZE}) by nncf, {how}; embedding and output layer in int8",
        formats=formats,
    )
