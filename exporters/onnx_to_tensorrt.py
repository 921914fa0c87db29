"""A typed ONNX classifier as a TensorRT engine, with a card that says where it may run.

In: an ONNX file whose types are its precision. Out: `path`, and its card `<path>.json`. The builder chooses kernels
by timing them on the GPU, so an engine is for one GPU architecture, one TensorRT and one system; a static batch
gives the kernels for exactly that batch and is what a latency is measured on.

What the builder learned is kept in a timing cache: one file for each TensorRT version, device and compute capability,
because TensorRT combines no others.
"""

from __future__ import annotations

import hashlib
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporters.engine_card import BatchProfile, EngineCard, card_path, write_card
from exporters.errors import ExportError
from exporters.files import write_atomically
from exporters.onnx_files import ClassifierInterface, classifier_interface, load_onnx
from exporters.tensorrt_backend import Backend, Gpu, require_gpu, usable_gpu
from profiles.schema import Precision

STATIC_BATCH = BatchProfile(min=1, opt=1, max=1)
MAX_REPORTED_ERRORS = 3


@dataclass(frozen=True)
class EngineFile:
    """An engine as it lies on disk.

    Attributes:
        path: where it is; its card lies beside it.
        size_mib: size in MiB (2^20 bytes).
        card: what it is.
        num_layers: of the network that was parsed, before the builder fused them.
        build_s: seconds that parsing and building took.
    """

    path: Path
    size_mib: float
    card: EngineCard
    num_layers: int
    build_s: float


def engine_from_onnx(
    source: Path,
    path: Path,
    *,
    backend: Backend,
    precision: Precision,
    rebuild: str,
    preprocessing: Mapping[str, str],
    batch: BatchProfile = STATIC_BATCH,
    workspace_mib: int | None = None,
    compute_capability: str | None = None,
    timing_cache_folder: Path | None = None,
    tf32: bool = True,
) -> EngineFile:
    """Build an engine; both files appear when it is complete.

    Args:
        source: a classifier whose types are its precision; nothing is lowered here.
        path: where the engine goes; its folder exists.
        backend: what builds.
        precision: for the card.
        rebuild: for the card: the command that a user types to build it again.
        preprocessing: for the card.
        batch: images of one call.
        workspace_mib: the most scratch memory that a kernel may take; None leaves it to TensorRT.
        compute_capability: the GPU to build for, such as '8.6', where the backend can build ahead; None is the GPU
            of this machine.
        timing_cache_folder: where timing caches are kept, made if it is missing; None keeps none.
        tf32: False keeps fp32 convolutions and matrix products in true fp32, which is slower.

    Raises:
        ExportError: the file is no classifier, its batch is fixed to another one, or TensorRT refused it; the message
            names the nodes.
        GpuMissing: building for this machine, which has no GPU that works.
        OSError: a file could not be written.
    """
    proto = load_onnx(source)
    interface = classifier_interface(proto, source.name)
    _check_batch(source, interface, batch)
    target, gpu = _check_target(backend, compute_capability)
    started = time.monotonic()

    logger = backend.logger()
    builder = backend.module.Builder(logger)
    network = builder.create_network(backend.network_flags)
    _parse(backend, network, logger, proto.SerializeToString(), source)
    config = builder.create_builder_config()
    if workspace_mib is not None:
        config.set_memory_pool_limit(backend.module.MemoryPoolType.WORKSPACE, workspace_mib << 20)
    if not tf32:
        config.clear_flag(backend.module.BuilderFlag.TF32)
    if compute_capability in backend.targets:
        backend.set_target(config, target)
    if interface.batch is None:
        profile = builder.create_optimization_profile()
        shapes = [(count, *interface.image_shape) for count in (batch.min, batch.opt, batch.max)]
        profile.set_shape(interface.input_name, *shapes)
        config.add_optimization_profile(profile)
    cache = _open_cache(backend, config, gpu, timing_cache_folder)
    serialised = builder.build_serialized_network(network, config)
    if serialised is None:
        raise _refused(backend, source, "cannot build", logger.errors)
    content = bytes(serialised)
    build_s = time.monotonic() - started
    if cache is not None:
        write_atomically(bytes(config.get_timing_cache().serialize()), cache)

    card = EngineCard(
        backend=backend.name,
        version=backend.version,
        compute_capability=target,
        device=gpu.name if gpu else None,
        cuda=gpu.cuda if gpu else None,
        system=platform.system(),
        machine=platform.machine(),
        precision=precision,
        tf32=tf32,
        batch=batch,
        preprocessing=dict(preprocessing),
        onnx_sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
        engine_sha256=hashlib.sha256(content).hexdigest(),
        engine_bytes=len(content),
        rebuild=rebuild,
    )
    card_path(path).unlink(missing_ok=True)  # an old card never lies beside a new engine
    write_atomically(content, path)
    return EngineFile(path, len(content) / 2**20, write_card(card, path), network.num_layers, build_s)


def _check_batch(source: Path, interface: ClassifierInterface, batch: BatchProfile) -> None:
    if interface.batch is not None and not (batch.is_static and batch.opt == interface.batch):
        raise ExportError(
            f"{source.name} takes {interface.batch} images a call, and an engine for {batch} was asked for.",
            "The batch of a graph with a fixed one cannot be changed.",
            f"Ask for a batch of {interface.batch}, or export the model with a dynamic batch.",
        )


def _check_target(backend: Backend, wanted: str | None) -> tuple[str, Gpu | None]:
    """The compute capability to build for, and this machine's GPU; None only where the builder needs none."""
    if wanted in backend.targets:
        return wanted, usable_gpu()
    gpu = require_gpu(f"Building an engine with {backend}")
    if wanted not in (None, gpu.compute_capability):
        raise ExportError(
            f"{backend} was asked for an engine for compute capability {wanted}.",
            f"Here it builds for {', '.join((*backend.targets, gpu.compute_capability))}.",
            "Build on a machine with that GPU; for a Jetson use the device kit.",
        )
    return gpu.compute_capability, gpu


def _parse(backend: Backend, network: Any, logger: Any, content: bytes, source: Path) -> None:
    parser = backend.module.OnnxParser(network, logger)
    if not parser.parse(content):
        errors = (parser.get_error(index) for index in range(parser.num_errors))
        raise _refused(
            backend,
            source,
            "cannot parse",
            [f"{error.node_name() or 'graph'} ({error.node_operator() or '-'}): {error.desc()}" for error in errors],
        )


def _refused(backend: Backend, source: Path, what: str, errors: list[str]) -> ExportError:
    listed = "; ".join(" ".join(error.split()).rstrip(".") for error in errors[:MAX_REPORTED_ERRORS])
    rest = f"; and {len(errors) - MAX_REPORTED_ERRORS} more" if len(errors) > MAX_REPORTED_ERRORS else ""
    return ExportError(
        f"{backend} {what} {source.name}: {listed or 'it gave no reason'}{rest}.",
        "A graph of operators and types that this TensorRT supports was expected.",
        "Export the model at another opset, or replace the nodes named above.",
    )


def _open_cache(backend: Backend, config: Any, gpu: Gpu | None, folder: Path | None) -> Path | None:
    """Give the builder the cache for exactly this TensorRT and GPU, empty where it is missing or damaged."""
    if folder is None or gpu is None or not backend.has_timing_cache:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{backend.name}-{backend.version}-{gpu.name}-sm{gpu.compute_capability}"
    path = folder / (re.sub(r"[^A-Za-z0-9.-]+", "_", name) + ".cache")
    known = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(known)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    return path
