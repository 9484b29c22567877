"""Make ``patients.csv``: ``python data/colorectal/patients.py [TumorDecon.whl tcgabiolinks.deb]`` (needs rdata).

What the hospitals wrote down of the 592 patients: which bowel, which part of it, microsatellites, sex. The facts are
TCGA's (public); a Debian package carries them as R tables.
"""

import sys
from pathlib import Path

import pandas as pd

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
import rfiles  # noqa: E402
from make import EXPRESSION  # noqa: E402
from wheel import deb_members, member  # noqa: E402

CLINICAL = "r-bioc-tcgabiolinks=2.25.3+dfsg-1", "7f749a95d7339a135097bf643b550f2ee0607e13c82d85740596fe3d7fff96a2"
FOLDER = "usr/lib/R/site-library/TCGAbiolinks/data/Rdata"
YES_NO = {"YES": "yes", "NO": "no"}


def make(wheel=None, deb=None):
    """One row a patient: patient, site (COAD, READ), part (as written), msi (yes, no), sex; empty where unknown."""
    header = member(*EXPRESSION, wheel).split(b"\n", 1)[0].decode().split()
    patients = pd.Index([sample[:12] for sample in header[2:]], name="patient")
    index, objects = deb_members(*CLINICAL, [f"{FOLDER}.rdx", f"{FOLDER}.rdb"], deb)
    purity = rfiles.lazy(index, objects, "Tumor.purity").astype(str)  # the one table here that lists rectum as well
    site = purity.assign(patient=purity["Sample.ID"].str[:12]).drop_duplicates("patient").set_index("patient")
    clinical = rfiles.lazy(index, objects, "clinical.biotab")["clinical_patient_coad"].iloc[2:].astype(str)
    clinical = clinical.set_index("bcr_patient_barcode").reindex(patients)
    part = clinical["anatomic_neoplasm_subdivision"]
    return pd.DataFrame({
        "site": site["Cancer.type"].reindex(patients),
        "part": part.where(~part.str.startswith("[", na=False)).str.lower(),
        "msi": clinical["microsatellite_instability"].map(YES_NO),
        "sex": clinical["gender"].str.lower(),
    }).sort_index()  # fmt: skip


if __name__ == "__main__":
    make(*sys.argv[1:3]).to_csv(HERE / "patients.csv", lineterminator="\n")
