"""What the relation network's paper reports, to stand beside what is measured here (Park and others, 2021)."""

# Accuracies that the paper reports: figure 3a, fine-tuned on Baron, evaluated on four other studies of the pancreas;
# figure 2a, 33 cancers of TCGA by episodes of fine-tuning; figure 2b, by classes of TCGA with 15 samples each.
PAPER_ARMS = {
    "pre-trained only": [0.509, 0.530, 0.387, 0.327],
    "from scratch, 15": [0.466, 0.525, 0.418, 0.427],
    "pre-trained, 15": [0.804, 0.708, 0.526, 0.495],
    "from scratch, all cells": [0.922, 0.817, 0.792, 0.837],
    "pre-trained, all cells": [0.931, 0.804, 0.794, 0.866],
}
_EPISODES = [100, 500, 1000, 1500, 2000, 3000, 5000, 7000, 10_000]
PAPER_CURVES = {
    "published, pre-trained": (_EPISODES, [0.872, 0.907, 0.928, 0.929, 0.936, 0.943, 0.938, 0.945, 0.946]),
    "published, from scratch": (_EPISODES, [0.266, 0.340, 0.460, 0.694, 0.829, 0.874, 0.901, 0.920, 0.932]),
}
PAPER_TYPES = {
    "published, pre-trained": ([5, 8, 10], [0.745, 0.783, 0.829]),
    "published, from scratch": ([5, 8, 10], [0.385, 0.528, 0.592]),
}
# What stands beside the chapter's records: where the paper reports it, and what.
PAPER_NUMBERS = {
    "unseen_non_negative": "table S3: .79, .85",
    "accuracy_pre_trained_only": "figure 3a: .33 to .53",
    "accuracy_from_scratch_15": "3a: .42 to .53",
    "accuracy_pre_trained_15": "3a: .50 to .80",
    "gain_non_negative": "3a: .07 to .34",
    "accuracy_from_scratch_all_cells": "3a: .79 to .92",
    "accuracy_pre_trained_all_cells": "3a: .79 to .93",
    "late_from_scratch_15": "2a: .93; 3b: .42 to .53",
    "ahead_late_from_scratch_15": "3b, equal lengths: -.30 to -.03",
    "types_gap": "2b: .36",
    "types_effect": "2b: .08",
    "cells_effect": "2c: .04",
    "back_gain": "3c: .07 to .28",
    "gain_unconstrained": "not run",
    "gain_scrambled": "not run",
}
