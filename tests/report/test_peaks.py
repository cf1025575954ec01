"""The published comparison of the two supernodes, 300 : 180 PFLOP/s, from the catalogue."""

import json

import pytest

from supernode.cli.main import call
from supernode.machine import load_machine
from supernode.report.peaks import peak_sentences, peaks_of

CLOUDMATRIX, NVL72 = load_machine("cloudmatrix384"), load_machine("gb200-nvl72")


def test_300_to_180_is_reproduced_and_the_source_is_said():
    by_source = {peak.number.source: peak.flops_per_s for peak in peaks_of(CLOUDMATRIX)}
    assert by_source["CM384"] == pytest.approx(288.8e15, rel=1e-3)
    assert by_source["SemiAnalysis"] == pytest.approx(300e15, rel=2e-3)
    assert by_source["A3-page"] == pytest.approx(307.2e15, rel=1e-3)
    assert [peak.flops_per_s for peak in peaks_of(NVL72)] == [180e15]
    assert list(peak_sentences([CLOUDMATRIX, NVL72])) == [
        "cloudmatrix384: 288.8 PFLOP/s dense bfloat16, 384 x 752 TFLOP/s by CM384; "
        "299.5 by SemiAnalysis (780); 307.2 by A3-page (800)",
        "gb200-nvl72: 180 PFLOP/s dense bfloat16, 72 x 2,500 TFLOP/s by GB200-page",
        "cloudmatrix384 : gb200-nvl72 = 288.8 : 180 = 1.60 by CM384 or 299.5 : 180 = 1.66 by "
        "SemiAnalysis or 307.2 : 180 = 1.71 by A3-page",
    ]


def test_compare_says_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "200")
    asked = ["compare", "gpt-tiny", "--chips", "1", "--on", "cloudmatrix384", "gb200-nvl72"]
    assert call(asked) == 0
    assert "299.5 : 180 = 1.66 by SemiAnalysis" in capsys.readouterr().out
    assert call([*asked, "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    sources = [peak["source"] for peak in first["machine_peaks"]]
    assert sources == ["CM384", "SemiAnalysis", "A3-page"]
    assert second["machine_peaks"][0]["flops_per_s"] == 180e15
