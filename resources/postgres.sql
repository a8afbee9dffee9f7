-- What PostgreSQL has of the warehouse: the same columns under the same names, in schema asr. Made anew by each version
-- of the program with another text here; its tables alone are dropped, so the schema and what was granted on it stay.
DROP TABLE IF EXISTS words, segments, transcripts, videos, erased, ledger, copied CASCADE;

CREATE TABLE videos (
    video_id           text PRIMARY KEY,
    source             text NOT NULL,
    video_key          text NOT NULL,
    content_version    text NOT NULL,
    batch              text NOT NULL,
    size_bytes         bigint NOT NULL,
    modified_at        timestamptz NOT NULL,
    status             text NOT NULL,
    reason             text,
    message            text,
    duration_s         double precision,
    container          text,
    video_codec        text,
    audio_codec        text,
    audio_streams      integer,
    audio_stream       integer,
    audio_start_s      double precision,
    sample_rate        integer,
    channels           integer,
    decode_errors      integer,
    clock_jumps        integer,
    lost_share         double precision,
    cut_short          boolean,
    kbit_per_s         double precision,
    noise_db           integer,
    speech_db          integer,
    language_hint      text,
    hints              text[],
    reference          text,
    reference_starts_s double precision[],
    reference_ends_s   double precision[],
    metadata           text,
    sidecar_problem    text,
    is_current         boolean NOT NULL DEFAULT false  -- it stands in videos_current of the warehouse
);
CREATE INDEX ON videos (batch);
CREATE INDEX ON videos USING hash (video_key);  -- a path may be longer than a B-tree takes

CREATE TABLE transcripts (
    video_id          text NOT NULL,
    model_version     text NOT NULL,
    model_fingerprint text NOT NULL,
    batch             text NOT NULL,
    status            text NOT NULL,
    reason            text,
    language          text,
    duration_s        double precision,
    words             bigint NOT NULL,
    rule              text,
    is_current        boolean NOT NULL DEFAULT false,  -- its words are the current ones of a current video
    PRIMARY KEY (video_id, model_version)
);
CREATE INDEX ON transcripts (batch, model_version);
CREATE UNIQUE INDEX one_is_current ON transcripts (video_id) WHERE is_current;

CREATE TABLE words (
    video_id          text NOT NULL,
    model_version     text NOT NULL,
    segment_index     integer NOT NULL,
    word_index        integer NOT NULL,
    word              text NOT NULL,
    word_normalized   text NOT NULL,  -- 600 characters at most, which an index takes
    start_s           double precision NOT NULL,
    end_s             double precision NOT NULL,
    probability       double precision NOT NULL,
    language          text NOT NULL,
    channel           integer,
    speaker           text,
    timing_source     text NOT NULL,
    voice             double precision,
    log_probability   double precision,
    compression_ratio double precision,
    loop_words        integer,
    temperature       double precision,
    PRIMARY KEY (video_id, model_version, word_index)
);
-- For = and for LIKE 'prefix%', whatever the database's collation is.
CREATE INDEX words_by_word ON words (word_normalized text_pattern_ops);

CREATE TABLE segments (
    video_id      text NOT NULL,
    model_version text NOT NULL,
    segment_index integer NOT NULL,
    start_s       double precision NOT NULL,
    end_s         double precision NOT NULL,
    text          text NOT NULL,
    words         bigint NOT NULL,
    probability   double precision NOT NULL,
    language      text NOT NULL,
    PRIMARY KEY (video_id, model_version, segment_index)
);

CREATE VIEW words_current AS
SELECT words.*, videos.video_key
FROM words
JOIN transcripts USING (video_id, model_version)
JOIN videos USING (video_id)
WHERE transcripts.is_current;

-- What of a batch is in here: its videos (model_version ''), and its transcripts by each model version; in the state
-- that the ETag of their object names ('' before there is one).
CREATE TABLE ledger (
    batch         text NOT NULL,
    model_version text NOT NULL,
    etag          text NOT NULL,
    PRIMARY KEY (batch, model_version)
);

-- Videos whose rows were deleted, and the files of the tables written anew without them.
CREATE TABLE erased (video_id text PRIMARY KEY);

-- One row: by which version of this file the tables were made; and which load of which DuckDB file is in them, once
-- all of it is.
CREATE TABLE copied (made_by text NOT NULL, warehouse text, load bigint);
