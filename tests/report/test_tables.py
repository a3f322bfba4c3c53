"""The pivot, its Markdown and its terminal form, against figures worked out by hand."""

import io
import re

import pytest
from made_up_study import ATTACKS, make_row, make_rows, result
from rich.console import Console

from unfool.core.errors import DataError
from unfool.report.accuracy_table import attack_order
from unfool.report.page import Page, render
from unfool.report.publishing.markdown import markdown, results_section
from unfool.report.tables import rich_tables, study_tables


def with_rows(study, rows):
    return {**study, "rows": rows, "claims": []}


def test_layout_of_the_source(study):
    first, second = study_tables(result(study))
    assert (first.data, second.data) == ("cifar10", "cifar100")
    assert [column.title for column in first.columns] == ["clean", "FGSM", "PGD-7", "PGD-20", "PGD-50"]
    assert [(row.model, row.protocol, row.crafted_by) for row in first.rows] == [
        ("single-task", "white-box", ""),
        ("simclr multitask", "white-box", ""),
        ("simclr multitask", "transfer", "single-task"),
    ]
    assert first.threat == "linf:8/255"
    assert first.settings == "stem imagenet"
    assert all(row.variant == "" and row.threat == "" for row in first.rows)
    assert first.source_decimals == 2


def test_every_row_of_the_study_is_shown_once_with_its_own_numbers(study):
    cells = {}
    for table in study_tables(result(study)):
        for row in table.rows:
            for attack, cell in row.cells.items():
                key = (table.data, row.model, "clean" if attack == "none" else row.protocol, attack)
                cells[key] = (cell.accuracy, cell.low, cell.high, cell.source_value, cell.images)
    expected = {
        (r["data"], r["model"], r["protocol"], r["attack"]): (
            *(r[name] for name in ("accuracy", "low", "high", "source_value", "n")),
        )
        for r in study["rows"]
    }
    assert cells == expected


def test_attacks_are_ordered_by_strength():
    shuffled = ["autoattack", "pgd-100", "fgsm", "square", "pgd-20", "new-attack", "none", "apgd-ce", "pgd-7"]
    assert sorted(shuffled, key=attack_order) == [
        *("none", "fgsm", "pgd-7", "pgd-20", "pgd-100", "apgd-ce", "square", "autoattack", "new-attack"),
    ]


def test_seeds_are_averaged_with_their_range_and_told_as_such(study):
    shares = {0: 0.30, 1: 0.36, 2: 0.33}
    rows = [make_row("m", "digits", "none", 0.9, seed=seed) for seed in shares]
    rows += [make_row("m", "digits", "pgd-7", share, seed=seed) for seed, share in shares.items()]
    rows += [make_row("m", "digits", "fgsm", 0.5, seed=0)]
    (table,) = study_tables(result(with_rows(study, rows)))
    (row,) = table.rows
    cell = row.cells["pgd-7"]
    assert (cell.accuracy, cell.low, cell.high, cell.seeds) == (pytest.approx(0.33), 0.30, 0.36, 3)
    assert cell.cpu_seconds == 12.5
    alone = row.cells["fgsm"]
    assert (alone.low, alone.high, alone.seeds) == (rows[-1]["low"], rows[-1]["high"], 1)
    text = markdown(result(with_rows(study, rows)))
    assert "33.0 [30.0, 36.0] over 3 seeds" in text
    assert "over" not in text.split("50.0 [")[1].split("|")[0]
    assert "lowest seed, highest seed" in text


def agreeing_rows():
    """Three seeds: equal on clean images, equal as printed under FGSM, apart under PGD."""
    shares = {"none": (0.9, 0.9, 0.9), "fgsm": (0.0, 0.0004, 0.0), "pgd-7": (0.0, 0.001, 0.0)}
    return [
        make_row("m", "digits", attack, share, seed=seed)
        for attack, seeds in shares.items()
        for seed, share in enumerate(seeds)
    ]


def test_equal_seeds_are_no_interval(study):
    """They agree: ``[90.0, 90.0]`` would say that nothing is uncertain."""
    values = with_rows(study, agreeing_rows())
    text = markdown(result(values))
    assert "| m | 90.0 (3 seeds agree) | white-box | 0.0 (3 seeds agree) | 0.0 [0.0, 0.1] over 3 seeds |" in text
    assert "[lowest seed, highest seed\\] where a cell says so, no bracket where they agree, else" in text
    terminal = " ".join(shown(values).split())
    assert terminal.count("3 seeds agree") == 2
    assert terminal.count("[0.0, 0.1]") == 1
    assert terminal.count("[") == 3  # and two in the caption
    page = render(Page(title="t", subtitle="", result=result(values)))
    assert page.count("<small>3 seeds agree</small>") == 2
    assert page.count("<small>3 seeds</small>") == 1
    assert page.count("<small>[") == 1
    assert "[90.0, 90.0]" not in page
    assert "[0.0, 0.0]" not in page
    apart = markdown(result(with_rows(study, [row for row in agreeing_rows() if row["attack"] == "pgd-7"])))
    assert "[lowest seed, highest seed\\] where a cell says so, else" in apart


def test_the_interval_of_one_seed_is_shown_however_narrow(study):
    text = markdown(result(with_rows(study, [make_row("m", "digits", "none", 0.5, low=0.5, high=0.5, n=10**9)])))
    assert "50.0 [50.0, 50.0]" in text
    assert "seeds" not in text


def test_transfer_is_matched_to_its_source_model_within_each_seed(study):
    (first, _) = study_tables(result(with_rows(study, make_rows(0) + make_rows(1, 0.01))))
    assert [row.provenance for row in first.rows] == ["white-box", "white-box", "transfer from single-task"]
    assert all(cell.seeds == 2 for row in first.rows for cell in row.cells.values())


def test_a_source_that_the_study_does_not_judge_is_still_transfer(study):
    row = make_row("m", "digits", "pgd-7", 0.4, protocol="transfer", source_model="unlisted")
    (table,) = study_tables(result(with_rows(study, [row])))
    assert table.rows[0].provenance == f"transfer from another system ({row['crafted_on'][:8]})"


def test_what_sets_rows_apart_is_named(study):
    probe = {"stem": "imagenet", "stage": "pool-2"}
    rows = [
        make_row("m", "digits", "none", 0.9),
        make_row("m", "digits", "none", 0.99, split="train"),
        make_row("m", "digits", "none", 0.8, settings=probe),
        make_row("m", "digits", "none", 0.85, defense="reverse:contrast"),
        make_row("m", "digits", "pgd-7", 0.4),
        make_row("m", "digits", "pgd-7", 0.3, threat="l2:0.5"),
        make_row("m", "digits", "pgd-7", 0.2, settings=probe),
    ]
    (table,) = study_tables(result(with_rows(study, rows)))
    assert {(row.variant, row.provenance, row.cells["none"].accuracy) for row in table.rows} == {
        ("", "white-box, linf:8/255", 0.9),
        ("", "white-box, l2:0.5", 0.9),
        ("stage pool-2", "white-box, linf:8/255", 0.8),
        ("with reverse:contrast", "clean", 0.85),
        ("on the train split", "clean", 0.99),
    }
    assert table.rows[-1].variant == "on the train split"


def test_settings_that_only_attacks_carry_do_not_lose_the_natural_accuracy(study):
    settings = {"stem": "imagenet", "step": "2/255"}
    rows = [make_row("m", "digits", "none", 0.9), make_row("m", "digits", "pgd-7", 0.4, settings=settings)]
    (table,) = study_tables(result(with_rows(study, rows)))
    (row,) = table.rows
    assert (row.cells["none"].accuracy, row.variant, table.settings) == (0.9, "", "stem imagenet, step 2/255")


def test_seeds_must_cite_one_source_value(study):
    rows = [make_row("m", "digits", "none", 0.9, seed=seed, source_value=0.8 + seed / 10) for seed in (0, 1)]
    with pytest.raises(DataError, match="different source values"):
        study_tables(result(with_rows(study, rows)))


def test_markdown_word_for_word(study):
    rows = [
        make_row("single-task", "digits", "none", 0.8, source_value=0.8246),
        make_row("single-task", "digits", "pgd-7", 0.0, source_value=0.0004),
        make_row("a|b<i>", "digits", "none", 0.7),
        make_row("a|b<i>", "digits", "pgd-7", 0.5, protocol="transfer", source_value=0.6062),
    ]
    claim = {"text": "It holds.", "verdict": "fails", "evidence": "0.0 % < 60 %"}
    assert markdown(result({**study, "rows": rows, "claims": [claim]})) == (
        "**digits.** Accuracy in % on 10,000 clean and 500 attacked images of the test split; attacks within "
        "linf:8/255; all rows: stem imagenet; \\[95 % interval\\].\n"
        "\n"
        "| model | clean | protocol | PGD-7 |\n"
        "|---|--:|---|--:|\n"
        "| single-task | 80.0 [79.2, 80.8]<br>source 82.46 | white-box | 0.0 [0.0, 0.8]<br>source 0.04 |\n"
        "| a\\|b&lt;i&gt; | 70.0 [69.1, 70.9] | **transfer** from single-task "
        "| *transfer* 50.0 [45.6, 54.4]<br>source 60.62 |\n"
        "\n"
        "- **fails**: It holds. *0.0 % &lt; 60 %*\n"
    )
    plain = markdown(result({**study, "rows": rows, "claims": [claim]}))
    assert markdown(result({**study, "rows": rows, "claims": [claim], "summary": "It *holds*."})) == (
        "It \\*holds\\*.\n\n" + plain
    )


def test_every_transfer_cell_says_so_in_markdown(study):
    for line in markdown(result(study)).splitlines():
        if "**transfer**" in line:
            assert all(part.strip().startswith("*transfer*") for part in line.split("|")[4:-1])
        elif line.startswith("|"):
            assert "transfer" not in line


def test_a_section_puts_the_source_beside_and_folds_the_rest(study):
    rows = [
        make_row("plain", "digits", "none", 0.8, source_value=0.8246),
        make_row("plain", "digits", "pgd-7", 0.0),
        make_row("a|b", "digits", "pgd-7", 0.5, protocol="transfer", source_model="plain", source_value=0.6062),
    ]
    claims = [{"text": "It holds.", "verdict": "fails", "evidence": "0.0 %"}]
    values = {
        **study,
        "scale": "small",
        "rows": rows,
        "claims": claims,
        "cuts": ["Fewer epochs."],
        "notes": ["A *note*."],
    }
    text = results_section(result(values))
    assert text.startswith("## Results at scale small\n\n")
    beside, _, folded = text.partition("### Verdicts")
    assert "| plain | clean | clean | 82.46 | 80.0 [79.2, 80.8] | -2.5 |" in beside
    assert "| a\\|b | PGD-7 | **transfer** from plain | 60.62 | 50.0 [45.6, 54.4] | -10.6 |" in beside
    assert beside.count("| plain |") == 1
    assert "<summary>1 claims: 1 fails</summary>" in folded
    assert folded.count("<details>") == folded.count("</details>") == 4
    assert "- A \\*note\\*." in folded
    assert "- Fewer epochs." in folded


def rows_with_losses():
    """Two seeds of a system whose losses the source states, and one of which it states an accuracy alone."""
    rows = []
    for seed in (0, 1):
        words = {"seed": seed, "settings": {"cause": "train mode"}}
        rows += [
            make_row(
                "m", "digits", "none", 0.8, loss=0.5 + seed / 10, source_value=0.8752, source_loss=0.5812, **words
            ),
            make_row("m", "digits", "pgd-7", 0.4, loss=1.25, source_value=0.0666, source_loss=4.3066, **words),
            make_row("m", "digits", "pgd-20", 0.3, loss=1.5, **words),
        ]
    return [*rows, make_row("other", "digits", "none", 0.9, loss=0.25, source_value=0.91, settings={})]


def test_losses_that_the_source_states_have_a_column(study):
    values = with_rows(study, rows_with_losses())
    (table,) = study_tables(result(values))
    assert [column.has_loss for column in table.columns] == [True, True, False]
    cell = table.rows[0].cells["none"]
    assert (cell.loss, cell.source_loss) == (pytest.approx(0.55), 0.5812)
    text = markdown(result(values))
    assert "losses are mean cross-entropies" in text
    assert "| model | clean | loss | protocol | PGD-7 | loss | PGD-20 |\n|---|--:|--:|---|--:|--:|--:|" in text
    own = "| 80.0 (2 seeds agree)<br>source 87.52 | 0.5500<br>source 0.5812 | white-box | 40.0 (2 seeds agree)"
    assert f"{own}<br>source 6.66 | 1.2500<br>source 4.3066 | 30.0 (2 seeds agree) |" in text
    assert "| other | 90.0 [89.4, 90.6]<br>source 91.00 | 0.2500 | clean | – | – | – |" in text
    for line in text.splitlines():
        assert not line.startswith("|") or line.count("|") == 8


def test_losses_stand_beside_the_papers(study):
    beside, _, _ = results_section(result(with_rows(study, rows_with_losses()))).partition("### Rows")
    head = "| system | attack | protocol | paper % | this % | difference | paper loss | this loss |"
    assert f"{head}\n|---|---|---|--:|--:|--:|--:|--:|\n" in beside
    assert "| PGD-7 | white-box | 6.66 | 40.0 (2 seeds agree) | +33.3 | 4.3066 | 1.2500 |" in beside
    assert "| other | clean | clean | 91.00 | 90.0 [89.4, 90.6] | -1.0 | – | 0.2500 |" in beside
    assert "loss" not in results_section(result(with_rows(study, make_rows())))


def test_losses_are_on_the_page_and_in_the_terminal(study):
    values = with_rows(study, rows_with_losses())
    page = render(Page(title="t", subtitle="", result=result(values)))
    assert page.count('<th scope="col" class="number">loss</th>') == 2
    assert re.findall(r'<td class="number [a-z-]+">(\d[\d.]+)(?:<small>(.*?)</small>)?', page) == [
        ("0.5500", "source 0.5812"),
        ("1.2500", "source 4.3066"),
        ("0.2500", ""),
    ]
    head = re.search('<table class="accuracy.*?</thead>', page, re.DOTALL)
    assert head is not None
    spans = [int(span) for span in re.findall(r'colspan="(\d)"', head[0])]
    assert (spans, sum(spans)) == ([3, 3, 1], head[0].count('<th scope="col" class="'))
    terminal = " ".join(shown(values).split())
    for words in ("loss 0.5500", "source 0.5812", "loss 1.2500", "source 4.3066", "loss 0.2500"):
        assert terminal.count(words) == 1
    assert "loss 1.5000" not in terminal


def test_seeds_must_cite_one_source_loss(study):
    rows = [make_row("m", "digits", "none", 0.9, seed=seed, source_loss=0.5 + seed) for seed in (0, 1)]
    with pytest.raises(DataError, match=r"cite different source losses \[0\.5, 1\.5\]"):
        study_tables(result(with_rows(study, rows)))


def shown(study):
    console = Console(file=io.StringIO(), width=200, color_system=None)
    for table in rich_tables(result(study)):
        console.print(table)
    return console.file.getvalue()


def test_terminal_tables_fit_100_columns_and_lose_no_figure(study):
    extra = [make_row("single-task", "cifar10", f"apgd-{name}", 1.0) for name in ("ce", "t", "dlr")]
    study["rows"] += [*extra, make_row("a model with a very long name " * 5, "cifar10", "none", 0.123)]
    text = shown(study)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert "…" not in text
    for row in study["rows"]:
        assert f"{100 * row['accuracy']:.1f}" in text
        assert f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]" in text
    assert "cifar10 (continued)" in text
    assert text.count("transfer from") == 3
    assert sum(line.split().count("transfer") for line in text.splitlines()) == 3 * (1 + len(ATTACKS))


def test_names_are_no_markup_in_the_terminal(study):
    study["rows"].append(make_row("[red]x[/red]", "[bold]digits", "none", 0.5))
    text = shown(study)
    assert "[red]x[/red]" in text
    assert "[bold]digits" in text


def test_a_study_without_rows_has_no_tables(study):
    assert study_tables(result(with_rows(study, []))) == []
    assert markdown(result(with_rows(study, []))).strip() == ""


def test_a_row_of_another_panel_is_not_told_twice(study):
    rows = [*study["rows"], {**study["rows"][0], "settings": {"loss": "margin"}, "panel": "charts"}]
    assert study_tables(result({**study, "rows": rows})) == study_tables(result(study))


def test_threat_models_stand_by_their_size(study):
    rows = [
        make_row("m", "cifar10", "pgd-20", 0.5, threat=threat)
        for threat in ("linf:16/255", "linf:0", "linf:4/255", "linf:8/255", "l2:0.5")
    ]
    (table,) = study_tables(result(with_rows(study, rows)))
    assert [row.threat for row in table.rows] == ["l2:0.5", "linf:0", "linf:4/255", "linf:8/255", "linf:16/255"]
