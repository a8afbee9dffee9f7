-- The warehouse. Rebuilt from the store at any time; one writer; readers get a published copy.
-- Nothing in words and segments differs between two runs of the same work.

-- Which DuckDB file this is: a rebuilt one counts its loads from 1 again.
CREATE TABLE IF NOT EXISTS identity AS SELECT uuid()::VARCHAR AS warehouse;

CREATE TABLE IF NOT EXISTS videos (
    video_id        VARCHAR PRIMARY KEY,  -- 128 bits over source, key and content version
    source          VARCHAR NOT NULL,
    video_key       VARCHAR NOT NULL,     -- as the source gave it: data, never a file name or SQL
    content_version VARCHAR NOT NULL,
    batch           VARCHAR NOT NULL,
    size_bytes      BIGINT NOT NULL,
    modified_at     TIMESTAMPTZ NOT NULL,
    status          VARCHAR NOT NULL,     -- waiting, ok, empty, failed
    reason          VARCHAR,
    message         VARCHAR,              -- the reason as a sentence
    duration_s      DOUBLE,
    container       VARCHAR,
    video_codec     VARCHAR,
    audio_codec     VARCHAR,
    audio_streams   INTEGER,
    audio_stream    INTEGER,              -- which one was transcribed
    audio_start_s   DOUBLE,
    sample_rate     INTEGER,
    channels        INTEGER,
    decode_errors   INTEGER,
    clock_jumps     INTEGER,
    language_hint   VARCHAR,              -- the rest is what its sidecar files say
    hints           VARCHAR[],
    reference       VARCHAR,              -- what is truly said
    metadata        VARCHAR,              -- JSON
    sidecar_problem VARCHAR
);

-- The ingest log: who was seen when, or seen to be gone. The latest observation of a key is the current one.
CREATE TABLE IF NOT EXISTS observations (
    number      BIGINT NOT NULL,
    kind        VARCHAR NOT NULL,         -- new, again, deleted
    source      VARCHAR NOT NULL,
    video_key   VARCHAR NOT NULL,
    video_id    VARCHAR NOT NULL,
    observed_at TIMESTAMPTZ NOT NULL
);

-- Videos of which every trace was removed, but for this.
CREATE TABLE IF NOT EXISTS erased (video_id VARCHAR PRIMARY KEY);

CREATE TABLE IF NOT EXISTS transcripts (
    video_id          VARCHAR NOT NULL,
    model_version     VARCHAR NOT NULL,
    model_fingerprint VARCHAR NOT NULL,
    batch             VARCHAR NOT NULL,
    status            VARCHAR NOT NULL,   -- ok, empty, failed
    reason            VARCHAR,
    language          VARCHAR,
    duration_s        DOUBLE,
    words             BIGINT NOT NULL
);

CREATE TABLE IF NOT EXISTS words (
    video_id        VARCHAR NOT NULL,
    model_version   VARCHAR NOT NULL,
    segment_index   INTEGER NOT NULL,
    word_index      INTEGER NOT NULL,
    word            VARCHAR NOT NULL,
    word_normalized VARCHAR NOT NULL,
    start_s         DOUBLE NOT NULL,      -- on the video's own timeline
    end_s           DOUBLE NOT NULL,
    probability     DOUBLE NOT NULL,
    language        VARCHAR NOT NULL,
    channel         INTEGER,
    speaker         VARCHAR,
    timing_source   VARCHAR NOT NULL,
    voice             DOUBLE,             -- how sure voice activity is that somebody speaks then
    log_probability   DOUBLE,             -- the rest is about the word's window: mean of what was written
    compression_ratio DOUBLE,             -- over 2.4: a text that repeats itself
    loop_words        INTEGER,            -- words that only say again what stands before them
    temperature       DOUBLE              -- over 0: it was heard again, by chance
);

CREATE TABLE IF NOT EXISTS segments (
    video_id      VARCHAR NOT NULL,
    model_version VARCHAR NOT NULL,
    segment_index INTEGER NOT NULL,
    start_s       DOUBLE NOT NULL,
    end_s         DOUBLE NOT NULL,
    text          VARCHAR NOT NULL,
    words         BIGINT NOT NULL,
    probability   DOUBLE NOT NULL,        -- mean over its words
    language      VARCHAR NOT NULL
);

CREATE TABLE IF NOT EXISTS attempts (
    video_id      VARCHAR NOT NULL,
    model_version VARCHAR NOT NULL,
    run_id        VARCHAR NOT NULL,
    worker        VARCHAR NOT NULL,
    started_at    TIMESTAMPTZ NOT NULL,
    ended_at      TIMESTAMPTZ NOT NULL,
    seconds       DOUBLE NOT NULL,
    outcome       VARCHAR NOT NULL,
    message       VARCHAR
);

CREATE TABLE IF NOT EXISTS champions (
    number        BIGINT NOT NULL,
    model_version VARCHAR NOT NULL,
    since         TIMESTAMPTZ NOT NULL,
    why           VARCHAR NOT NULL
);

-- What is in here: an object of the store, in the state its ETag names.
CREATE TABLE IF NOT EXISTS load_ledger (
    object    VARCHAR PRIMARY KEY,
    etag      VARCHAR NOT NULL,
    load      BIGINT NOT NULL,
    loaded_at TIMESTAMPTZ NOT NULL
);

CREATE OR REPLACE VIEW videos_current AS
SELECT videos.*
FROM videos
SEMI JOIN (
    SELECT arg_max(video_id, number) AS video_id FROM observations GROUP BY source, video_key
    HAVING arg_max(kind, number) <> 'deleted'
) AS latest USING (video_id);

CREATE OR REPLACE VIEW champion_current AS
SELECT arg_max(model_version, number) AS model_version FROM champions;

CREATE OR REPLACE VIEW words_current AS
SELECT words.*, videos_current.video_key
FROM words
JOIN videos_current USING (video_id)
SEMI JOIN champion_current USING (model_version);
