"""What ``unfool evaluate`` does: the options as typed settings, the evaluation or the ladder, its results printed."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from unfool.attacks import make_attack
from unfool.cli.next_command import next_line
from unfool.cli.options.from_settings import explicit
from unfool.cli.parsing.defended import open_defense, with_preset
from unfool.cli.parsing.shared_out import folder_or_temporary, opens_system, sharing_of
from unfool.cli.parsing.systems import LOOKED_AT, choose_device, open_system
from unfool.cli.parsing.threats import read_threat
from unfool.cli.print_evaluation import print_evaluation, print_ladder
from unfool.cli.printing import check_page, check_writable, print_json, print_lines, stderr
from unfool.cli.result_pages import page_of
from unfool.cli.run_details import run_details
from unfool.core.config import build
from unfool.core.errors import ClaimError, ReliabilityError, SpecError, UnfoolError, UnsettledClaimError
from unfool.core.files import write_json
from unfool.core.files.refusals import check_folder
from unfool.core.progress import Progress
from unfool.core.progress_display import progress_bar
from unfool.evaluation import load_set
from unfool.evaluation.adaptive.ladder import discard_ladder, ladder
from unfool.evaluation.adaptive.settings import LadderSettings
from unfool.evaluation.crafting.evaluation_folder import discard_attacks
from unfool.evaluation.curves import CurvePoints
from unfool.evaluation.evaluate import evaluate
from unfool.evaluation.parts.opened import Opened
from unfool.evaluation.parts.sharing import share_evaluation
from unfool.evaluation.results.claims import FAILS, HOLDS
from unfool.evaluation.settings import EvaluationSettings, check_evaluation
from unfool.evaluation.statistics.union import ThreatUnion
from unfool.training.folder import check_free

if TYPE_CHECKING:
    from unfool.cli.commands.evaluate import EvaluateCommand, OutputOptions
    from unfool.core.threat import ThreatModel
    from unfool.evaluation.results.study_result import StudyResult
    from unfool.evaluation.statistics.settling import SequentialResult
    from unfool.training import RunConfig


AS_IT_IS = "the whole model"
"""What the pages of a ladder call a model that no defense was put before."""


def run_evaluation(command: EvaluateCommand) -> None:
    """Evaluate as the options say, then write and print the results."""
    _check_companions(command)
    attack, data, output, machine = command.attack, command.data, command.output, command.machine
    settings, shared = _settings(command), command.work.shared
    _, wanted = check_evaluation(attack.attack, settings)
    system = open_system(command.model, command.work.own_device(machine.device))
    sets = {str(path): load_set(path) for path in attack.on}
    _check_writable(output)
    table, column = None, data.column
    if command.model.multi_label and sets and data.data is None:
        raise SpecError("--multi-label needs the labels of a data set beside --on; give --data too")
    if attack.attack or not sets or data.data is not None or system.config is not None:
        table, column = system.images(data, machine.batch_size)
    elif attack.precision is not None or command.corruption.corruptions:
        option = "precision" if attack.precision is not None else "corruptions"
        raise SpecError(f"--{option} needs the images of a data set beside --on; give --data too, or leave it out")
    for examples in sets.values():
        system.check(examples.read(slice(LOOKED_AT)), machine.batch_size)
    network, defense = system.network, with_preset(command.defense.defense, command.defense.preset)
    with ExitStack() as stack:
        progress, folder = stack.enter_context(progress_bar(stderr(), system.name)), output.folder
        if defense is not None:
            network = open_defense(defense, system, system.split(data, "train"), machine.seed)
        if shared and table is not None:
            folder = stack.enter_context(folder_or_temporary(folder))
            one_by_one = settings.claim is not None or settings.curve is not None
            chosen = [] if one_by_one else wanted
            opened = Opened(model=network, table=table, column=column, attacks=chosen)
            _share(command, settings, opened, defense, folder, progress, system.config)
        evaluation = evaluate(
            network,
            table,
            attack.attack,
            name=system.name,
            column=column,
            settings=settings,
            stored_sets=sets,
            folder=folder,
            progress=progress,
        )
    if defense is not None:
        evaluation = replace(evaluation, rows=[replace(row, defense=defense) for row in evaluation.rows])
    failure = _failure(command, evaluation.doubts, evaluation.claim)
    result = _written(evaluation.result(), command, failure)
    if output.json and not output.streams:
        print_json(result.to_json())
    elif not output.streams:
        print_evaluation(evaluation)
        print_lines(next_line(evaluation.next_step, command.model, data, device=machine.device, defense=defense))
    if output.folder is not None and output.state is None:
        discard_attacks(output.folder, wanted)
    if failure is not None:
        raise failure


def _check_companions(command: EvaluateCommand) -> None:
    """Refuse options that do nothing without another one, and --strict where nothing is checked."""
    if explicit(command.ladder):
        option = next(iter(explicit(command.ladder)))
        raise SpecError(f"--{option} is a setting of the adaptive ladder; give --adaptive beside it")
    if command.corruption.severity and not command.corruption.corruptions:
        raise SpecError("--severity is a setting of the corruptions; give --corruptions beside it")
    if command.attack.alpha is not None and command.attack.claim is None:
        raise SpecError("--alpha is the error rate of a claim; give --claim '>=SHARE' beside it")
    if command.reliability.strict and not command.reliability.reliability:
        raise SpecError(
            "--strict ends by the reliability report, which --no-reliability leaves out; give one of the two"
        )
    if command.reliability.binarization_test and not command.attack.attack:
        raise SpecError("--binarization-test is a test of attacks; give --attack beside it, or leave it out")
    # The attacks of the reliability report search in it too.
    if command.attack.precision is not None and not command.attack.attack and not command.reliability.reliability:
        raise SpecError("--precision is that in which attacks search; give --attack beside it, or leave it out")


def _share(
    command: EvaluateCommand,
    settings: EvaluationSettings,
    opened: Opened,
    defense: str | None,
    folder: Path,
    progress: Progress,
    config: RunConfig | None,
) -> None:
    """Let the workers do what can be done in parts, into the folder."""
    machine, threat = command.machine, check_evaluation(command.attack.attack, settings)[0]
    opens = opens_system(
        command.model,
        command.data,
        command.attack.attack if opened.attacks else (),
        settings,
        defense=defense,
        seed=machine.seed,
        batch_size=machine.batch_size,
    )
    share_evaluation(
        sharing_of(command.work, opens, folder, machine.device, config),
        opens,
        opened,
        seed=settings.seed,
        precision=settings.precision,
        batch_size=settings.batch_size,
        severities=sorted(set(settings.severities)) if settings.corruptions else (),
        threat=threat if settings.reliability and settings.claim is None and settings.curve is None else None,
        progress=progress,
    )


def _check_writable(output: OutputOptions) -> None:
    """Fail before the work and not after it, for what is written in the end and for what keeps parts of it."""
    if output.state is not None:
        check_folder(output.state, output.state)
        check_free(output.state, "--state")
    for path in (output.out, output.sarif):
        if path is not None:
            check_writable(path, streams=path is output.out)
    if output.page is not None:
        check_page(output.page)


def _written(result: StudyResult, command: EvaluateCommand, failure: UnfoolError | None) -> StudyResult:
    """Write the results as the options say; return what is printed of them: all but pictures."""
    output = command.output
    whole = replace(result, run=run_details(choose_device(command.work.own_device(command.machine.device))))
    bare = replace(whole, pictures=())
    if output.out is not None:
        write_json(output.out, (bare if output.streams else whole).to_json())
    if output.page is not None:
        from unfool.report import write_page

        write_page(output.page, page_of(whole))
    if output.sarif is not None:
        from unfool.cli.finding_place import place_of
        from unfool.report.sarif import write_sarif

        write_sarif(
            output.sarif,
            whole,
            place_of(command.model),
            strict=command.reliability.strict,
            exit_code=0 if failure is None else failure.exit_code,
        )
    return bare


def _settings(command: EvaluateCommand) -> EvaluationSettings:
    """The settings of the evaluation, as the options say; SpecError for those that do not go together."""
    attack, corruption = command.attack, command.corruption
    union = None if attack.union is None else ThreatUnion.parse(attack.union)
    if union is None:
        threat = read_threat(attack.threat, attack.norm, attack.eps)
    elif attack.threat is None and attack.norm is None and attack.eps is None:
        threat = union.threats[0]
    else:
        raise SpecError(f"--union {union} states the threat models; leave out --threat, --norm and --eps")
    values = {
        **explicit(attack, without=["attack", "threat", "norm", "eps", "on", "curve", "union"]),
        **explicit(corruption, without=["severity"]),
        **explicit(command.reliability, without=["strict"]),
        **explicit(command.machine, without=["device"]),
        "threat": threat,
        "union": union,
        "curve": CurvePoints.parse(attack.curve, threat.norm_name) if attack.curve is not None else None,
        **({"severities": corruption.severity} if corruption.severity else {}),
    }
    return build(EvaluationSettings, values, "the evaluation")


def run_ladder(command: EvaluateCommand) -> None:
    """Run the adaptive ladder as the options say, then write and print the results."""
    data, output, machine = command.data, command.output, command.machine
    if command.work.shared:
        raise SpecError("--adaptive is not shared out; leave --workers and --cluster out, or start it with torchrun")
    defense_text, attack = _of_ladder(command)
    settings, threat = _ladder_settings(command)
    make_attack(attack, threat)
    system = open_system(command.model, machine.device)
    _check_writable(output)
    table, column = system.images(data, machine.batch_size)
    training = system.split(data, "train")
    with progress_bar(stderr(), system.name) as progress:
        defense = None if defense_text is None else open_defense(defense_text, system, training, machine.seed)
        result = ladder(
            system.network if defense is None else defense,
            table,
            attack,
            settings=settings,
            name=system.name,
            defended=defense_text or AS_IT_IS,
            column=column,
            folder=output.folder,
            progress=progress,
        )
    failure = _failure(command, result.doubts, None)
    results = _written(result.result(), command, failure)
    if output.json and not output.streams:
        print_json(results.to_json())
    elif not output.streams:
        print_ladder(result)
        print_lines(next_line(result.next_step, command.model, data, device=machine.device))
    if output.folder is not None and output.state is None:
        discard_ladder(output.folder)
    if failure is not None:
        raise failure


def _ladder_settings(command: EvaluateCommand) -> tuple[LadderSettings, ThreatModel]:
    """The settings of the ladder, as the options say, and its threat model."""
    attack = command.attack
    threat = read_threat(attack.threat, attack.norm, attack.eps)
    values = {
        **explicit(command.ladder),
        **explicit(command.machine, without=["device"]),
        "threat": threat,
        "precision": attack.precision or "fp32",
    }
    return build(LadderSettings, values, "the ladder"), threat


def _of_ladder(command: EvaluateCommand) -> tuple[str | None, str]:
    """The defense, if there is one, and the attack on the classifier alone; SpecError for options that say nothing
    about a ladder."""
    attack = command.attack
    defense = with_preset(command.defense.defense, command.defense.preset)
    if len(attack.attack) > 1:
        raise SpecError(f"--adaptive compares with one attack, not {len(attack.attack)}; give one --attack or none")
    others = {
        "on": attack.on,
        "binarization-test": command.reliability.binarization_test,
        "claim": attack.claim,
        "alpha": attack.alpha,
        "curve": attack.curve,
        "union": attack.union,
        "corruptions": command.corruption.corruptions,
        "severity": command.corruption.severity,
    }
    for name, value in others.items():
        if value:
            raise SpecError(f"--{name} and --adaptive cannot be combined; run unfool evaluate once for each")
    if not command.reliability.reliability:
        raise SpecError("--no-reliability leaves out a report that --adaptive does not make; leave it out")
    return defense, attack.attack[0] if attack.attack else "autoattack"


def _failure(command: EvaluateCommand, doubts: Sequence[str], claim: SequentialResult | None) -> UnfoolError | None:
    """What the command ends with once all is written: a doubt under --strict, else a claim that does not hold."""
    if command.reliability.strict and doubts:
        more = f" (and {len(doubts) - 1} more)" if len(doubts) > 1 else ""
        return ReliabilityError(f"not to be believed, {doubts[0]}{more}")
    if claim is None or claim.verdict == HOLDS:
        return None
    kind = ClaimError if claim.verdict == FAILS else UnsettledClaimError
    return kind(f"the claim was {'shown to be wrong' if claim.verdict == FAILS else 'not settled'}, {claim.words()}")
