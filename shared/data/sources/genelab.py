"""NASA GeneLab: counts of a spaceflight study, with what the names of its samples say."""

import re

import numpy as np
import pandas as pd

from shared.data.errors import DataError
from shared.data.genes.lists import many
from shared.data.sources.common import assembled, numbers

CONDITIONS = {"FLT": "flight", "GC": "ground", "BSL": "basal", "VIV": "vivarium", "CC": "cohort control"}
TISSUES = {
    "EDL": "extensor digitorum longus",
    "TA": "tibialis anterior",
    "SLS": "soleus",
    "GST": "gastrocnemius",
    "QUA": "quadriceps",
    "LVR": "liver",
    "KDN": "kidney",
    "ADR": "adrenal gland",
    "EYE": "eye",
    "LRTN": "left retina",
    "RRTN": "right retina",
    "SPL": "spleen",
    "TMS": "thymus",
    "SKN": "skin",
    "LNG": "lung",
    "HRT": "heart",
}


def read(paths, *, tissue: str | None = None):
    """Samples × genes of one study (``GLDS-105_rna_seq_Unnormalized_Counts.csv``).

    Layout: commas, names quoted; a header with an empty first field and the samples; one row a gene, its Ensembl id
    without a version (spike-in controls begin with ERCC-). The numbers are expected counts of RSEM, with fractions
    where a read fits several genes: round them where a method needs counts.

    A sample's name holds, between underscores, species and strain, the mission or not, the tissue, the condition (FLT
    flight, GC ground control, BSL basal, VIV vivarium, CC cohort), perhaps a carcass or spike-in mark, the repeat, and
    the mouse at the end: ``Mmus_C57-6J_TA_FLT_Rep1_M23``. One mouse may have given tissue to several studies: split by
    ``donor`` before you compare. `tissue` is that of all samples, where their names do not hold it.

    ``X``: float32 ndarray. ``obs``: condition, tissue, donor (the mouse), replicate, strain, study (GLDS-105 gives
    OSD-105), batch (the study). ``var``: spike_in.
    """
    (path,) = paths
    ids, samples, X = numbers(path, dense=True)
    genes = ids.iloc[:, 0]
    obs = pd.DataFrame([_told(name, path, tissue) for name in samples], index=samples, dtype=object)
    if obs["tissue"].isna().any():
        unknown = many(int(obs["tissue"].isna().sum()), "sample")
        raise DataError(f"{path.name} does not say the tissue of {unknown}: give it")
    study = re.sub(r"^GLDS-(\d+).*", r"OSD-\1", path.name)
    obs = obs.dropna(axis=1, how="all").assign(study=study, batch=study)
    var = pd.DataFrame({"spike_in": genes.str.startswith("ERCC-").to_numpy()})
    return assembled(np.ascontiguousarray(X.T), genes, obs, "none", path.name, var=var)


def _told(name, path, tissue):
    tokens = name.split("_")
    at = [i for i, token in enumerate(tokens) if token in CONDITIONS]
    if len(at) != 1 or at[0] == len(tokens) - 1:
        raise DataError(f"{path.name}: the name {name!r} does not say its condition and mouse: it is another table")
    before = tokens[: at[0]]
    place = next((token for token in before[::-1] if token in TISSUES), before[-1] if before else None)
    repeat = re.search(r"_Rep(\d+)(?:_|$)", name)
    return {
        "condition": CONDITIONS[tokens[at[0]]],
        "tissue": tissue or TISSUES.get(place, place),
        "donor": tokens[-1],
        "replicate": repeat and repeat[1],
        "strain": tokens[1] if tokens[0] == "Mmus" else None,
    }
