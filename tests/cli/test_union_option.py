"""``--union`` and a curve of minimum norms on the command line: rows, files, and one line for what is no union."""

import json

import pytest

UNION = ("--union", "linf:4/255,l2:0.5,l0:3")
FEW = ("--images", "20", "--no-reliability")


def test_a_union_ends_with_one_number_for_all_threat_models(cli, run, tmp_path):
    out = tmp_path / "union.json"
    attacks = ("--attack", "pgd-3", "--attack", "sigma-zero-5")
    done = cli("evaluate", run, *attacks, *UNION, *FEW, "--out", out)
    assert done.code == 0, done.err
    assert "union" in done.out
    assert "linf:4/255+l2:0.5+l0:3" in done.out
    rows = {(row["attack"], row["threat"]): row["accuracy"] for row in json.loads(out.read_text())["rows"]}
    assert [key for key in rows if key[0] == "sigma-zero-5"] == [("sigma-zero-5", "l0:3")]
    each = [rows["worst-case" if threat == "l0:3" else "pgd-3", threat] for threat in ("linf:4/255", "l2:0.5", "l0:3")]
    assert rows["union", "linf:4/255+l2:0.5+l0:3"] <= min(each)


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--union", "linf:4/255"), "a union of 1 threat models is none"),
        (("--union", "linf:4/255,l3:1"), "unknown norm 'l3'"),
        ((*UNION, "--threat", "l2:1"), "leave out --threat, --norm and --eps"),
        ((*UNION, "--curve", "eps=1/255,2/255"), "union"),
        ((*UNION, "--claim", ">=0.5"), "about one threat model"),
        ((*UNION, "--defense", "reverse:task=contrast", "--adaptive"), "--union and --adaptive cannot be combined"),
    ],
)
def test_what_is_no_union_is_one_line(cli, run, words, fault):
    done = cli("evaluate", run, "--attack", "pgd-3", *words, *FEW)
    assert done.code == 2
    assert fault in done.complaint()


def test_one_run_gives_a_curve_of_minimum_norms(cli, run, tmp_path):
    out = tmp_path / "curve.json"
    curve = ("--norm", "l2", "--curve", "eps=0.1,0.5,2")
    done = cli("evaluate", run, "--attack", "fmn-9", *curve, *FEW, "--out", out)
    assert done.code == 0, done.err
    rows = [row for row in json.loads(out.read_text())["rows"] if "curve" in row["settings"]]
    assert [row["threat"] for row in rows] == ["l2:0.1", "l2:0.5", "l2:2"]
    accuracies = [row["accuracy"] for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert all(row["settings"]["bound"] == "upper, by one run" for row in rows)
