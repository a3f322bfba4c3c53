"""What the benchmark of masked classifiers holds lean against: the strongest attack known here."""

from types import SimpleNamespace


def attacks_that_are_known(program, subject, monkeypatch, kind):
    """The wrapped subject, and what was attacked by which attack: the first fools half of the images."""
    masked, benchmark, attacked = program("masked"), program("masked_set"), []
    wrapped = subject.around(kind, masked.MASKED[kind](subject.network))

    def craft(model, table, name, *, threat, proxy=None):
        images = table.batch().images.clone()
        if not attacked:
            images[: len(images) // 2] = 0
        attacked.append((name, model, table, proxy))
        return SimpleNamespace(read=lambda span: images[span])

    def right(network, images, labels, first=0):
        return (images.flatten(1).amax(1) > 0).float()

    monkeypatch.setattr(benchmark, "right", right)
    monkeypatch.setattr(benchmark, "craft", craft)
    return wrapped, attacked, benchmark.known(wrapped)


def test_all_of_autoattack_is_known_of_a_classifier_seen_through_and_then_of_what_stands(program, subject, monkeypatch):
    wrapped, (through, bare), accuracies = attacks_that_are_known(program, subject, monkeypatch, "probabilities")
    known = program("masked_set").KNOWN
    assert known.startswith("autoattack:")
    assert through[:2] == (known, wrapped.network)
    assert through[2].ids.tolist() == subject.table.ids.tolist()
    assert through[3].copy(wrapped.network) is subject.network
    assert bare[:2] == (known, wrapped.network)
    assert bare[3] is None
    assert bare[2].ids.tolist() == subject.table.ids[12:].tolist()
    assert accuracies == {"accuracy": 50.0, "clean": 100.0, "seen through": 50.0, "as it is": 50.0}


def test_a_classifier_whose_calls_confirm_nothing_is_judged_at_the_end(program, subject, monkeypatch):
    wrapped, (through, bare), _ = attacks_that_are_known(program, subject, monkeypatch, "of-its-batch")
    known = program("masked_set").KNOWN
    assert (through[0], through[3], bare[0], bare[3]) == (known, None, known, None)
    assert through[1] is not wrapped.network
    assert bare[1] is wrapped.network
    assert len(through[2]) == len(bare[2]) == 24


def test_a_classifier_that_draws_is_attacked_over_some_draws(program, subject, monkeypatch):
    wrapped, attacked, _ = attacks_that_are_known(program, subject, monkeypatch, "noisy")
    assert tuple(name for name, *_ in attacked) == program("masked_set").AVERAGED
    for _, model, table, proxy in attacked:
        assert model is not wrapped.network
        assert (len(table), proxy) == (24, None)


def test_a_classifier_that_hides_nothing_known_is_attacked_as_it_is(program, subject, monkeypatch):
    benchmark, attacked = program("masked_set"), []
    examples = SimpleNamespace(read=lambda span: subject.table.batch().images[span])
    monkeypatch.setattr(benchmark, "craft", lambda *values, **_: attacked.append(values) or examples)
    assert benchmark.known(subject)["accuracy"] == 100
    ((model, table, name),) = attacked
    assert (model, len(table), name) == (subject.network, 24, benchmark.KNOWN)
