"""``asr verify``: does everything that is at the source stand in the log, and is it transcribed?"""

from resources import layout
from resources.ingest_log import IngestLog
from resources.models import SpeechModels
from resources.routing import Routing
from resources.settings import Settings
from resources.source import Source
from resources.store import Store
from sensors.reconciling import compare

WRONG = ("missing", "doubled", "not_transcribed")
"""Counts that must be 0."""


def verify(settings: Settings) -> dict[str, int]:
    """What :func:`sensors.reconciling.compare` counts, and the videos that a model has not ended with."""
    store = Store(url=settings.store_url)
    log = IngestLog(store)
    counts = compare(Source.of(settings), log)
    unfinished, models = set[str](), SpeechModels.of(settings)
    routing = Routing.of(models, store)
    for model in models.enabled:
        # A listing, and not each batch's head: there may be a hundred thousand.
        published = {found.key for found in store.list(layout.transcripts_of(model.name))}
        unfinished.update(
            batch
            for batch in log.batches
            if routing.takes(model.name, batch) and layout.transcripts(model.name, batch) not in published
        )
    return counts | {"not_transcribed": sum(len(log.batch(batch).videos) for batch in unfinished)}
