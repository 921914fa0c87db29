"""One image to one class with a TensorRT engine: python3 infer.py engines/student.fp16.plan photo.jpg

Of a model that gives each pixel a class it prints their shares, and writes them as classes.png: 0 is the first class.
Needs the tensorrt package and the CUDA runtime (JetPack has both), numpy and Pillow. It is written for TensorRT 8, 10
and 11; ctypes handles the GPU's memory so that no further package is needed. Copy what you need.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2  # of cudaMemcpy


def main(plan: str, photo: str) -> None:
    import tensorrt as trt

    engine = trt.Runtime(trt.Logger(trt.Logger.WARNING)).deserialize_cuda_engine(Path(plan).read_bytes())
    if engine is None:
        sys.exit(f"{plan} needs the TensorRT and the GPU that built it. Run ./run_on_board.sh --keep-engines here.")
    context = engine.create_execution_context()
    (batch, channels, height, width), outputs = sizes(engine, context)

    # (H, W, C) bytes to (1, C, H, W) float32 in [0, 1]; mean and standard deviation are inside the model.
    pixels = in_bands(Image.open(photo), channels)
    pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    image = np.asarray(pixels, dtype=np.float32).reshape(1, height, width, channels).transpose(0, 3, 1, 2) / 255
    image = np.ascontiguousarray(np.repeat(image, batch, axis=0))  # a fixed batch gets the image as often as it wants
    logits = np.empty((batch, *outputs), dtype=np.float32)

    cuda = ctypes.CDLL("libcudart.so")
    buffers = [allocate(cuda, array.nbytes) for array in (image, logits)]
    copy(cuda, buffers[0], pointer(image), image.nbytes, HOST_TO_DEVICE)
    if not context.execute_v2([buffer.value for buffer in buffers]):
        sys.exit("TensorRT failed; its messages are above.")
    copy(cuda, pointer(logits), buffers[1], logits.nbytes, DEVICE_TO_HOST)
    for buffer in buffers:
        check(cuda.cudaFree(buffer))

    if logits.ndim == 4:  # (B, K, H, W)
        classes = logits[0].argmax(axis=0)
        for index, pixels in enumerate(np.bincount(classes.ravel())):
            if pixels:
                print(f"class {index}, {pixels / classes.size:.1%} of the pixels")
        Image.fromarray(classes.astype(np.uint8)).save("classes.png")
        return
    probabilities = np.exp(logits[0] - logits[0].max())
    probabilities /= probabilities.sum()
    print(f"class {logits[0].argmax()}, probability {probabilities.max():.3f}")


def in_bands(image: Image.Image, channels: int) -> Image.Image:
    """Grey, RGB, or the file's own four bands as they are, which as CMYK are resized without taking one for alpha."""
    if channels != 4:
        return image.convert("L" if channels == 1 else "RGB")
    if image.mode not in ("RGBA", "RGBa", "RGBX", "CMYK"):
        sys.exit(f"This model takes images of four bands, and this one has {len(image.getbands())}.")
    return Image.frombytes("CMYK", image.size, image.tobytes())


def sizes(engine: Any, context: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """(B, C, H, W), told to the context, with B 1 where the graph leaves it open; and (K,) or (K, H, W)."""
    if hasattr(engine, "get_tensor_name"):  # since TensorRT 8.5
        image_name, logits_name = engine.get_tensor_name(0), engine.get_tensor_name(1)
        image_shape = (max(1, engine.get_tensor_shape(image_name)[0]), *engine.get_tensor_shape(image_name)[1:])
        context.set_input_shape(image_name, image_shape)
        return image_shape, tuple(engine.get_tensor_shape(logits_name))[1:]
    image_shape = (max(1, engine.get_binding_shape(0)[0]), *engine.get_binding_shape(0)[1:])
    context.set_binding_shape(0, image_shape)
    return image_shape, tuple(engine.get_binding_shape(1))[1:]


def allocate(cuda: Any, num_bytes: int) -> ctypes.c_void_p:
    buffer = ctypes.c_void_p()
    check(cuda.cudaMalloc(ctypes.byref(buffer), ctypes.c_size_t(num_bytes)))
    return buffer


def copy(cuda: Any, to: ctypes.c_void_p, source: ctypes.c_void_p, num_bytes: int, direction: int) -> None:
    check(cuda.cudaMemcpy(to, source, ctypes.c_size_t(num_bytes), direction))


def pointer(array: Any) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def check(code: int) -> None:
    if code:
        raise RuntimeError(f"CUDA failed with error {code}")


if __name__ == "__main__":
    main(*sys.argv[1:])
