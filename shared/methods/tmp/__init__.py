"""TMP, Transferable Molecular Pattern: a network that learns to compare profiles on bulk tissue, then on few cells.

After Park, Hauschild and Heider, *Transfer learning compensates limited data, batch effects and technological
heterogeneity in single-cell sequencing* (NAR Genomics and Bioinformatics, 2021). An encoder turns a profile into an
embedding; the embeddings of a class's few support cells are averaged; a second network, the relation network, reads an
average and a query side by side and says how alike they are. Both learn from episodes (:mod:`shared.nn.episodes`): on
bulk samples first, then on a few cells of each type.

* :mod:`shared.methods.tmp.network`: the two networks, the loss and the training step.
* :mod:`shared.methods.tmp.estimator`: pre-training, fine-tuning and prediction as an estimator.
* :mod:`shared.methods.tmp.stacked`: the networks of several seeds trained as one, for experiments.

Paper and code (the authors', 2021 to 2024) differ in places. Each has an option here; the docstrings say what the two
do and why the default is what it is.
"""

from shared.methods.tmp.estimator import TMP
from shared.methods.tmp.network import RELEASED, PlainRelationNet, RelationNet
from shared.nn.episodes import episode_sizes, unit_range

__all__ = ["RELEASED", "TMP", "PlainRelationNet", "RelationNet", "episode_sizes", "unit_range"]
