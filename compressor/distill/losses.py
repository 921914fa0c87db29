"""Loss terms as pure functions, named as their papers name them.

Shapes: B batch, K classes, D features, (h, w) positions of a feature map. Every function returns a scalar that is
minimised, computed in float32, and is a mean over the batch unless it says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.distill.batch_norm_match import LayerStatistics
from compressor.distill.monitor import class_evenness

# --- adversarial and class terms (ADC-GAN, Hou et al. 2022) ---------------------------------------------------------


def hinge_discriminator(real_scores: Tensor, synthetic_scores: Tensor) -> Tensor:
    """Scores (B,): real above 1, synthetic below -1."""
    return F.relu(1.0 - real_scores.float()).mean() + F.relu(1.0 + synthetic_scores.float()).mean()


def hinge_generator(synthetic_scores: Tensor) -> Tensor:
    """Scores (B,) that the generator wants high. Unbounded below; the discriminator's next step answers it."""
    return -synthetic_scores.float().mean()


def class_discriminator(
    real_logits: Tensor, real_labels: Tensor, synthetic_logits: Tensor, synthetic_labels: Tensor
) -> Tensor:
    """Cross-entropy over 2K slots: class k has a real slot 2k and a synthetic slot 2k + 1.

    Args:
        real_logits, synthetic_logits: (B, 2K).
        real_labels, synthetic_labels: (B,) in 0..K-1.
    """
    return F.cross_entropy(real_logits.float(), 2 * real_labels) + F.cross_entropy(
        synthetic_logits.float(), 2 * synthetic_labels + 1
    )


def class_generator(synthetic_logits: Tensor, labels: Tensor) -> Tensor:
    """Pull towards the real slot of the wanted class, push away from its synthetic slot.

    At the discriminator's optimum this is KL(q(x, y) || p(x, y)) between synthetic and real data. The second term is
    subtracted on purpose: without it the generator does not see how much it is over-represented.

    Args:
        synthetic_logits: (B, 2K).
        labels: (B,), the classes that the images were generated for.
    """
    logits = synthetic_logits.float()
    return F.cross_entropy(logits, 2 * labels) - F.cross_entropy(logits, 2 * labels + 1)


# --- feature integration (HiDFD equations 8 and 9) ------------------------------------------------------------------


def feature_integration_matched(
    teacher_real: Tensor, teacher_synthetic: Tensor, head_real: Tensor, head_synthetic: Tensor
) -> Tensor:
    """`L_trans`: the discriminator's feature head predicts the teacher's features of the same image.

    Args:
        teacher_real, teacher_synthetic: (B, D), constants, divided by their mean norm on the real images.
        head_real, head_synthetic: (B, D), the discriminator's predictions.
    """
    return _mean_distance(teacher_real, head_real) + _mean_distance(teacher_synthetic, head_synthetic)


def feature_integration_crossed(
    teacher_real: Tensor, teacher_synthetic: Tensor, head_real: Tensor, head_synthetic: Tensor
) -> Tensor:
    """`L_blend`: the targets change sides, so that the discriminator cannot keep the two clouds apart.

    Row i of the real batch is paired with row i of the synthetic batch; both orders are random.
    """
    return _mean_distance(teacher_real, head_synthetic) + _mean_distance(teacher_synthetic, head_real)


def _mean_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean over the batch of the Euclidean distance over features; the epsilon keeps the gradient finite at zero."""
    return ((a.float() - b.float()).square().sum(dim=1) + 1e-12).sqrt().mean()


# --- category frequency smoothing (HiDFD equations 10 to 12) --------------------------------------------------------


def category_frequency_smoothing(marginal: Tensor, class_weights: Tensor) -> Tensor:
    """`L_reg = sum_k w_k p_k log p_k`, minus a weighted entropy of the teacher's mean prediction on generated images.

    With unit weights the minimum is -log K at the uniform marginal. A class with a larger weight is given more mass.

    Args:
        marginal: (K,) mean over the batch of softmax(teacher logits).
        class_weights: (K,) with mean 1, from `ClassFrequency`.
    """
    p = marginal.float()
    return (class_weights * p * torch.log(p + 1e-8)).sum()


LEAST_COUNTS = 20.0  # images for every class, before their evenness is judged; the least frequency of one is one


class ClassFrequency:
    """How often the teacher sees each class in the generated images, and the weights that follow.

    Counts are collected every step and folded into the smoothed frequency every `period` steps:

        N <- max(1, momentum * N + (1 - momentum) * n),    w_k = K (1 / N_k) / sum_j (1 / N_j),    n <- 0

    The official code never calls this update, so its weights stay 1.

    Args:
        prior: (K,) expected counts of one window before anything was seen.
        period: steps between updates.
        momentum: share of the old frequency that is kept.
    """

    def __init__(self, prior: Tensor, period: int, momentum: float = 0.5) -> None:
        self.frequency = prior.float().clamp_min(1.0)
        self.counts = torch.zeros_like(self.frequency)
        self.class_weights = torch.ones_like(self.frequency)
        self.running_marginal = torch.full_like(self.frequency, 1.0 / len(prior))
        self.period = period
        self.momentum = momentum

    def remember(self, probabilities: Tensor) -> None:
        """Let the running mean follow one batch (B, K), where the classes are more than its images."""
        num_classes, batch_size = len(self.frequency), len(probabilities)
        if num_classes > batch_size:
            keep = 1.0 - batch_size / (4.0 * num_classes)
            batch = probabilities.detach().float().mean(dim=0)
            self.running_marginal = keep * self.running_marginal + (1.0 - keep) * batch

    def marginal(self, probabilities: Tensor, whole: Tensor | None = None) -> Tensor:
        """(B, K) -> (K,) mean prediction.

        Where K exceeds the batch, one batch cannot show a marginal: the value is then a running mean over about
        4 K / B batches, and the gradient is the current batch's (straight-through).

        Args:
            whole: (B, K) of the whole batch, where `probabilities` are a part of it: the value is then the whole
                batch's, and the gradient the part's. It was given to `remember` before the first part.
        """
        batch = probabilities.float().mean(dim=0)
        if whole is None:
            self.remember(probabilities)
        if len(self.frequency) > len(probabilities if whole is None else whole):
            return self.running_marginal + batch - batch.detach()
        return batch if whole is None else whole.detach().float().mean(dim=0) + batch - batch.detach()

    def observe(self, predictions: Tensor, step: int) -> None:
        """Count the teacher's argmax (B,) of this step; on the last step of a period, update the weights."""
        # Not torch.bincount, which waits for the device to learn the largest class.
        self.counts.index_add_(0, predictions, torch.ones_like(predictions, dtype=self.counts.dtype))
        if (step + 1) % self.period == 0:
            mixed = self.momentum * self.frequency + (1.0 - self.momentum) * self.counts
            self.frequency = mixed.clamp_min(1.0)
            inverse = 1.0 / self.frequency
            self.class_weights = len(inverse) * inverse / inverse.sum()
            self.counts.zero_()

    def judged_evenness(self) -> float | None:
        """Entropy of the smoothed frequency over log K; see `recovery.ShowsClasses`."""
        enough = float(self.frequency.sum()) > LEAST_COUNTS * len(self.frequency)
        return class_evenness(self.frequency) if enough else None

    def state_dict(self) -> dict[str, Tensor]:
        names = ("frequency", "counts", "class_weights", "running_marginal")
        return {name: getattr(self, name).clone() for name in names}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, value in state.items():
            setattr(self, name, value.to(self.frequency.device))


# --- student terms ---------------------------------------------------------------------------------------------------


def feature_alignment(projected_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Mean squared difference of two maps (B, D, h, w), over batch, channels and positions (SimKD; HiDFD equation 14).

    Where the teacher's map is larger it is average-pooled to the student's size.
    """
    if teacher_map.shape[-2:] != projected_map.shape[-2:]:
        height, width = projected_map.shape[-2:]
        teacher_map = F.adaptive_avg_pool2d(teacher_map, (height, width))
    return F.mse_loss(projected_map.float(), teacher_map.float())


def stage_alignment(student_maps: Sequence[Tensor], teacher_maps: Sequence[Tensor], scales: Tensor) -> Tensor:
    """Mean over stages of the mean squared difference of two maps over the teacher's variance (FitNets' hints).

    Args:
        student_maps, teacher_maps: of each stage two tensors of one shape (B, D, h, w).
        scales: (stages,), the variance of the teacher's maps on real images.
    """
    errors = [F.mse_loss(own.float(), other.float()) for own, other in zip(student_maps, teacher_maps, strict=True)]
    return (torch.stack(errors) / scales).mean()


def knowledge_distillation(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """KL(teacher || student) of the softened predictions, times temperature squared (Hinton et al. 2015).

    Args:
        student_logits, teacher_logits: (B, K), or (B, K, H, W), where the mean is over pixels as well.
    """
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    student = F.log_softmax(student_logits.float() / temperature, dim=1)
    num_predictions = student.numel() // student.shape[1]
    return F.kl_div(student, teacher, reduction="sum", log_target=True) / num_predictions * temperature**2


def squared_error(student_output: Tensor, teacher_output: Tensor) -> Tensor:
    """Mean squared difference over all elements of two outputs of one shape; regression's distillation."""
    return F.mse_loss(student_output.float(), teacher_output.float())


# --- the discrepancy of teacher and student (DFAD, Fang et al. 2019) ------------------------------------------------


def discrepancy(student_output: Tensor, teacher_output: Tensor) -> Tensor:
    """Mean absolute difference over all elements (equation 1): the student lowers it.

    Args:
        student_output, teacher_output: (B, K), (B, K, H, W) or anything else of one shape, before any softmax.
    """
    return (student_output.float() - teacher_output.float()).abs().mean()


def negative_discrepancy(student_output: Tensor, teacher_output: Tensor) -> Tensor:
    """Minus the discrepancy: the generator lowers this. Unbounded below; the student's next steps answer it."""
    return -discrepancy(student_output, teacher_output)


def negative_log_discrepancy(student_output: Tensor, teacher_output: Tensor) -> Tensor:
    """-log(discrepancy + 1): the same direction, slower where the gap is large. DFAD's form for segmentation."""
    return -torch.log1p(discrepancy(student_output, teacher_output))


# --- what training images look like to their teacher (DAFL, Chen et al. 2019; DeepInversion, Yin et al. 2020) -------


def batch_norm_distance(statistics: Sequence[LayerStatistics]) -> Tensor:
    """Sum over the teacher's batch norms of the Euclidean distances of batch mean and variance to the stored ones."""
    distances = [
        _norm(layer.mean - layer.stored_mean.float()) + _norm(layer.var - layer.stored_var.float())
        for layer in statistics
    ]
    return torch.stack(distances).sum()


def own_class(teacher_logits: Tensor) -> Tensor:
    """Cross-entropy of the teacher's prediction to its own argmax: images that it is sure of (DAFL's one-hot loss).

    Args:
        teacher_logits: (B, K) or (B, K, H, W).
    """
    logits = teacher_logits.float()
    return F.cross_entropy(logits, logits.argmax(dim=1))


def class_balance(teacher_logits: Tensor) -> Tensor:
    """Minus the entropy, in nats, of the mean prediction: all classes equally often (DAFL's information entropy).

    Args:
        teacher_logits: (B, K) or (B, K, H, W). The minimum is -log K.
    """
    mean = teacher_logits.float().softmax(dim=1).transpose(0, 1).flatten(1).mean(dim=1)
    return category_frequency_smoothing(mean, torch.ones_like(mean))


def activation(teacher_features: Tensor) -> Tensor:
    """Minus the mean absolute feature (B, D): real images excite a network more than others do (DAFL)."""
    return -teacher_features.float().abs().mean()


def _norm(difference: Tensor) -> Tensor:
    """Euclidean norm of (C,); the epsilon keeps the gradient finite at zero."""
    return (difference.square().sum() + 1e-12).sqrt()
