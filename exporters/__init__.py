"""From a trained module to files that other runtimes load, and the proof that they compute the same thing.

    routes.py              which file a target takes for each precision, and what its builder is told
    torch_to_onnx.py       one ONNX file within a target's opset ceiling, with its provenance inside
    torch_to_pt2.py        a torch.export program with a dynamic batch, for PyTorch runtimes
    onnx_to_fp16.py        a typed fp16 graph; fp16_rules.py says what stays fp32
    onnx_to_int8.py        an int8 graph; int8_placement.py says where, int8_layers.py how a layer is written
    calibration.py         activation ranges from images in one pass; histograms.py turns them into clipping
    int8_search.py         the calibration and the float layers that keep the answers
    onnx_to_tensorrt.py    an engine with its card (engine_card.py), by TensorRT 10, 11 or RTX (tensorrt_backend.py)
    device_kit.py          what builds, checks and times on the board itself: kit/, golden.py, kit_manifest.py
    runners.py             one way to run a model, whatever computes it; logits.py runs it over many images
    parity.py              how far two of them are apart
    onnx_files.py          ONNX files, read with every refusal
    macs.py                multiply-accumulates and parameters of a module; onnx_counts.py those of an ONNX file

Converters are named target_from_source (`onnx_from_torch`). Every exported classifier takes `image`, float32
(batch, C, H, W) in [0, 1], and gives `logits`, float32 (batch, K), in every precision. This package works without
`compressor`: docs/export_alone.py is an example.
"""

import os

# ONNX Runtime 1.31 keeps an identity of the machine and a queue of events in the user's home; read when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
