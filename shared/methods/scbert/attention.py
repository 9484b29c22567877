"""Attention between genes: exact, and by the random features of FAVOR+ (Choromanski and others, 2021).

Queries, keys and values are cells × heads × tokens × width. Exact attention costs the square of the tokens in time;
random features cost tokens × features. :func:`favor_attention` is the published arithmetic in a dozen lines. On a CPU
:func:`chunked_favor` gives the same numbers and gradients a chunk of tokens at a time: the feature maps, four times as
large as everything else of a layer, stay in the cache, and are computed again on the way back instead of being kept.
"""

from __future__ import annotations

import math

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

EPS = 1e-4  # added to every feature, in the paper's code too: it keeps the denominator from 0
CHUNK = 2**18  # numbers of a feature map that are worked on at a time: 1 MiB
KEPT = 2**24  # numbers of a feature map that are kept for the way back, not computed again: 64 MiB


def orthogonal_features(n_features: int, width: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Random directions, features × width: orthogonal in blocks of `width`, each as long as a Gaussian vector is."""
    blocks = torch.randn(-(-n_features // width), width, width, generator=generator)
    directions = torch.linalg.qr(blocks).Q.mT.flatten(0, 1)[:n_features]
    return directions * torch.randn(n_features, width, generator=generator).norm(dim=1, keepdim=True)


def feature_map(x: torch.Tensor, W: torch.Tensor, over: tuple[int, ...]) -> torch.Tensor:
    """Positive features whose products approach exp(q·k / √width): ... × tokens × features.

    The largest projection over the dimensions `over` is taken off before the exponential. The published factor
    features^(-1/2) is left out: it cancels in the average.
    """
    x = x * x.shape[-1] ** -0.25
    projected = x @ W.T
    largest = projected.detach().amax(over, keepdim=True)
    return torch.exp(projected - x.square().sum(-1, keepdim=True) / 2 - largest) + EPS


def favor_attention(q, k, v, W, stabilizer="head") -> torch.Tensor:
    """Attention in time linear in the tokens: every query averages the values by products of features.

    Of keys the largest projection is taken over each ``"head"`` of each cell, or over the whole batch (``"global"``, as
    in scBERT's code): then the answer for a cell depends on its batch, through the added constant.
    """
    queries = feature_map(q, W, over=(-1,))
    keys = feature_map(k, W, over=(-2, -1) if stabilizer == "head" else (0, 1, 2, 3))
    total = queries @ keys.sum(-2).unsqueeze(-1)
    return queries @ (keys.mT @ v) / total


def exact_attention(q, k, v) -> torch.Tensor:
    """Softmax attention, exp(q·k / √width) over its sum, without ever holding tokens × tokens numbers."""
    return scaled_dot_product_attention(q, k, v)


def chunked_favor(q, k, v, W, stabilizer="head") -> torch.Tensor:
    """:func:`favor_attention`, a chunk of tokens at a time, in float32."""
    flat = (x.float().reshape(-1, *x.shape[2:]) for x in (q, k, v))
    return _Chunked.apply(*flat, W * W.shape[1] ** -0.25, stabilizer).view(q.shape).to(q.dtype)


class _Chunked(torch.autograd.Function):
    """Sums over keys, then an answer for each query, chunk by chunk; W comes with the scale of the input in it.

    With e = exp(...) the features are e + EPS, and the constant is added to sums instead of to every feature.
    """

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu", cast_inputs=torch.float32)
    def forward(ctx, q, k, v, W, stabilizer):
        kept, keeps = [], k.shape[0] * k.shape[1] * len(W) <= KEPT and any(ctx.needs_input_grad)
        sums, weights = q.new_zeros(len(q), len(W), v.shape[2]), q.new_zeros(len(q), 1, len(W))
        largest = q.new_full((1 if stabilizer == "global" else len(q), 1, 1), -math.inf)
        for rows in _chunks(k, W):
            projected = k[:, rows] @ W.T
            now = projected.amax((1, 2), keepdim=True)
            now = torch.maximum(largest, now.amax(0, keepdim=True) if stabilizer == "global" else now)
            e = _exp(projected, _half(k[:, rows]) + now)
            sums.mul_(torch.exp(largest - now)).baddbmm_(e.mT, v[:, rows])
            weights.mul_(torch.exp(largest - now)).add_(e.sum(1, keepdim=True))
            kept.append((e, now) if keeps else None)
            largest = now
        kept = [e.mul_(torch.exp(now - largest)) for e, now in kept] if keeps else []
        sums += EPS * v.sum(1, keepdim=True)
        weights += EPS * v.shape[1]
        out, total, constant = torch.empty_like(q), q.new_empty(*q.shape[:2], 1), EPS * sums.sum(1, keepdim=True)
        for rows in _chunks(q, W):
            e = _features_of_queries(q[:, rows], W)
            total[:, rows] = (e @ weights.mT).add_(EPS * weights.sum(-1, keepdim=True))
            torch.div(torch.baddbmm(constant, e, sums), total[:, rows], out=out[:, rows])
            kept += [e] if keeps else []
        ctx.save_for_backward(q, k, v, W, out, total, sums, weights, largest, *kept)
        return out

    @staticmethod
    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx, gradient):
        q, k, v, W, out, total, sums, weights, largest, *kept = ctx.saved_tensors
        d_sums, d_weights = torch.zeros_like(sums), torch.zeros_like(weights)
        d = pad(gradient / total, (0, 1))
        d_found, d_total = d[..., :-1], d[..., -1:]
        torch.sum(d_found * out, -1, keepdim=True, out=d_total).neg_()
        both = torch.cat([sums.mT, weights], 1)  # turned over once, not in every chunk
        (dq, dk, dv), chunks = (torch.empty_like(x) for x in (q, k, v)), _chunks(k, W)
        for i, rows in enumerate(_chunks(q, W)):
            e = kept[len(chunks) + i] if kept else _features_of_queries(q[:, rows], W)
            d_sums.baddbmm_(e.mT, d_found[:, rows])
            d_weights.baddbmm_(d_total[:, rows].mT, e)
            dq[:, rows] = _to_input(e, d[:, rows], both, W, q[:, rows])
        d_sums += EPS * d_found.sum(1, keepdim=True)
        d_weights += EPS * d_total.sum(1, keepdim=True)
        constant = EPS * d_sums.sum(1, keepdim=True)
        both, v = torch.cat([d_sums.mT, d_weights], 1), pad(v, (0, 1), value=1)
        for i, rows in enumerate(chunks):
            e = kept[i] if kept else _exp(k[:, rows] @ W.T, _half(k[:, rows]) + largest)
            dv[:, rows] = torch.baddbmm(constant, e, d_sums)
            dk[:, rows] = _to_input(e, v[:, rows], both, W, k[:, rows])
        return dq, dk, dv, None, None


def _chunks(x, W):
    """Slices of tokens whose feature maps are of a size that stays in the cache."""
    size = max(16, CHUNK // (len(x) * len(W)))
    return [slice(start, start + size) for start in range(0, x.shape[1], size)]


def _half(x):
    """Half of the squared length of the scaled input: ... × 1."""
    return x.square().sum(-1, keepdim=True) * (x.shape[-1] ** -0.5 / 2)


def _exp(projected, less):
    return projected.sub_(less).exp_()


def _features_of_queries(q, W):
    projected = q @ W.T
    return _exp(projected, _half(q) + projected.amax(-1, keepdim=True))


def _to_input(e, d, sums, W, x):
    """The gradient of the input `x` of features e from `d`, that of their products with `sums`.

    It comes through the projection of the input and through its length.
    """
    d = d @ sums
    d *= e
    return (d @ W).addcmul_(d.sum(-1, keepdim=True), x, value=-(x.shape[-1] ** -0.5))
