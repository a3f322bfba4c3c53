"""Charts of what tasks learnt show every task that has an accuracy, held out and in training."""

from unfool.evaluation.estimates.charts import tasks_chart


def share(accuracy):
    return {"accuracy": accuracy, "low": 0.1, "high": 0.9, "count": 4}


def test_tasks_are_shown_held_out_and_as_they_were_learnt_from():
    networks = [
        ("a", {"tasks": {"jigsaw": share(0.5), "contrast": share(None)}}, {"jigsaw": 0.7, "contrast": 0.9}),
        ("b", {"tasks": {"jigsaw": share(0.6)}}, {"jigsaw": None}),
    ]
    chart = tasks_chart(networks)
    points = {name: [tuple(point[:2]) for point in points] for name, points in chart.series.items()}
    assert points["held out"] == [("jigsaw, a", 0.5), ("jigsaw, b", 0.6)]
    assert points["in training"] == [("jigsaw, a", 0.7)]
    assert tasks_chart([("a", {"tasks": {"contrast": share(None)}}, {"contrast": 0.9})]) is None
