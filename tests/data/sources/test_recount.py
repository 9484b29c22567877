"""recount3: sums become reads, and every run needs a length."""

import numpy as np
import pytest
from official_layouts import CASES, SYMBOLS, dense, read, unpacked, write

from shared.data.errors import DataError
from shared.data.sources import READERS


def test_sums_become_reads(tmp_path):
    case = CASES["recount3"](tmp_path)
    assert list(read(case).var["symbol"]) == [s.title() for s in SYMBOLS]
    assert "symbol" not in READERS["recount3"](case.paths[:3]).var
    with pytest.raises(DataError, match="no file of quality"):
        READERS["recount3"](case.paths[:2])


@pytest.mark.parametrize("value", ["0", "NA", "", "-3", "inf"])
def test_a_run_without_a_length_is_refused(tmp_path, value):
    case = CASES["recount3"](tmp_path)
    text = unpacked(case.paths[2]).decode().replace("150.25", value)
    write(case.paths[2], text.split("\n")[:-1])
    with pytest.raises(DataError, match=r"no positive star\.average_mapped_length for SRR300002"):
        read(case)


def test_large_sums_are_divided_before_they_are_rounded_to_float32(tmp_path):
    """Sums pass 16,777,216, above which float32 holds no odd number."""
    write(tmp_path / "sra.gene_sums.S.M023.gz", ["##annotation=M023", "gene_id\tr1", "g1\t1677721700", "g2\t99"])
    write(tmp_path / "sra.sra.S.MD.gz", ["external_id\tstudy", "r1\tS"])
    quality = ["external_id\tbc_auc.all_reads_all_bases\tstar.average_mapped_length", "r1\t9\t100"]
    write(tmp_path / "sra.recount_qc.S.MD.gz", quality)
    found = READERS["recount3"](sorted(tmp_path.glob("*.gz")))
    assert dense(found).tolist() == [[np.float32(16_777_217), 1]]
