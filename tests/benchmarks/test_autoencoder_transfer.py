"""An epoch of Keras beside an epoch of a hand-written torch loop, same network, same machine, same run."""

import os
import time

import numpy as np
import pytest
import torch

pytestmark = pytest.mark.skipif(
    not os.environ.get("BORROWED_BENCHMARKS"), reason="timings are for a quiet machine: set BORROWED_BENCHMARKS=1"
)


def torch_epoch(net, optimizer, X):
    order = torch.randperm(len(X))
    for rows in order.split(128):
        optimizer.zero_grad()
        ((net(X[rows]) - X[rows]) ** 2).mean().backward()
        optimizer.step()


def test_an_epoch_costs_what_a_torch_loop_costs():
    from shared.methods.autoencoder_transfer import AutoencoderClassifier

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    X = np.random.default_rng(0).normal(size=(975, 2000)).astype(np.float32)
    model = AutoencoderClassifier((1024,), 256, pretrain_epochs=1, random_state=0).pretrain(X)
    model.set_params(pretrain_epochs=4)
    parts = [torch.nn.Linear(a, b) for a, b in ((2000, 1024), (1024, 256), (256, 1024), (1024, 2000))]
    relu = torch.nn.ReLU()
    net = torch.nn.Sequential(parts[0], relu, parts[1], relu, parts[2], relu, parts[3])
    optimizer, T = torch.optim.Adam(net.parameters()), torch.from_numpy(X)
    torch_epoch(net, optimizer, T)
    ours, theirs = [], []
    for _ in range(5):  # in turns, so that a busy machine is busy for both
        start = time.perf_counter()
        model.pretrain(X)
        ours.append((time.perf_counter() - start) / 4)
        start = time.perf_counter()
        for _ in range(4):
            torch_epoch(net, optimizer, T)
        theirs.append((time.perf_counter() - start) / 4)
    ratio = np.median(ours) / np.median(theirs)
    print(f"Keras {np.median(ours):.3f} s, torch {np.median(theirs):.3f} s, ratio {ratio:.2f}")
    assert ratio < 1.2
