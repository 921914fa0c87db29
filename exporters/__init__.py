"""From a trained module to files that other runtimes load, and the proof that they compute the same thing.

    torch_to_onnx.py  one ONNX file within a target's opset ceiling, with its provenance inside
    torch_to_pt2.py   a torch.export program with a dynamic batch, for PyTorch runtimes
    runners.py        one way to run a model, whatever computes it
    parity.py         how far two of them are apart
    macs.py           multiply-accumulates and parameters of a module

Converters are named target_from_source (`onnx_from_torch`). Every exported classifier takes `image`, float32
(batch, C, H, W) in [0, 1], and gives `logits`, float32 (batch, K). This package works without `compressor`.
"""
