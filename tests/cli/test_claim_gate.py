"""``unfool evaluate --claim --sarif`` as a gate: exit code, message, and a file for code scanning."""

import json

import pytest

QUICK = ["--data", "digits", "--images", "64", "--attack", "fgsm", "--no-reliability"]


@pytest.mark.parametrize(
    ("claim", "code", "words"),
    [
        ("<=0.9", 0, ""),
        (">=0.9", 10, "unfool: the claim was shown to be wrong, robust accuracy >=0.9 fails: "),
        (">=0.99", 10, "unfool: the claim was shown to be wrong"),
    ],
)
def test_the_exit_code_says_whether_a_claim_holds(cli, run, tmp_path, claim, code, words):
    told = cli("evaluate", run, *QUICK, "--claim", claim, "--sarif", tmp_path / "gate.sarif")
    assert (told.code, told.err.startswith(words), len(told.err.splitlines())) == (code, True, bool(code))
    log = json.loads((tmp_path / "gate.sarif").read_text())
    (sarif,) = log["runs"]
    assert sarif["invocations"][0]["exitCode"] == code
    assert [item["level"] for item in sarif["results"]] == (["error"] if code else [])
    for item in sarif["results"]:
        assert item["message"]["text"].startswith(f"Robust accuracy of {run} under fgsm at linf:8/255 is {claim}.")
        assert item["properties"]["images"] <= 64
        assert item["properties"]["low"] <= item["properties"]["accuracy"] <= item["properties"]["high"]
        assert item["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].endswith("/config.yaml")


def test_a_claim_that_the_images_cannot_settle_has_a_code_of_its_own(cli, run, tmp_path):
    told = cli(
        "evaluate", run, *QUICK, "--claim", "<=0.01", "--images", "3", "--sarif", tmp_path / "gate.sarif", "--json"
    )
    assert told.code == 11
    assert "the claim was not settled, robust accuracy <=0.01 is out of reach" in told.err
    assert json.loads(told.out)["claims"][0]["verdict"] == "out of reach"
    (item,) = json.loads((tmp_path / "gate.sarif").read_text())["runs"][0]["results"]
    assert (item["ruleId"], item["level"]) == ("robust-accuracy", "warning")


def test_a_model_s_file_and_line_are_the_place(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 10))\n"
    )
    told = cli("evaluate", "--model", "net.py:build", *QUICK, "--claim", ">=0.9", "--sarif", "gate.sarif")
    assert told.code == 10, told.err
    results = json.loads((tmp_path / "gate.sarif").read_text())["runs"][0]["results"]
    assert [item["ruleId"] for item in results] == ["robust-accuracy", "doubt"]
    assert results[1]["message"]["text"].startswith("chance: ")
    for item in results:
        place = item["locations"][0]["physicalLocation"]
        assert place == {
            "artifactLocation": {"uri": "net.py", "uriBaseId": "%SRCROOT%"},
            "region": {"startLine": 4},
        }
