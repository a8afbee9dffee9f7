-- What analysts ask, as views and macros over the current words. docs/analyst.md has an example of each.

-- A phrase in the form that is searched, as speech.types.normalize_word gives it: lower case, no punctuation. Only
-- characters that mean others (ﬁ, ½, Ｗ) stay what they are: DuckDB cannot resolve them, and asr search does.
CREATE OR REPLACE MACRO words_in(phrase) AS list_filter(
    list_transform(
        regexp_split_to_array(lower(replace(nfc_normalize(phrase), '’', '''')), '[\s\p{Z}]+'),
        lambda word: trim(regexp_replace(word, '[^\p{L}\p{N}_'']', '', 'g'), '''_')
    ),
    lambda word: word <> ''
);

-- Where a phrase begins in the current words: its n-th word stands n words behind its first, for every n.
CREATE OR REPLACE MACRO said(phrase) AS TABLE
SELECT transcript_id, word_index - place AS word_index
FROM places
JOIN (SELECT unnest(words_in(phrase)) AS word_normalized, generate_subscripts(words_in(phrase), 1) - 1 AS place)
    USING (word_normalized)
SEMI JOIN transcripts_current USING (transcript_id)
GROUP BY ALL
HAVING count(*) = len(words_in(phrase));

-- The first places, by when a video was taken in, with what is said around them. The probability is that of the
-- phrase's least certain word.
CREATE OR REPLACE MACRO phrase(phrase, context := 6, at_most := 50) AS TABLE
WITH hits AS MATERIALIZED (
    SELECT transcript_id, word_index AS first, first + len(words_in(phrase)) - 1 AS last, video_id, video_key, batch
    FROM said(phrase) JOIN transcripts_current USING (transcript_id)
    ORDER BY batch, video_key, video_id, first LIMIT at_most
)
SELECT video_key, min(start_s) FILTER (word_index BETWEEN first AND last) AS start_s,
       max(end_s) FILTER (word_index BETWEEN first AND last) AS end_s,
       min(probability) FILTER (word_index BETWEEN first AND last) AS probability,
       string_agg(word, ' ' ORDER BY word_index) AS context, video_id
FROM hits JOIN spoken_words USING (transcript_id)
WHERE word_index BETWEEN first - context AND last + context
GROUP BY batch, video_key, video_id, first
ORDER BY batch, video_key, video_id, first;

-- Over a whole video, pauses and all.
CREATE OR REPLACE VIEW words_per_minute AS
SELECT video_key, model_version, words, duration_s, round(60 * words / nullif(duration_s, 0), 1) AS words_per_minute
FROM transcripts_current WHERE status <> 'failed';

-- From here on a condition on video_key is applied before all else: of one video, a hundred million words are no more
-- than its own.

-- Stretches in which nobody speaks, on whatever channel, from the beginning of a video to its end. What failed says
-- nothing of that.
CREATE OR REPLACE MACRO silences(at_least_s := 1.0) AS TABLE
WITH sounds AS (
    SELECT transcript_id, video_key, video_id, start_s, end_s
    FROM spoken_words JOIN transcripts_current USING (transcript_id)
    UNION ALL
    SELECT transcript_id, video_key, video_id, duration_s, duration_s FROM transcripts_current WHERE status <> 'failed'
), pauses AS (
    SELECT *, coalesce(
        max(end_s) OVER (PARTITION BY transcript_id, video_key ORDER BY start_s, end_s
                         ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0
    ) AS from_s
    FROM sounds
)
SELECT video_key, from_s, start_s AS to_s, round(start_s - from_s, 3) AS silence_s, video_id
FROM pauses WHERE silence_s >= at_least_s;

-- Words in a row that the model is not sure of: what to check by ear, with the words around them.
CREATE OR REPLACE MACRO to_review(below := 0.5, context := 3) AS TABLE
WITH doubtful AS (
    SELECT transcript_id, video_key, video_id, word_index, start_s, end_s, probability,
           word_index - row_number() OVER (PARTITION BY transcript_id, video_key ORDER BY word_index) AS stretch
    FROM spoken_words JOIN transcripts_current USING (transcript_id)
    WHERE probability < below
), stretches AS (
    SELECT transcript_id, video_key, video_id, min(word_index) AS first, max(word_index) AS last,
           min(start_s) AS start_s, max(end_s) AS end_s, min(probability) AS probability
    FROM doubtful GROUP BY transcript_id, video_key, video_id, stretch
)
SELECT video_key, s.start_s, s.end_s, s.probability, last - first + 1 AS words,
       string_agg(word, ' ' ORDER BY word_index) AS context, video_id
FROM stretches AS s JOIN spoken_words AS w USING (transcript_id)
WHERE w.word_index BETWEEN first - context AND last + context
GROUP BY ALL;

-- Where one to four words are said so many times in a row: a speaker's emphasis, or a model that is caught in a loop.
CREATE OR REPLACE MACRO loops(at_least := 3) AS TABLE
WITH again AS (
    SELECT transcript_id, video_key, video_id, word_index, [
        word_normalized = lag(word_normalized, 1) OVER words,
        word_normalized = lag(word_normalized, 2) OVER words,
        word_normalized = lag(word_normalized, 3) OVER words,
        word_normalized = lag(word_normalized, 4) OVER words
    ] AS is_again
    FROM spoken_words JOIN transcripts_current USING (transcript_id)
    WINDOW words AS (PARTITION BY transcript_id, video_key ORDER BY word_index)
), periods AS (
    SELECT * EXCLUDE (is_again), unnest(list_filter([1, 2, 3, 4], lambda p: is_again[p])) AS period
    FROM again WHERE list_contains(is_again, true)
), runs AS (
    SELECT *, word_index - row_number() OVER (PARTITION BY transcript_id, video_key, period ORDER BY word_index) AS run
    FROM periods
), found AS (
    SELECT transcript_id, video_key, video_id, period, min(word_index) - period AS first, max(word_index) AS last
    FROM runs GROUP BY transcript_id, video_key, video_id, period, run
), shortest AS (  -- what repeats one word also repeats two
    FROM found WHERE last - first + 1 >= at_least * period
    QUALIFY row_number() OVER (PARTITION BY transcript_id, video_key, last ORDER BY period) = 1
)
SELECT video_key, min(start_s) AS start_s, max(end_s) AS end_s, (last - first + 1) // period AS times,
       string_agg(word, ' ' ORDER BY word_index) FILTER (word_index < first + period) AS phrase, video_id
FROM shortest JOIN spoken_words USING (transcript_id)
WHERE word_index BETWEEN first AND last
GROUP BY transcript_id, video_key, video_id, first, last, period;

-- How much each side of stereo speaks, of all that is spoken; a mix of both sides is one side.
CREATE OR REPLACE VIEW talk_share AS
SELECT video_key, channel, round(sum(end_s - start_s), 3) AS talk_s, count(*) AS words,
       round(sum(end_s - start_s) / nullif(sum(sum(end_s - start_s)) OVER (PARTITION BY video_id, video_key), 0), 3)
           AS share,
       video_id
FROM spoken_words JOIN transcripts_current USING (transcript_id)
GROUP BY video_id, video_key, channel;
