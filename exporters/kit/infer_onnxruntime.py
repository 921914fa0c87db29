"""One image to one class with ONNX Runtime: python3 infer.py models/student.fp32.onnx photo.jpg

Of a model that gives each pixel a class it prints their shares, and writes them as classes.png: 0 is the first class.
Needs numpy, onnxruntime and Pillow, and nothing else. Copy what you need.
"""

from __future__ import annotations

import sys

import numpy as np
import onnxruntime
from PIL import Image


def main(model: str, photo: str) -> None:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (image_input,) = session.get_inputs()
    batch, channels, height, width = image_input.shape

    # (H, W, C) bytes to (1, C, H, W) float32 in [0, 1]; mean and standard deviation are inside the model.
    pixels = in_bands(Image.open(photo), channels)
    pixels = pixels.resize((width, height), Image.Resampling.BILINEAR)
    image = np.asarray(pixels, dtype=np.float32).reshape(1, height, width, channels).transpose(0, 3, 1, 2) / 255
    if isinstance(batch, int):  # a model of fixed batch gets the image as often as it wants
        image = np.repeat(image, batch, axis=0)

    logits = session.run(None, {image_input.name: np.ascontiguousarray(image)})[0][0]
    if logits.ndim == 3:  # (K, H, W)
        classes = logits.argmax(axis=0)
        for index, pixels in enumerate(np.bincount(classes.ravel())):
            if pixels:
                print(f"class {index}, {pixels / classes.size:.1%} of the pixels")
        Image.fromarray(classes.astype(np.uint8)).save("classes.png")
        return
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    print(f"class {logits.argmax()}, probability {probabilities.max():.3f}")


def in_bands(image: Image.Image, channels: int) -> Image.Image:
    """Grey, RGB, or the file's own four bands as they are, which as CMYK are resized without taking one for alpha."""
    if channels != 4:
        return image.convert("L" if channels == 1 else "RGB")
    if image.mode not in ("RGBA", "RGBa", "RGBX", "CMYK"):
        sys.exit(f"This model takes images of four bands, and this one has {len(image.getbands())}.")
    return Image.frombytes("CMYK", image.size, image.tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
