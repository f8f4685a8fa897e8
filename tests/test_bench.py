"""Benchmarks run and write their tables; how fast things are is no test."""

from src.tools import bench
from src.utils.io import read_json


def test_bench_data_writes_its_table(tmp_path, capsys):
    assert bench.main(["data", "--images", "5", "--rounds", "1", "--out", str(tmp_path)]) == 0
    rates = read_json(tmp_path / "data.json")["images_per_second"]
    assert set(bench.TARGETS) < set(rates)
    assert all(rate > 0 for rate in rates.values())
    printed = capsys.readouterr().out
    assert (tmp_path / "data.md").read_text() in printed
    assert all(f"| {name} |" in printed for name in rates)
