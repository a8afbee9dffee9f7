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
    lost_share      DOUBLE,               -- of its time, for which there is no sound though there was before
    cut_short       BOOLEAN,              -- the file ends before its container says so
    kbit_per_s      DOUBLE,               -- of the encoded sound
    noise_db        INTEGER,              -- how loud it is between words, below the loudest possible
    speech_db       INTEGER,              -- and how loud words are
    language_hint   VARCHAR,              -- the rest is what its sidecar files say
    hints           VARCHAR[],
    reference       VARCHAR,              -- what is truly said
    reference_starts_s DOUBLE[],          -- of each of its words, where that is known
    reference_ends_s   DOUBLE[],
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
    transcript_id     INTEGER NOT NULL,   -- this file's own number, in the order of loading; a rebuilt one has others
    video_id          VARCHAR NOT NULL,
    model_version     VARCHAR NOT NULL,
    model_fingerprint VARCHAR NOT NULL,
    batch             VARCHAR NOT NULL,
    status            VARCHAR NOT NULL,   -- ok, empty, failed; left: to the model version that a rule chose
    reason            VARCHAR,
    language          VARCHAR,
    duration_s        DOUBLE,
    words             BIGINT NOT NULL,
    rule              VARCHAR             -- which rule sends the video to this model version
);

-- Words and segments as they lie on the disk: in the order of loading, so that those of a transcript or a batch lie
-- together, and DuckDB skips all row groups but theirs.
CREATE TABLE IF NOT EXISTS spoken_words (
    transcript_id   INTEGER NOT NULL,
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

CREATE TABLE IF NOT EXISTS spoken_segments (
    transcript_id INTEGER NOT NULL,
    segment_index INTEGER NOT NULL,
    start_s       DOUBLE NOT NULL,
    end_s         DOUBLE NOT NULL,
    text          VARCHAR NOT NULL,
    words         BIGINT NOT NULL,
    probability   DOUBLE NOT NULL,        -- mean over its words
    language      VARCHAR NOT NULL
);

-- Where each word is said, millions of words at a time in the order of the alphabet: a search reads a row group or
-- two of each such run. Transcripts that are in no run yet stand in not_in_postings.
CREATE TABLE IF NOT EXISTS postings (
    word_normalized VARCHAR NOT NULL,
    transcript_id   INTEGER NOT NULL,
    word_index      INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS not_in_postings (transcript_id INTEGER NOT NULL);

CREATE TABLE IF NOT EXISTS attempts (
    video_id      VARCHAR NOT NULL,
    model_version VARCHAR NOT NULL,
    run_id        VARCHAR NOT NULL,
    worker        VARCHAR NOT NULL,
    started_at    TIMESTAMPTZ NOT NULL,
    ended_at      TIMESTAMPTZ NOT NULL,
    seconds       DOUBLE NOT NULL,
    outcome       VARCHAR NOT NULL,
    message       VARCHAR,
    device        VARCHAR,               -- cpu, or a GPU's name
    peak_mb       BIGINT,                -- the most memory of its process, up to then
    peak_gpu_mb   BIGINT
);

CREATE TABLE IF NOT EXISTS champions (
    number        BIGINT NOT NULL,
    model_version VARCHAR NOT NULL,
    since         TIMESTAMPTZ NOT NULL,
    why           VARCHAR NOT NULL,
    who           VARCHAR,
    fingerprint   VARCHAR,               -- of the definition that it then was
    evidence      VARCHAR                -- JSON: what the gate saw
);

-- Two model versions over all current videos, and by condition ('all' is all of them). A is the one that B is
-- measured against: differences are B's less A's. Rates are over words, in fractions.
CREATE TABLE IF NOT EXISTS comparison (
    model_a              VARCHAR NOT NULL,
    model_b              VARCHAR NOT NULL,
    condition            VARCHAR NOT NULL,   -- all, language, duration, noise, bit_rate, codec, or a key of metadata
    value                VARCHAR NOT NULL,
    videos               BIGINT NOT NULL,    -- heard by both
    referenced           BIGINT NOT NULL,    -- of which it is known what is said
    audio_s              DOUBLE,
    reference_words      BIGINT,
    wer_a                DOUBLE,
    wer_b                DOUBLE,
    wer_difference       DOUBLE,
    wer_difference_low   DOUBLE,             -- of the interval at this confidence: paired bootstrap over videos
    wer_difference_high  DOUBLE,
    confidence           DOUBLE,
    p_value              DOUBLE,             -- matched pairs
    cer_a                DOUBLE,
    cer_b                DOUBLE,
    substitutions_a      BIGINT,
    deletions_a          BIGINT,
    insertions_a         BIGINT,
    substitutions_b      BIGINT,
    deletions_b          BIGINT,
    insertions_b         BIGINT,
    words_a              BIGINT NOT NULL,
    words_b              BIGINT NOT NULL,
    disagreement         DOUBLE,             -- edits from A's words to B's, for each word of A
    start_difference_ms  DOUBLE,             -- medians of what is between starts, without their signs
    start_error_a_ms     DOUBLE,
    start_error_b_ms     DOUBLE,
    calibration_error_a  DOUBLE,             -- ECE: between a word's probability and how often such words are right
    calibration_error_b  DOUBLE,
    cross_entropy_a      DOUBLE,             -- NCE: 1 for an oracle, 0 for who always says the average
    cross_entropy_b      DOUBLE,
    rtfx_a               DOUBLE,             -- seconds of audio for each second of work
    rtfx_b               DOUBLE,
    slower               DOUBLE,             -- B's seconds for each of A's, where both ran on the same kind of device
    peak_mb_a            BIGINT,
    peak_mb_b            BIGINT,
    peak_gpu_mb_a        BIGINT,
    peak_gpu_mb_b        BIGINT,
    cost_a               DOUBLE,             -- of an hour of audio, by policy.prices; NULL: a device has no price
    cost_b               DOUBLE,
    fingerprint_a        VARCHAR NOT NULL,
    fingerprint_b        VARCHAR NOT NULL,
    normalizer           VARCHAR NOT NULL
);

CREATE TABLE IF NOT EXISTS comparison_by_video (
    model_a              VARCHAR NOT NULL,
    model_b              VARCHAR NOT NULL,
    video_id             VARCHAR NOT NULL,
    language             VARCHAR NOT NULL,   -- in which both were normalised
    conditions           MAP(VARCHAR, VARCHAR) NOT NULL,
    reference_words      INTEGER,            -- NULL: nobody knows what is said
    substitutions_a      INTEGER,
    deletions_a          INTEGER,
    insertions_a         INTEGER,
    substitutions_b      INTEGER,
    deletions_b          INTEGER,
    insertions_b         INTEGER,
    reference_characters INTEGER,
    character_errors_a   INTEGER,
    character_errors_b   INTEGER,
    words_a              INTEGER NOT NULL,
    words_b              INTEGER NOT NULL,
    edits                INTEGER NOT NULL,   -- from A's words to B's
    start_differences_ms INTEGER[] NOT NULL, -- B's start less A's, of words both have
    start_errors_a_ms    INTEGER[],          -- less the reference's, of words heard right
    start_errors_b_ms    INTEGER[],
    confidence_a         STRUCT(words INTEGER[], probability DOUBLE[], "right" INTEGER[]), -- by tenth of probability
    confidence_b         STRUCT(words INTEGER[], probability DOUBLE[], "right" INTEGER[]),
    log2_likelihood_a    DOUBLE,
    log2_likelihood_b    DOUBLE,
    fingerprint_a        VARCHAR NOT NULL,
    fingerprint_b        VARCHAR NOT NULL,
    normalizer           VARCHAR NOT NULL
);

-- A place where two model versions differ; NULL where one has no word.
CREATE TABLE IF NOT EXISTS word_diff (
    model_a  VARCHAR NOT NULL,
    model_b  VARCHAR NOT NULL,
    video_id VARCHAR NOT NULL,
    place    INTEGER NOT NULL,               -- from 1 in each video
    word_a   VARCHAR,
    word_b   VARCHAR,
    start_s  DOUBLE NOT NULL,
    is_right VARCHAR                         -- a, b, neither; NULL: nobody knows
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

-- No aggregate: beside one that is joined, DuckDB 2.0 gives wrong sums of other columns.
CREATE OR REPLACE VIEW champion_current AS
SELECT model_version FROM champions ORDER BY number DESC LIMIT 1;

-- Of each current video: what a rule chose, else the champion, else who was champion last of those who heard it; who
-- failed comes last of all.
CREATE OR REPLACE VIEW transcripts_chosen AS
SELECT transcripts.*, videos_current.video_key
FROM transcripts
JOIN videos_current USING (video_id)
LEFT JOIN (SELECT model_version, max(number) AS crowned FROM champions GROUP BY ALL) AS champions USING (model_version)
WHERE transcripts.status <> 'left' AND (rule IS NOT NULL OR crowned IS NOT NULL)
QUALIFY row_number() OVER (
    PARTITION BY video_id
    ORDER BY transcripts.status = 'failed', rule IS NOT NULL DESC, crowned DESC NULLS LAST, model_version
) = 1;

-- The same, written down anew by each transaction of a load: to choose among a million takes a second.
CREATE TABLE IF NOT EXISTS transcripts_current AS FROM transcripts_chosen;

CREATE OR REPLACE VIEW words AS
SELECT video_id, model_version, spoken_words.* EXCLUDE (transcript_id)
FROM spoken_words JOIN transcripts USING (transcript_id);

CREATE OR REPLACE VIEW words_current AS
SELECT video_id, model_version, spoken_words.* EXCLUDE (transcript_id), video_key
FROM spoken_words JOIN transcripts_current USING (transcript_id);

CREATE OR REPLACE VIEW segments AS
SELECT video_id, model_version, spoken_segments.* EXCLUDE (transcript_id)
FROM spoken_segments JOIN transcripts USING (transcript_id);

-- Where each word is said, in whatever version of a video, by whatever model version.
CREATE OR REPLACE VIEW places AS
FROM postings
UNION ALL
SELECT word_normalized, transcript_id, word_index FROM spoken_words JOIN not_in_postings USING (transcript_id);

-- Words of the champion that come from another definition of its name than the one that became champion.
CREATE OR REPLACE VIEW champion_changed AS
SELECT transcripts_current.*
FROM transcripts_current
JOIN champions USING (model_version)
WHERE number = (SELECT max(number) FROM champions) AND model_fingerprint <> fingerprint;

-- Which current videos failed under which model version, and in which run last.
CREATE OR REPLACE VIEW failures AS
SELECT video_id, video_key, t.model_version, t.batch, t.reason, coalesce(v.message, tried.message, '') AS message,
       run_id, ended_at
FROM transcripts AS t
JOIN videos_current AS v USING (video_id)
LEFT JOIN (
    SELECT video_id, model_version, arg_max(message, ended_at) AS message, arg_max(run_id, ended_at) AS run_id,
           max(ended_at) AS ended_at
    FROM attempts GROUP BY ALL
) AS tried USING (video_id, model_version)
WHERE t.status = 'failed';

-- A comparison's videos under each of their conditions, by the definitions that comparison is about: WER by codec is
-- a GROUP BY. As there, twins are under what was done to them alone.
CREATE OR REPLACE VIEW comparison_by_condition AS
SELECT entry.key AS condition, entry.value AS value, comparison_by_video.* EXCLUDE (conditions)
FROM comparison_by_video
SEMI JOIN videos_current USING (video_id)
SEMI JOIN comparison USING (model_a, model_b, fingerprint_a, fingerprint_b, normalizer),
unnest(map_entries(conditions)) AS entries(entry)
WHERE entry.key = 'condition' OR conditions['condition'] = 'original';
