"""The commands about model versions: list, compare, promote, roll back, and twins to compare them on."""

from pathlib import Path
from typing import Annotated

import typer

from asr_assets.console import err, out, reading, saying_when_interrupted
from asr_assets.drawing import Bars, printable, quiet, table
from asr_assets.processing import bring_up_to_date, make_known, write_file
from resources import champions
from resources.comparisons import Pair
from resources.models import SpeechModels
from resources.settings import Settings, as_url, local_path
from resources.store import Store
from speech.errors import AsrError

app = typer.Typer()


@app.command()
def models() -> None:
    """List the model versions of models.toml."""
    shown = table("model", "engine", "state", "fingerprint", "description")
    settings = Settings.from_env()
    versions = SpeechModels.of(settings)
    states, policy = versions.states, versions.policy
    if not (folder := local_path(settings.store_url)) or folder.exists():  # asking must not make one
        crowned = champions.reigning(Store(url=settings.store_url))
        states |= {crowned.model: f"champion since {crowned.since:%Y-%m-%d}"} if crowned else {}
    for model in versions.all.values():
        state = states[model.name]
        # Of one that is not wanted here the package, and with it its version, may be missing.
        fingerprint = "-" if state == "disabled" else model.fingerprint[:12]
        if model.share < 1 and not state.startswith(("disabled", "champion")):
            state += f", share {model.share:g}"
        shown.add_row(model.name, model.engine, state, fingerprint, model.description)
    out.print(shown)
    for rule in policy.rules:
        why = f", for {rule.why}" if rule.why else ""
        out.print(f"rule {rule.name} sends videos to {rule.model}{why}")


@app.command()
def compare(
    models: Annotated[
        list[str], typer.Argument(help="Model versions: the first, and what it is to be compared with")
    ],
    html: Annotated[
        Path | None, typer.Option(help="Also write a page with all of it and a word diff")
    ] = None,
) -> None:
    """Set model versions against the first one, over all current videos: errors, times, speed, cost."""
    from asr_assets import comparison
    from asr_assets.report import verdict, write_report

    settings = Settings.from_env()
    versions = SpeechModels.of(settings)
    first, *others = [versions.get(model).name for model in dict.fromkeys(models)]
    if not others:
        raise AsrError("name two or more different model versions; asr models lists them")
    if html and len(others) > 1:
        raise AsrError("a page is about two model versions: name two")
    pairs = [Pair(first, other) for other in others]
    bring_up_to_date(settings, pairs)
    with reading(settings) as connection:
        compared = [(pair, comparison.rows_of(connection, pair)) for pair in pairs]
        if html:
            write_file(html, write_report(connection, *pairs[0]))
    for pair, rows in compared:
        out.print(verdict(rows[0]))
        out.print(comparison.totals(rows[0], pair))
        out.print(comparison.by_condition(rows, pair))


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="A model version that is switched on")],
    margin: Annotated[
        float | None, typer.Option(help="How much higher its WER may be: 0.005 is half a point")
    ] = None,
    confidence: Annotated[float | None, typer.Option(help="How sure that has to be: 0.95")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write the evidence as a page")] = None,
    as_it_is: Annotated[
        bool, typer.Option("--as-it-is", help="Measure against a champion that was changed under its name")
    ] = False,
) -> None:
    """Make a model version champion, if it passes the gate; its words are the current ones from then on."""
    from asr_assets import promoting
    from asr_assets.report import write_report

    settings = Settings.from_env()
    versions = SpeechModels.of(settings)
    challenger = versions.enabled_version(model)
    champion = champions.reigning(Store(url=settings.store_url))
    if champion is None:
        raise AsrError("there is no champion yet, so nobody to be better than; run asr run first")
    if champion.model == model:
        make_known(settings)
        raise AsrError(f"{model} is champion already, since {champion.since:%Y-%m-%d %H:%M} UTC")
    pair = Pair(champion.model, model)
    runner = bring_up_to_date(settings, [pair])
    gate = versions.policy.gate.asked(margin, confidence)
    with reading(settings) as connection:
        evidence = promoting.examine(connection, champion, model, gate, as_it_is)
        if html:
            write_file(html, write_report(connection, *pair, evidence.findings))
    shown = table("what", "is", "has to be", "holds")
    for finding in evidence.findings:
        shown.add_row(*finding[:3], "yes" if finding.holds else "NO")
    out.print(shown)
    if not evidence.passes:
        raise promoting.refuse(evidence)
    runner.promote(challenger, champion, evidence)
    err.print(f"{model} is champion; asr rollback makes {champion.model} champion again")


@app.command()
def rollback() -> None:
    """Make the former champion champion again."""
    from asr_assets.running import Runner

    quiet()
    with saying_when_interrupted(), Bars(err) as bars, bars.busy("going back"):
        champion = Runner(Settings.from_env()).roll_back()
    err.print(f"{champion.model} is champion again")


@app.command()
def degrade(
    batch: Annotated[str | None, typer.Option(help="Only videos of this batch")] = None,
    video: Annotated[str | None, typer.Option(help="Only videos with this in their key")] = None,
    condition: Annotated[
        list[str] | None, typer.Option(help="What to do to them; by default everything")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Folder or s3:// URL; by default the source")] = None,
) -> None:
    """Write worse twins of the current videos with a reference: noise, low bit rates, a telephone's band."""
    from asr_assets.degrading import twins

    settings = Settings.from_env()
    store = Store(url=settings.store_url)
    shown = table("twin", "condition", "")
    with reading(settings) as connection:
        for twin in twins(
            connection,
            store,
            Store(url=as_url(to) if to else settings.source_url),
            condition or (),
            batch,
            video,
        ):
            shown.add_row(printable(twin.key), twin.condition, "written" if twin.written else "there already")
    out.print(shown)
    err.print("asr run takes them in; asr compare then shows them by condition")
