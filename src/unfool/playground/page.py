"""The page: gradio's components, and what each of them sets off. All it knows comes from the playground beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import api
from markupsafe import escape

from unfool.core.errors import SpecError, UnfoolError
from unfool.playground.attack import MOST_STEPS, AttackOutcome
from unfool.playground.budgets import BUDGETS, budget_of
from unfool.playground.pictures import Picture, pictures_of
from unfool.playground.play import Playground
from unfool.playground.view import ROOM, View, attack_view, clean_view, empty_view
from unfool.playground.words import say
from unfool.report.pictures.gallery import image_uri
from unfool.report.rendering import fragment, template_text

OWN = "this network"
_TITLE = "unfool play"
_UPLOAD_FIRST = "There is no picture of this network's own; upload one."
_ATTACK_FIRST = "Attack the picture first; then it can be reversed."


@dataclass(frozen=True, kw_only=True, eq=False)
class Session:
    """What one user has on the page: a picture, and the last attack on it."""

    picture: Picture | None = None
    outcome: AttackOutcome | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Opened:
    """What the page shows when a system is opened."""

    session: Session
    view: View
    chosen: str
    markup: str
    sources: list[str]
    heads: list[str]


def api_attack(play: Playground) -> Callable[..., dict[str, object]]:
    """The function behind ``/attack``: plain values in, what happened out."""

    def attack(system: str, picture: str, norm: str, eps: float, steps: int, lender: str = "") -> dict[str, object]:
        for name, value in (("system", system), ("picture", picture), ("norm", norm), ("lender", lender)):
            _check_text(name, value)
        shown = play.picture(system, picture)
        threat = budget_of(norm).threat(_number("eps", eps))
        outcome = play.attack(system, shown, threat, _steps(steps), lender or None)
        opened = play.system(system)
        return {
            "said": say(opened, outcome),
            "clean": opened.class_name(outcome.clean.top),
            "attacked": opened.class_name(outcome.attacked.top),
            "fooled": outcome.fooled,
            "distance": round(outcome.distance, 6),
        }

    return attack


def api_load(play: Playground) -> Callable[[str], dict[str, object]]:
    """The function behind ``/load``: what there is to play with, of all systems or of the named one."""

    def load(system: str) -> dict[str, object]:
        _check_text("system", system)
        name = system or play.names[0]
        pictures = [picture.key for picture in pictures_of(play.system(name))]
        return {"system": name, "systems": play.names, "pictures": pictures, "lenders": play.lenders(name)}

    return load


def built(play: Playground) -> gr.Blocks:
    """The page of a playground, not served yet; raises as the opener of the first system does."""
    handlers, first = _Handlers(play), play.names[0]
    start = handlers.opened(first)
    budget = BUDGETS["linf"]
    with gr.Blocks(title=_TITLE, analytics_enabled=False, fill_width=True) as blocks:
        gr.HTML(template_text("playground/lead.html"), apply_default_css=False)
        session = gr.State(start.session)
        with gr.Row(elem_classes="columns"):
            with gr.Column(elem_classes="choose"):
                system = gr.Dropdown(play.names, value=first, label="Network", elem_id="system", filterable=False)
                picker = gr.HTML(
                    start.chosen,
                    # gradio runs a template as script. What a value in it holds is put there as it is, and not run.
                    html_template="${markup}",
                    js_on_load=template_text("playground/picker.js"),
                    markup=start.markup,
                    elem_id="picker",
                    apply_default_css=False,
                )
                upload = gr.UploadButton("Upload a picture", elem_id="upload", size="sm")
                notice = gr.HTML("", elem_id="notice", apply_default_css=False)
                with gr.Row(elem_classes="act"):
                    attack = gr.Button("Attack", variant="primary", elem_id="attack", min_width=120)
                    reverse = gr.Button("Reverse", elem_id="reverse", visible=bool(start.heads), min_width=120)
            with gr.Column(elem_classes="see"):
                result = gr.HTML(start.view.pictures, elem_id="result", apply_default_css=False)
            with gr.Column(elem_classes="settings"):
                source = gr.Radio(
                    start.sources,
                    value=OWN,
                    label="Examples made for",
                    info="Own examples are made for this network; borrowed ones for another, and shown to this one.",
                    elem_id="source",
                    visible=len(start.sources) > 1,
                )
                norm = gr.Radio(list(BUDGETS), value=budget.norm, label="Norm", elem_id="norm")
                eps = gr.Slider(
                    0, budget.most, value=budget.start, step=budget.step, label=budget.words, elem_id="eps", buttons=[]
                )
                steps = gr.Slider(
                    1, MOST_STEPS, value=20, step=1, label="steps of the attack", elem_id="steps", buttons=[]
                )
                head = gr.Radio(
                    start.heads,
                    value=next(iter(start.heads), None),
                    label="Reverse along",
                    elem_id="head",
                    visible=len(start.heads) > 1,
                )

            with gr.Column(elem_classes="charts"):
                charts = gr.HTML(start.view.charts, elem_id="charts", apply_default_css=False)

        api(_refusing(api_load(play)), api_name="load")
        api(_refusing(api_attack(play)), api_name="attack")
        settings = [system, session, norm, eps, steps, source]
        shown = [notice, session, result, charts]
        quiet = {"show_progress": "minimal", "show_progress_on": [result], "api_visibility": "private"}
        system.input(handlers.choose_system, [system], [*shown, picker, source, head, reverse], **quiet)
        picker.pick(handlers.choose_picture, [system, picker], [*shown, picker], **quiet)
        upload.upload(handlers.upload, [system, upload], [*shown, picker], **quiet)
        norm.input(handlers.choose_norm, [norm], [eps], **quiet).then(handlers.again, settings, shown, **quiet)
        gr.on([eps.release, steps.release, source.input], handlers.again, settings, shown, **quiet)
        attack.click(handlers.attack, settings, shown, **quiet)
        reverse.click(handlers.reverse, [system, session, head], shown, **quiet)
    return blocks


def _check_text(name: str, value: object) -> None:
    """SpecError for a value of the interface that is no text."""
    if not isinstance(value, str):
        raise SpecError(f"{name} is {str(value)[:80]}, which is no text; give a name, as /load lists them")


def _number(name: str, value: object) -> float:
    """A value of the interface as a number; SpecError for any other kind of value, for NaN and for infinity."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1 << 53:
        raise SpecError(f"{name} is {str(value)[:80]!r}; give a finite number")
    return value


def _steps(value: object) -> int:
    """A whole number of steps; SpecError for anything else."""
    number = _number("steps", value)
    if number != int(number):
        raise SpecError(f"steps is {number:g}; give a whole number, 1 to {MOST_STEPS}")
    return int(number)


def head_html(style: str) -> str:
    """What stands in the head of the page."""
    return f"<style>{style}\n{template_text('playground/gradio.css')}</style>"


def _refusing(function: Callable[..., dict[str, object]]) -> Callable[..., dict[str, object]]:
    """A function of the interface whose caller reads in one line what was wrong with the values."""

    @functools.wraps(function)
    def safe(*values: Any) -> dict[str, object]:
        try:
            return function(*values)
        except UnfoolError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return safe


def _said(handler: Callable[..., Sequence[Any]]) -> Callable[..., Sequence[Any]]:
    """A handler whose first output is a line about what went wrong, empty where nothing did; the others then stay."""

    @functools.wraps(handler)
    def safe(self: _Handlers, *values: Any) -> Sequence[Any]:
        try:
            return ["", *handler(self, *values)]
        except UnfoolError as error:
            line = f"<p class='play notice' role='alert'>{escape(error)}</p>"
            return [line, *[gr.skip()] * (_OUTPUTS[handler.__name__] - 1)]

    return safe


_OUTPUTS = {"choose_system": 8, "choose_picture": 5, "upload": 5, "attack": 4, "reverse": 4}
"""How many components a handler fills."""


class _Handlers:
    """What the components set off. Each takes plain values and gives those of the components that it fills."""

    def __init__(self, play: Playground):
        self._play = play

    def opened(self, name: str) -> _Opened:
        """What a system opens with: its first picture, not attacked yet."""
        system = self._play.system(name)
        pictures = pictures_of(system)
        chosen = pictures[0].key if pictures else ""
        session, view = self._looked_at(name, pictures[0]) if pictures else (Session(), empty_view(_UPLOAD_FIRST))
        return _Opened(
            session=session,
            view=view,
            chosen=chosen,
            markup=_markup(pictures, chosen),
            sources=[OWN, *self._play.lenders(name)],
            heads=system.pretext_heads,
        )

    @_said
    def choose_system(self, name: str) -> Sequence[Any]:
        start = self.opened(name)
        return [
            *_shown(start.session, start.view),
            gr.HTML(value=start.chosen, markup=start.markup),
            gr.Radio(start.sources, value=OWN, visible=len(start.sources) > 1),
            gr.Radio(start.heads, value=next(iter(start.heads), None), visible=len(start.heads) > 1),
            gr.Button(visible=bool(start.heads)),
        ]

    def choose_norm(self, norm: str) -> Any:
        budget = budget_of(norm)
        return gr.Slider(0, budget.most, value=budget.start, step=budget.step, label=budget.words)

    @_said
    def choose_picture(self, name: str, key: str) -> Sequence[Any]:
        return [*_shown(*self._looked_at(name, self._play.picture(name, key))), self._picker(name, key)]

    @_said
    def upload(self, name: str, path: str | None) -> Sequence[Any]:
        if path is None:
            return [gr.skip()] * 4
        try:
            picture = self._play.upload(name, path)
        finally:
            Path(path).unlink(missing_ok=True)
        return [*_shown(*self._looked_at(name, picture)), self._picker(name, picture.key, picture)]

    @_said
    def attack(self, name: str, session: Session, norm: str, eps: float, steps: float, source: str) -> Sequence[Any]:
        if session.picture is None:
            raise SpecError(_UPLOAD_FIRST)
        lender = None if source == OWN else source
        outcome = self._play.attack(
            name, session.picture, budget_of(norm).threat(_number("eps", eps)), _steps(steps), lender
        )
        view = attack_view(self._play.system(name), outcome)
        return _shown(Session(picture=session.picture, outcome=outcome), view)

    def again(self, name: str, session: Session, *settings: Any) -> Sequence[Any]:
        """Attack once more where an attack is shown already."""
        return [gr.skip()] * 4 if session.outcome is None else self.attack(name, session, *settings)

    @_said
    def reverse(self, name: str, session: Session, head: str | None) -> Sequence[Any]:
        if session.outcome is None or head is None:
            raise SpecError(_ATTACK_FIRST)
        reversal = self._play.reverse(name, head, session.outcome)
        return _shown(session, attack_view(self._play.system(name), session.outcome, reversal))

    def _looked_at(self, name: str, picture: Picture) -> tuple[Session, View]:
        seen = self._play.look(name, picture)
        return Session(picture=picture), clean_view(self._play.system(name), picture, seen)

    def _picker(self, name: str, key: str, uploaded: Picture | None = None) -> Any:
        pictures = [*pictures_of(self._play.system(name)), *([uploaded] if uploaded else [])]
        return gr.HTML(value=key, markup=_markup(pictures, key))


def _shown(session: Session, view: View) -> list[Any]:
    """The values of the session and of the two parts of the view."""
    return [session, view.pictures, view.charts]


def _markup(pictures: Sequence[Picture], chosen: str) -> str:
    """The buttons of the picker as HTML."""
    shown = [
        {
            "key": each.key,
            "words": each.words,
            "uri": image_uri(each.image)[0],
            "chosen": "true" if each.key == chosen else "false",
        }
        for each in pictures
    ]
    return fragment("picker.html", {"pictures": shown}, ROOM)
