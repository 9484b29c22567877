"""Small files in the layouts of the official sources, written byte by byte, with what a reader should make of them.

``CASES`` maps a name to a function from a folder to a :class:`Case`. Headers are those the sources document; names and
numbers are made up.
"""

import gzip
import io
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
from scipy import sparse

from shared.data.sources import READERS


@dataclass
class Case:
    """A reader, its files and options, and what comes out."""

    reader: str
    paths: list
    X: np.ndarray
    cells: list
    genes: list
    obs: dict
    units: str
    options: dict = field(default_factory=dict)
    main: int = 0  # the file with the numbers
    separator: str = "\t"
    ids: int = 1
    head: int = 1  # lines above the first row of numbers


def counts(cells, genes, seed=0, fractions=False):
    """Counts without an all-zero row or column, so that a lost one shows."""
    rng = np.random.default_rng(seed)
    X = rng.poisson(1.2, (cells, genes)).astype(np.float64) * rng.integers(1, 30, (1, genes))
    X[np.arange(cells), np.arange(cells) % genes] += 1
    X[np.arange(genes) % cells, np.arange(genes)] += 2
    return X + rng.integers(0, 2, X.shape) * 0.25 * (X > 0) if fractions else X


def number(x):
    return str(int(x)) if x == int(x) else repr(float(x))


def rows(names, X, separator):
    return [separator.join([*n, *map(number, r)]) for n, r in zip(names, X)]


def write(path: Path, lines, packed=None) -> Path:
    data = ("\n".join(lines) + "\n").encode()
    packed = path.name.endswith(".gz") if packed is None else packed
    path.write_bytes(gzip.compress(data, mtime=0) if packed else data)
    return path


def unpacked(path) -> bytes:
    data = path.read_bytes()
    return gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data


def repack(path, data: bytes) -> None:
    path.write_bytes(gzip.compress(data, mtime=0) if path.name.endswith(".gz") else data)


def replaced(name, value):
    """A change of an open HDF5 file: one of its data sets is replaced, or with None removed."""

    def change(file):
        del file[name]
        if value is not None:
            file[name] = value

    return change


def quoted(names):
    return [f'"{n}"' for n in names]


def dense(adata):
    """`X` as an array."""
    return adata.X.toarray() if sparse.issparse(adata.X) else adata.X


def read(case, **options):
    """The case by its reader."""
    return READERS[case.reader](case.paths, **(case.options | options))


def h5ad(fixtures, name):
    """The same data as others read them."""
    return ad.read_h5ad(fixtures(f"h5ad/{name}.h5ad"))


SYMBOLS = ["INS", "GCG", "SST", "PPY", "GHRL", "KRT19", "CPA1", "VIM", "CD3E"]
MOUSE = [f"ENSMUSG{i:011d}" for i in range(1, 10)]
HUMAN = [f"ENSG{i:011d}" for i in range(1, 10)]
CODES = ["AAACATACAACCAC", "AAACGCACTGGTAC", "AAAGCAGATCGTGA", "AACAGAGAATGACC", "AACCAACTCCTGAA", "ACGTACGTACGTAA"]


def geo_umi(folder):
    X = counts(6, 9, 1)
    types = ["beta", "alpha", "delta", "beta", "NA", "alpha"]
    cells = [f"human{1 + i // 5}_lib1.final_cell_{i:04d}" for i in range(6)]
    paths = []
    for d, part in enumerate((slice(0, 5), slice(5, 6))):
        names = zip(cells[part], CODES[part], types[part])
        lines = [",".join(["", "barcode", "assigned_cluster", *SYMBOLS]), *rows(names, X[part], ",")]
        paths.append(write(folder / f"GSM223075{7 + d}_human{1 + d}_umifm_counts.csv.gz", lines))
    donors = ["human1"] * 5 + ["human2"]
    known = [None if t == "NA" else t for t in types]
    obs = {"cell_type": known, "donor": donors, "batch": donors, "species": ["human"] * 6, "barcode": CODES}
    return Case("geo_umi", paths, X, cells, SYMBOLS, obs, "counts", separator=",", ids=3)


def muraro(folder):
    X = counts(6, 9, 2, fractions=True)
    cells = [f"D{28 + i // 3}-{1 + i % 2}_{i + 1}" for i in range(6)]
    names = [f"{s}__chr{i + 1}" for i, s in enumerate(SYMBOLS)]
    names[8] = "INS__chr17"  # two genes of one symbol keep their full names
    lines = ["\t".join(quoted(cells)), *rows(([f'"{n}"'] for n in names), X.T, "\t")]
    path = write(folder / "GSE85241_cellsystems_dataset_4donors_updated.csv.gz", lines)
    genes = ["INS__chr1", *SYMBOLS[1:8], "INS__chr17"]
    obs = {
        "donor": [c.split("-")[0] for c in cells],
        "library": [c.split("_")[0] for c in cells],
        "batch": [c.split("_")[0] for c in cells],
    }
    options = {"cut": "__chr.*$", "cells": {"donor": r"^(D\d+)", "library": r"^(D\d+[-.]\d+)"}}
    return Case("geo_matrix", [path], X, cells, genes, obs, "none", options)


def series_lines(titles, characteristics, table=(), other=()):
    accessions = [f"GSM{1000 + i}" for i in range(len(titles))]
    lines = ['!Series_title\t"A study"', '!Series_geo_accession\t"GSE1"', ""]
    lines.append("\t".join(["!Sample_title", *quoted(titles)]))
    lines.append("\t".join(["!Sample_geo_accession", *quoted(accessions)]))
    lines += ["\t".join(["!Sample_contact_name", *quoted(["A,,Name"] * len(titles))]), *other]
    lines += ["\t".join(["!Sample_characteristics_ch1", *quoted(values)]) for values in characteristics]
    lines += ["!series_matrix_table_begin", "\t".join(quoted(["ID_REF", *accessions])), *table]
    return [*lines, "!series_matrix_table_end"]


def wang(folder):
    X = counts(6, 9, 3, fractions=True)
    cells = [f"reads.{12000 + i}" for i in range(6)]
    facts = [["chr1", str(i), str(i + 9), "+", f"NM_{i:05d}", "tx", s] for i, s in enumerate(SYMBOLS)]
    facts[7][6] = "NA"  # an unnamed gene goes by its transcript
    head = ["chr", "start", "end", "strand", "transcript", "part", "gene"]
    path = write(
        folder / "GSE83139_tbx-v-f-norm-ntv-cpms.csv.gz", ["\t".join([*head, *cells]), *rows(facts, X.T, "\t")]
    )
    types = ["alpha", "beta", "dropped", "duct", "beta", "pp"]
    series = []
    for part, platform in (([4, 0, 1], "GPL11154"), ([5, 2, 3], "GPL16791")):
        lines = series_lines(
            [f"HP-1::{i} {12000 + i}" for i in part],
            [["health: control"] * 3, [f"curated-cell-type: {types[i]}" for i in part]],
            other=["\t".join(["!Sample_platform_id", *quoted([platform] * 3)])],
        )
        series.append(write(folder / f"GSE83139-{platform}_series_matrix.txt.gz", lines))
    platforms = ["GPL11154", "GPL11154", "GPL16791", "GPL16791", "GPL11154", "GPL16791"]
    options = {
        "ids": 7,
        "short": "gene",
        "full": "transcript",
        "key_to_cell": [r"^.*\s(\S+)$", r"reads.\1"],
        "obs": {"cell_type": "curated-cell-type", "platform": "platform_id"},
        "drop": {"cell_type": ["dropped"]},
    }
    keep = [0, 1, 3, 4, 5]
    obs = {"cell_type": types, "platform": platforms, "batch": platforms}
    obs = {k: [v[i] for i in keep] for k, v in obs.items()}
    genes = [*SYMBOLS[:7], "NM_00007", SYMBOLS[8]]
    cells = [cells[i] for i in keep]
    return Case("geo_matrix", [path, *series], X[keep], cells, genes, obs, "none", options, ids=7)


def xin(folder):
    X = counts(6, 9, 4, fractions=True)
    cells = [f"Sample_{i + 1}" for i in range(6)]
    genes = [str(g) for g in (1, 2, 9, 10, 12, 13, 14, 15, 3630)]
    path = write(
        folder / "GSE81608_human_islets_rpkm.txt.gz",
        ["\t".join(["gene.id", *cells]), *rows(([g] for g in genes), X.T, "\t")],
    )
    types, donors = ["alpha", "beta", "PP", "beta", "alpha", "delta"], [f"Non T2D {1 + i % 2}" for i in range(6)]
    lines = series_lines(
        [f"Pancreatic islet cell sample {i + 1}" for i in range(6)],
        [["tissue: islet"] * 6, [f"cell subtype: {t}" for t in types], [f"donor id: {d}" for d in donors]],
    )
    series = write(folder / "GSE81608_series_matrix.txt.gz", lines)
    options = {
        "key_to_cell": ["Pancreatic islet cell sample ", "Sample_"],
        "obs": {"cell_type": "cell subtype", "donor": "donor id"},
    }
    obs = {"cell_type": types, "donor": donors, "batch": donors}
    return Case("geo_matrix", [path, series], X, cells, genes, obs, "none", options)


def segerstolpe(folder):
    X, cells = counts(6, 9, 5), [f"HP150240{1 + i // 3}_A{i}" for i in range(6)]
    rpkm = np.round(X * 1.37, 2)
    names = [[s, f"NM_{i}+NR_{i}"] for i, s in enumerate([*SYMBOLS[:7], "ERCC_00002", "eGFP"])]
    lines = ["\t".join(["#samples", *cells]), *rows(names, np.hstack([rpkm.T, X.T]), "\t")]
    path = write(folder / "pancreas_refseq_rpkms_counts_3514sc.txt", lines)
    kinds = ["alpha cell", "beta cell", "not applicable", "delta cell", "co-expression cell", "gamma cell"]
    head = ["Source Name", "Characteristics[organism]", "Characteristics [individual]"]
    head += ["Characteristics[single cell well quality]", "Characteristics[cell type]", "Characteristics[disease]"]
    head += ["Protocol REF", "Protocol REF", "Extract Name"]
    donors = [f"H{1 + i // 3}" for i in range(6)]
    said = [
        [c, "Homo sapiens", donors[i], "OK", kinds[i], "normal", "P1", "P2", c]
        for i, c in reversed(list(enumerate(cells)))
    ]
    sdrf = write(folder / "E-MTAB-5061.sdrf.txt", ["\t".join(r) for r in [head, *said]])
    types = ["alpha", "beta", None, "delta", "co-expression", "gamma"]
    obs = {"cell_type": types, "donor": donors, "batch": donors, "disease": ["normal"] * 6, "quality": ["OK"] * 6}
    return Case("segerstolpe", [path, sdrf], X, cells, [n[0] for n in names], obs, "counts", ids=2)


def mtx_lines(X):
    """Genes × cells, as 10x writes it."""
    M = sparse.coo_matrix(X.T)
    entries = [f"{i + 1} {j + 1} {int(v)}" for i, j, v in zip(M.row, M.col, M.data)]
    return ["%%MatrixMarket matrix coordinate integer general", "%", f"{M.shape[0]} {M.shape[1]} {M.nnz}", *entries]


def tenx_v2(folder):
    X, cells = counts(6, 9, 6), [f"{c}-1" for c in CODES]
    symbols = [*SYMBOLS[:8], "INS"]
    paths = [
        write(folder / "matrix.mtx", mtx_lines(X)),
        write(folder / "genes.tsv", [f"{i}\t{s}" for i, s in zip(HUMAN, symbols)]),
        write(folder / "barcodes.tsv", cells),
    ]
    types = ["CD19+ B", "CD56+ NK", "CD14+ Monocyte", "Dendritic", "CD34+", None]
    said = [f"{i}.5\t-{i}.25\t{c}\t{t}" for i, (c, t) in enumerate(zip(cells, types)) if t]
    paths.append(write(folder / "68k_pbmc_barcodes_annotation.tsv", ["TSNE.1\tTSNE.2\tbarcodes\tcelltype", *said]))
    genes = [HUMAN[0], *SYMBOLS[1:8], HUMAN[8]]
    return Case("zheng68k", paths, X, cells, genes, {"cell_type": types}, "counts", head=3, separator=" ")


def tenx_v3(folder):
    X, cells = counts(6, 9, 7), [f"{c}-1" for c in CODES]
    kinds = ["Gene Expression"] * 7 + ["Antibody Capture"] * 2
    lines = ["\t".join(t) for t in zip(HUMAN, SYMBOLS, kinds)]
    paths = [
        write(folder / "matrix.mtx.gz", mtx_lines(X)),
        write(folder / "features.tsv.gz", lines),
        write(folder / "barcodes.tsv.gz", cells),
    ]
    return Case("tenx_mtx", paths, X[:, :7], cells, SYMBOLS[:7], {}, "counts", head=3, separator=" ")


def kang(folder):
    X = counts(8, 9, 8)
    codes = [[f"{c}-1" for c in CODES[:4]], [f"{c}-1" for c in CODES[2:]]]
    paths = []
    for h, gsm in enumerate(("GSM2560248_2.1", "GSM2560249_2.2")):
        paths.append(write(folder / f"{gsm}.mtx.gz", mtx_lines(X[4 * h : 4 * h + 4])))
        paths.append(write(folder / f"{gsm.split('_')[0]}_barcodes.tsv.gz", codes[h]))
    genes = write(folder / "GSE96583_batch2.genes.tsv.gz", [f"{i}\t{s}" for i, s in zip(HUMAN, SYMBOLS)])
    conditions = ["ctrl"] * 4 + ["stim"] * 4
    flat = codes[0] + codes[1]
    twice = [c + "1" if c in flat[:i] else c for i, c in enumerate(flat)]
    types = ["B cells", "NK cells", "NA", "CD4 T cells", "B cells", "CD8 T cells", "NK cells", "B cells"]
    donors, multiplets = ["101", "107"] * 4, ["singlet"] * 6 + ["doublet", "ambs"]
    lines = ["tsne1\ttsne2\tind\tstim\tcluster\tcell\tmultiplets"]
    lines += [
        f"{n}\t-4.27\t-19.29\t{d}\t{s}\t{i}\t{t}\t{m}"
        for i, (n, d, s, t, m) in enumerate(zip(twice, donors, conditions, types, multiplets))
    ]
    table = write(folder / "GSE96583_batch2.total.tsne.df.tsv.gz", lines)
    obs = {
        "cell_type": [None if t == "NA" else t for t in types],
        "condition": conditions,
        "donor": donors,
        "batch": conditions,
        "multiplets": multiplets,
        "barcode": flat,
    }
    cells = [f"{s}_{c}" for s, c in zip(conditions, flat)]
    return Case("kang", [*paths, genes, table], X, cells, SYMBOLS, obs, "counts", head=3, separator=" ")


def h5_v3(folder):
    X, cells = counts(6, 9, 9), [f"{c}-1" for c in CODES]
    M, path = sparse.csc_matrix(X.T), folder / "filtered_feature_bc_matrix.h5"
    with h5py.File(path, "w") as f:
        g = f.create_group("matrix")
        g["barcodes"], g["data"], g["shape"] = (
            np.array(cells, "S"),
            M.data.astype(np.int32),
            np.array(M.shape, np.int32),
        )
        g["indices"], g["indptr"] = M.indices.astype(np.int64), M.indptr.astype(np.int64)
        g["features/id"], g["features/name"] = np.array(HUMAN, "S"), np.array(SYMBOLS, "S")
        g["features/feature_type"] = np.array(["Gene Expression"] * 9, "S")
        g["features/genome"] = np.array(["GRCh38"] * 9, "S")
    return Case("tenx_h5", [path], X, cells, SYMBOLS, {}, "counts")


def h5_v2(folder):
    X, cells = counts(6, 9, 10), [f"{c}-1" for c in CODES]
    M, path = sparse.csc_matrix(X.T), folder / "filtered_gene_bc_matrices_h5.h5"
    with h5py.File(path, "w") as f:
        g = f.create_group("GRCh38")
        g["barcodes"], g["data"], g["shape"] = (
            np.array(cells, "S"),
            M.data.astype(np.int32),
            np.array(M.shape, np.int32),
        )
        g["indices"], g["indptr"] = M.indices.astype(np.int64), M.indptr.astype(np.int64)
        g["genes"], g["gene_names"] = np.array(HUMAN, "S"), np.array(SYMBOLS, "S")
    return Case("tenx_h5", [path], X, cells, SYMBOLS, {}, "counts")


def scjoint(folder):
    X, paths, types = np.log1p(counts(6, 9, 11)).astype(np.float32), [], ["B", "NK", "T", "B", None, "NK"]
    for h, name in enumerate(("citeseq_control_adt.h5", "asapseq_control_adt.h5")):
        part = slice(3 * h, 3 * h + 3)
        with h5py.File(folder / name, "w") as f:
            f["matrix/barcodes"] = np.array(CODES[part], "S")
            f["matrix/features"] = np.array([f"ADT_{s}" for s in SYMBOLS], "S")
            f["matrix/data"] = X[part].T.astype(np.float64)
        paths.append(folder / name)
        lines = ['"","x"', *(f'"{i + 1}","{t or "NA"}"' for i, t in enumerate(types[part]))]
        paths.append(write(folder / name.replace("_adt.h5", "_cellTypes.csv"), lines))
    kinds = ["cite"] * 3 + ["asap"] * 3
    obs = {"cell_type": types, "modality": kinds, "batch": kinds}
    options = {"batches": ["cite", "asap"], "modality": ["cite", "asap"]}
    return Case("scjoint", paths, X, CODES, [f"ADT_{s}" for s in SYMBOLS], obs, "log", options)


def genelab(folder):
    X = counts(6, 9, 12, fractions=True)
    tails = ["FLT_Rep1_M23", "FLT_Rep2_M24", "FLT_Rep3_M25", "GC_Rep1_M33", "GC_Rep2_M34", "BSL_Rep1_M01"]
    cells, genes = [f"Mmus_C57-6J_TA_{t}" for t in tails], [*MOUSE[:8], "ERCC-00002"]
    lines = [",".join(quoted(["", *cells])), *rows(([f'"{g}"'] for g in genes), X.T, ",")]
    path = write(folder / "GLDS-105_rna_seq_Unnormalized_Counts.csv", lines)
    obs = {
        "condition": ["flight"] * 3 + ["ground"] * 2 + ["basal"],
        "tissue": ["tibialis anterior"] * 6,
        "donor": ["M23", "M24", "M25", "M33", "M34", "M01"],
        "replicate": ["1", "2", "3", "1", "2", "1"],
        "strain": ["C57-6J"] * 6,
        "study": ["OSD-105"] * 6,
        "batch": ["OSD-105"] * 6,
    }
    return Case("genelab", [path], X, cells, genes, obs, "none", separator=",")


def mixology(folder):
    X, paths = counts(6, 9, 13), []
    head = ["unaligned", "number_of_genes", "cell_line_demuxlet", "demuxlet_cls"]
    lines = ["H1975", "H2228", "HCC827", "A549", "H838", "H1975"]
    singles = ["SNG", "SNG", "DBL", "SNG", "SNG", "SNG"]
    own = [["A1", "A10", "A11", "A12", "A13"], ["CELL_000001"]]
    orders = [np.arange(9)[::-1], np.array([8, 3, 1, 0, 2, 4, 7])]  # neither is sorted, and the second lacks two genes
    for h, batch in enumerate(("sc_celseq2", "sc_dropseq")):
        part = X[5 * h : 5 * h + 5][:, orders[h]]
        named = ([f'"{HUMAN[g]}"'] for g in orders[h])
        body = [",".join(quoted(own[h])), *rows(named, part.T, ",")]
        paths.append(write(folder / f"{batch}.count.csv.gz", body))
        cells = list(enumerate(own[h], 5 * h))
        said = [f'"{c}",33756,9481,"{lines[i]}","{singles[i]}"' for i, c in reversed(cells)]
        paths.append(write(folder / f"{batch}.metadata.csv.gz", [",".join(quoted(head)), *said]))
    shared = sorted(orders[1])
    batches = ["sc_celseq2"] * 5 + ["sc_dropseq"]
    cells = [f"{b}_{c}" for b, c in zip(batches, own[0] + own[1])]
    obs = {"cell_type": lines, "batch": batches, "demuxlet_cls": singles}
    return Case("mixology", paths, X[:, shared], cells, [HUMAN[g] for g in shared], obs, "counts", separator=",")


def xena_toil(folder):
    rng = np.random.default_rng(14)
    tpm = np.round(counts(6, 9, 14) * rng.uniform(0.1, 3, 9), 2)
    stored = np.round(np.log2(tpm + 0.001), 4)
    cells = ["GTEX-1117F-0226-SM-5GZZ7", "GTEX-111CU-1826-SM-5GZYN", "TCGA-19-1787-01", "TCGA-S9-A7J2-01"]
    cells += ["TARGET-20-PANSBH-03", "TCGA-AB-2965-03"]
    ids = [f"{g}.{i + 2}" for i, g in enumerate(HUMAN)]
    body = ["\t".join([i, *(f"{v:.4f}" for v in r)]) for i, r in zip(ids, stored.T)]
    path = write(folder / "TcgaTargetGtex_rsem_gene_tpm.gz", ["\t".join(["sample", *cells]), *body])
    head = [
        "sample",
        "detailed_category",
        "primary disease or tissue",
        "_primary_site",
        "_sample_type",
        "_gender",
        "_study",
    ]
    studies = ["GTEX", "GTEX", "TCGA", "TCGA", "TARGET", "TCGA"]
    said = [
        [c, "x", "Sézary" if i == 2 else "y", f"site{i}", "Normal Tissue", "Male", studies[i]]
        for i, c in enumerate(cells)
    ]
    said = [*said[::-1], ["TCGA-XX-0000-01", "x", "y", "z", "w", "", "TCGA"]]
    text = "\n".join("\t".join(r) for r in [head, *said]) + "\n"
    phenotypes = folder / "TcgaTargetGTEX_phenotype.txt.gz"
    phenotypes.write_bytes(gzip.compress(text.encode("latin-1"), mtime=0))
    obs = {
        "study": studies,
        "batch": studies,
        "sample_type": ["Normal Tissue"] * 6,
        "tissue": [f"site{i}" for i in range(6)],
        "disease": ["y", "y", "Sézary", "y", "y", "y"],
        "donor": ["GTEX-1117F", "GTEX-111CU", "TCGA-19-1787", "TCGA-S9-A7J2", "TARGET-20-PANSBH", "TCGA-AB-2965"],
    }
    options = {"base": 2, "offset": 0.001, "units": "tpm"}
    return Case("xena", [path, phenotypes], tpm, cells, HUMAN, obs, "tpm", options)


def xena_tcga(folder):
    X = np.round(np.log2(counts(6, 9, 15) + 1), 4)
    cells = [f"TCGA-OR-A5J{i}-01" for i in range(6)]
    stored = [[f"{v:.4f}" for v in r] for r in X.T]
    stored[4][2] = "NA"
    body = ["\t".join([s, *r]) for s, r in zip(SYMBOLS, stored)]
    path = write(
        folder / "EB++AdjustPANCAN_IlluminaHiSeq_RNASeqV2.geneExp.xena.gz", ["\t".join(["sample", *cells]), *body]
    )
    cancers = ["adrenocortical cancer", "breast invasive carcinoma"] * 3
    said = [f"{c}\t01\tPrimary Tumor\t{d}" for c, d in zip(cells, cancers)]
    head = "sample\tsample_type_id\tsample_type\t_primary_disease"
    phenotypes = write(folder / "TCGA_phenotype_denseDataOnlyDownload.tsv.gz", [head, *said])
    keep = [0, 1, 2, 3, 5, 6, 7, 8]
    obs = {"cancer": cancers, "sample_type": ["Primary Tumor"] * 6, "donor": [c[:12] for c in cells]}
    options = {"missing": "drop"}
    return Case("xena", [path, phenotypes], X[:, keep], cells, [SYMBOLS[k] for k in keep], obs, "log", options)


def gct(folder):
    rng = np.random.default_rng(16)
    X = np.round(counts(6, 9, 16) * rng.uniform(0.1, 3, 9), 3)
    cells = [
        f"GTEX-11{d}-0{n}26-SM-5GZZ{n}"
        for d, n in (("17F", 1), ("17F", 2), ("1CU", 3), ("1CU", 4), ("1FC", 5), ("1FC", 6))
    ]
    ids = [f"{g}.5" for g in HUMAN]
    ids[8] = f"{HUMAN[0]}.5_PAR_Y"
    head = ["#1.2", "9\t6", "\t".join(["Name", "Description", *cells])]
    path = write(folder / "GTEx_Analysis_v8_gene_tpm.gct.gz", [*head, *rows(zip(ids, SYMBOLS), X.T, "\t")])
    tissues = ["Lung", "Brain - Cortex", "Lung", "Brain - Amygdala", "Lung", "Brain - Cortex"]
    organs = [t.split(" ")[0] for t in tissues]
    said = ["SAMPID\tSMATSSCR\tSMRIN\tSMTS\tSMTSD\tSMGEBTCH\tSMTSISCH\tSMPTHNTS"]
    notes = 'one "quoted, 2 pieces'  # a lone quotation mark is a sign like others
    said += [f"{c}\t\t6.{i}\t{organs[i]}\t{tissues[i]}\tLCSET-{i % 2}\t118{i}\t{notes}" for i, c in enumerate(cells)]
    said += ["GTEX-ZZZZ-0001-SM-0000\t\t\tBlood\tWhole Blood\tLCSET-9\t\t"]
    attributes = write(folder / "GTEx_Analysis_v8_Annotations_SampleAttributesDS.txt", said)
    obs = {
        "tissue": tissues,
        "organ": organs,
        "donor": ["-".join(c.split("-")[:2]) for c in cells],
        "batch": [f"LCSET-{i % 2}" for i in range(6)],
    }
    genes = [*HUMAN[:8], f"{HUMAN[0]}.5_PAR_Y"]
    return Case("gtex", [path, attributes], X, cells, genes, obs, "tpm", head=3, ids=2)


def recount3(folder):
    X, runs = counts(6, 9, 17), [f"SRR30000{i}" for i in range(6)]
    length = np.array([100.0, 98.5, 150.25, 75.0, 100.0, 199.0])
    sums = np.rint(X * length[:, None])
    genes = [f"{g}.{i}" for i, g in enumerate(MOUSE)]
    lines = ["##annotation=M023", "##date.generated=2020-08-27 02:07:40.000000", "\t".join(["gene_id", *runs])]
    paths = [write(folder / "sra.gene_sums.SRP066161.M023.gz", [*lines, *rows(([g] for g in genes), sums.T, "\t")])]
    head = ["rail_id", "external_id", "study", "experiment_acc", "experiment_title", "sample_attributes"]
    said = [
        [str(i), r, "SRP066161", f"SRX{i}", f"CA{i}_rep", f"tissue;;brain|age;;P{50 + i}"] for i, r in enumerate(runs)
    ]
    paths.append(write(folder / "sra.sra.SRP066161.MD.gz", ["\t".join(r) for r in [head, *said[::-1]]]))
    qc = ["rail_id", "external_id", "study", "bc_auc.all_reads_all_bases", "star.average_mapped_length"]
    quality = [[str(i), r, "SRP066161", str(int(sums[i].sum() * 1.5)), str(length[i])] for i, r in enumerate(runs)]
    paths.append(write(folder / "sra.recount_qc.SRP066161.MD.gz", ["\t".join(r) for r in [qc, *quality]]))
    gtf = ["##description: genes"]
    for g, s in zip(genes, SYMBOLS):
        gtf.append(f'chr1\tENSEMBL\tgene\t1\t9\t.\t+\t.\tgene_id "{g}"; gene_type "lincRNA"; gene_name "{s.title()}";')
        gtf.append(f'chr1\tENSEMBL\texon\t1\t9\t.\t+\t.\tgene_id "{g}"; gene_name "{s.title()}";')
    paths.append(write(folder / "mouse.gene_sums.M023.gtf.gz", gtf))
    obs = {
        "study": ["SRP066161"] * 6,
        "batch": ["SRP066161"] * 6,
        "title": [f"CA{i}_rep" for i in range(6)],
        "tissue": ["brain"] * 6,
        "age": [f"P{50 + i}" for i in range(6)],
    }
    return Case("recount3", paths, X, runs, genes, obs, "counts", head=3)


def archive(path, members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as z:
        for name, lines in members.items():
            z.writestr(zipfile.ZipInfo(name), "\n".join(lines) + "\n" if lines else "")
    path.write_bytes(buffer.getvalue())
    return path


def facs(folder):
    X = counts(6, 9, 18)
    genes = [*(s.title() for s in SYMBOLS[:8]), "ERCC-00002"]
    cells = ["A1.B000610.3_56_F.1.1", "A2.B000610.3_56_F.1.1", "B4.B000610.3_56_F.1.1"]
    cells += ["A1.D041914.3_8_M.1.1", "C7.D041914.3_8_M.1.1", "P24.D041914.3_8_M.1.1"]
    members = {"FACS/": [], "__MACOSX/FACS/._Bladder-counts.csv": ["x"]}
    for organ, part in (("Trachea", slice(0, 3)), ("Bladder", slice(3, 6))):
        body = rows(([f'"{g}"'] for g in genes), X[part].T, ",")
        members[f"FACS/{organ}-counts.csv"] = [",".join(quoted(["", *cells[part]])), *body]
    path = archive(folder / "FACS.zip", members)
    types = ["basal cell", None, "fibroblast", "bladder cell", "bladder cell", ""]
    head = "cell,cell_ontology_class,cell_ontology_id,free_annotation,mouse.id,mouse.sex,plate.barcode,tissue"
    said = [f"{c},{t},CL:1,,3_8_M,M,B,x" for c, t in zip(cells, types) if t is not None]
    annotations = write(folder / "annotations_FACS.csv", [head, *said])
    order = [3, 4, 5, 0, 1, 2]
    mice = ["3_8_M" if t is not None else None for t in types]
    obs = {
        "cell_type": [types[i] or None for i in order],
        "donor": [mice[i] for i in order],
        "tissue": ["Bladder"] * 3 + ["Trachea"] * 3,
        "batch": ["D041914"] * 3 + ["B000610"] * 3,
    }
    return Case("tabula_muris", [path, annotations], X[order], [cells[i] for i in order], genes, obs, "counts")


def droplet(folder):
    X, genes = counts(6, 9, 19), [s.title() for s in SYMBOLS]
    members = {}
    for organ, part in (("Tongue-10X_P4_0", slice(0, 3)), ("Bladder-10X_P4_3", slice(3, 6))):
        members[f"droplet/{organ}/matrix.mtx"] = mtx_lines(X[part])
        members[f"droplet/{organ}/genes.tsv"] = [f"{g}\t{g}" for g in genes]
        members[f"droplet/{organ}/barcodes.tsv"] = [f"{c}-1" for c in CODES[part]]
    path = archive(folder / "droplet.zip", members)
    names = [f"{b}_{c}" for b, c in zip(["10X_P4_0"] * 3 + ["10X_P4_3"] * 3, CODES)]
    types = ["keratinocyte", "basal cell", None, "bladder cell", "bladder cell", "leukocyte"]
    head = "cell,channel,cell_ontology_class,mouse.id,mouse.sex,tissue"
    said = [f"{n},{n[:8]},{t},3-M-8,M,x" for n, t in zip(names, types) if t]
    annotations = write(folder / "annotations_droplet.csv", [head, *said])
    metadata = [
        "channel,mouse.id,tissue,subtissue,mouse.sex",
        "10X_P4_0,3-M-8,Tongue,NA,M",
        "10X_P4_3,3-M-9,Bladder,NA,M",
    ]
    metadata = write(folder / "metadata_droplet.csv", metadata)
    order = [3, 4, 5, 0, 1, 2]
    obs = {
        "cell_type": [types[i] for i in order],
        "tissue": ["Bladder"] * 3 + ["Tongue"] * 3,
        "batch": ["10X_P4_3"] * 3 + ["10X_P4_0"] * 3,
        "donor": ["3-M-9"] * 3 + ["3-M-8"] * 3,
    }
    return Case(
        "tabula_muris", [path, annotations, metadata], X[order], [names[i] for i in order], genes, obs, "counts"
    )


def series_matrix(folder):
    X = counts(6, 9, 20, fractions=True)
    genes = [f"{1000 + i}_at" for i in range(9)]
    table = ["\t".join([f'"{g}"', *map(number, r)]) for g, r in zip(genes, X.T)]
    said = ["docetaxel sensitive", "docetaxel resistant"] * 3
    grades = ["grade: 2", "grade: 3"] * 3
    lines = series_lines([f"tumor {i}" for i in range(6)], [said, grades], table)
    path = write(folder / "GSE6434_series_matrix.txt.gz", lines)
    obs = {
        "title": [f"tumor {i}" for i in range(6)],
        "grade": ["2", "3"] * 3,
        "response": ["responder", "non_responder"] * 3,
    }
    cells = [f"GSM{1000 + i}" for i in range(6)]
    return Case("series_matrix", [path], X, cells, genes, obs, "none", head=len(lines) - 11 + 1)


def gene2vec(folder):
    X = np.random.default_rng(21).normal(size=(5, 8)).astype(np.float32)
    genes = [f"GENE{i}" for i in range(8)]
    lines = [f"{g}\t" + "".join(f"{v!s} " for v in column) for g, column in zip(genes, X.T)]
    path = write(folder / "gene2vec_dim_200_iter_9.txt", lines)
    return Case("gene2vec", [path], X, list("12345"), genes, {}, "none", head=0)


LAYOUTS = (
    geo_umi, muraro, wang, xin, segerstolpe, tenx_v2, tenx_v3, kang, h5_v3, h5_v2, scjoint, genelab, mixology,
    xena_toil, xena_tcga, gct, recount3, facs, droplet, series_matrix, gene2vec,
)  # fmt: skip
CASES = {f.__name__: f for f in LAYOUTS}
