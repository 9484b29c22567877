"""What holds embeddings of two domains together: a distance of samples, a reversed gradient, a weight that grows."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn.functional import binary_cross_entropy_with_logits

WIDTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of kernels, in units of the median distance


def mmd2(
    a: torch.Tensor, b: torch.Tensor, widths: Sequence[float] | None = None, unbiased: bool = False
) -> torch.Tensor:
    """Squared maximum mean discrepancy of two samples, with a mean of Gaussian kernels.

    Parameters
    ----------
    a, b : tensor, rows × features
        Floating point, of the same features; they may differ in their number of rows.
    widths : sequence of float, optional
        Standard deviations of the kernels, in the units of the features. Without it :data:`WIDTHS` times the median
        distance between all pairs, which is taken as a constant by the gradient.
    unbiased : bool
        Leave out the kernel of each row with itself. The expected value is then 0 for samples of one distribution, and
        a single value may be negative; without, it never is.

    Returns
    -------
    scalar tensor

    References
    ----------
    Gretton and others, *A kernel two-sample test* (2012), equations 3 and 5.
    """
    both, n, m = torch.cat([a, b]), len(a), len(b)
    both = both - both.mean(0)  # distances stay, and squares that would only cancel are smaller
    norms = both.square().sum(1)
    squared = (norms[:, None] + norms - 2 * both @ both.T).clamp_min(0)
    squared = squared * (1 - torch.eye(n + m, dtype=both.dtype, device=both.device))
    if widths is None:
        pairs = torch.triu_indices(n + m, n + m, 1, device=both.device)
        apart = squared.detach()[pairs[0], pairs[1]]
        median = (apart.kthvalue((len(apart) + 1) // 2).values + apart.kthvalue(len(apart) // 2 + 1).values) / 2
        widths = [w * median.clamp_min(torch.finfo(both.dtype).tiny).sqrt() for w in WIDTHS]
    kernel = gaussian_kernel(squared, widths)
    within_a, within_b, across = kernel[:n, :n].sum(), kernel[n:, n:].sum(), kernel[:n, n:].mean()
    if unbiased:
        return (within_a - n) / (n * (n - 1)) + (within_b - m) / (m * (m - 1)) - 2 * across
    return within_a / n**2 + within_b / m**2 - 2 * across


def gaussian_kernel(squared: torch.Tensor, widths: Sequence[float]) -> torch.Tensor:
    """Mean of Gaussian kernels of these standard deviations at these squared distances: a tensor of the same shape."""
    return sum(torch.exp(-squared / (2 * w**2)) for w in widths) / len(widths)


def paired_mmd2(
    samples: torch.Tensor, pairs: torch.Tensor, widths: Sequence[float] | None = None, unbiased: bool = False
) -> torch.Tensor:
    """:func:`mmd2` of many pairs out of some samples of one size; the kernels within a sample are worked out once.

    Parameters
    ----------
    samples : tensor, samples × rows × features
        Floating point.
    pairs : integer tensor, 2 × pairs
        Places of the samples that are compared.
    widths : sequence of float, optional
        As in :func:`mmd2`. Without it :data:`WIDTHS` times one median for all pairs: of the distances between the rows
        of a pair's two samples.
    unbiased : bool
        As in :func:`mmd2`.

    Returns
    -------
    tensor, pairs
    """
    n = samples.shape[1]
    samples = samples - samples.detach().mean((0, 1))
    norms = samples.square().sum(2)

    def distances(a, b):
        return (norms[a][:, :, None] + norms[b][:, None] - 2 * samples[a] @ samples[b].mT).clamp_min(0)

    across = distances(*pairs)
    if widths is None:
        median = across.detach().median() if across.numel() else torch.ones(())
        widths = [w * median.clamp_min(torch.finfo(samples.dtype).tiny).sqrt() for w in WIDTHS]
    used, places = pairs.unique(return_inverse=True)
    within = gaussian_kernel(distances(used, used), widths)
    # A row is at distance zero from itself, whatever rounding says.
    within = (within * (1 - torch.eye(n, dtype=samples.dtype, device=samples.device))).sum((1, 2))
    within = within / (n * (n - 1)) if unbiased else (within + n) / n**2
    return within[places[0]] + within[places[1]] - 2 * gaussian_kernel(across, widths).mean((1, 2))


def ramp(progress: float) -> float:
    """A weight that grows from 0 at the start of training (`progress` 0) to nearly 1 at its end (1).

    References
    ----------
    Ganin and others, *Domain-adversarial training of neural networks* (2016), section 5.2.2.
    """
    return 2 / (1 + math.exp(-10 * progress)) - 1


def reverse_gradient(x: torch.Tensor, strength: float | torch.Tensor = 1.0) -> torch.Tensor:
    """`x` as it is, and on the way back its gradient times minus `strength` (Ganin and others 2016, section 4.2)."""
    return x + (1 + strength) * (x.detach() - x)


def domain_loss(
    discriminator: torch.nn.Module, source: torch.Tensor, target: torch.Tensor, strength: float | torch.Tensor = 1.0
) -> torch.Tensor:
    """Cross-entropy of a discriminator of two domains, whose gradient is reversed for whatever made its inputs.

    Made small, it trains the discriminator to tell the domains apart, and what comes before it to make that hard.

    Parameters
    ----------
    discriminator : torch.nn.Module
        rows × features to rows × 1, logits of "source".
    source, target : tensor, rows × features
        Embeddings of each domain.
    strength : float
        Of the reversed gradient; that of the discriminator is its own whatever the strength.

    Returns
    -------
    scalar tensor
        Mean over the rows of both domains; log 2 for a discriminator that cannot tell them apart.

    References
    ----------
    Ganin and others, *Domain-adversarial training of neural networks* (2016), equation 9 halved: the paper adds the
    means of the domains.
    """
    logits = discriminator(reverse_gradient(torch.cat([source, target]), strength))[:, 0]
    is_source = torch.cat([torch.ones_like(source[:, 0]), torch.zeros_like(target[:, 0])])
    return binary_cross_entropy_with_logits(logits, is_source)
