-- A row for each condition and value of a pair: all that SQL can say, and lists of what it cannot.
-- All rates are over the twins' originals; only by 'condition', what was done to a twin, do twins count. So no
-- video is twice in a row, and all videos of one are independent.
WITH heard AS (
    SELECT video_id, model_version, unnest(arg_max(
        {'seconds': seconds, 'device': coalesce(device, ''), 'peak_mb': peak_mb, 'peak_gpu_mb': peak_gpu_mb}, ended_at
    ))
    FROM attempts WHERE outcome IN ('ok', 'no_speech') GROUP BY video_id, model_version
), priced AS (
    SELECT *, seconds / 3600 * map_extract_value(map($devices::VARCHAR[], $prices::DOUBLE[]), device) AS cost
    FROM heard
), pair AS (
    SELECT c.*, v.duration_s, a.seconds AS seconds_a, b.seconds AS seconds_b, a.cost AS cost_a, b.cost AS cost_b,
           a.device = b.device AS same_device, a.peak_mb AS peak_mb_a, b.peak_mb AS peak_mb_b,
           a.peak_gpu_mb AS peak_gpu_mb_a, b.peak_gpu_mb AS peak_gpu_mb_b,
           substitutions_a + deletions_a + insertions_a AS errors_a,
           substitutions_b + deletions_b + insertions_b AS errors_b
    FROM comparison_by_video AS c
    JOIN videos_current AS v USING (video_id)
    LEFT JOIN priced AS a ON a.video_id = c.video_id AND a.model_version = c.model_a
    LEFT JOIN priced AS b ON b.video_id = c.video_id AND b.model_version = c.model_b
    WHERE c.model_a = $model_a AND c.model_b = $model_b AND c.fingerprint_a = $fingerprint_a
      AND c.fingerprint_b = $fingerprint_b AND c.normalizer = $normalizer
), under AS (
    SELECT 'all' AS condition, 'all' AS value, * FROM pair WHERE conditions['condition'] = 'original'
    UNION ALL BY NAME
    SELECT entry.key AS condition, entry.value AS value, pair.* FROM pair, unnest(map_entries(conditions)) AS e(entry)
    WHERE entry.key = 'condition' OR conditions['condition'] = 'original'
), telling AS (
    SELECT condition FROM under GROUP BY condition
    HAVING condition = 'all'
        OR (count(DISTINCT value) > 1 AND (count(DISTINCT value) <= $max_values OR condition IN $measured))
)
SELECT condition, value, count(*) AS videos, count(*) FILTER (reference_words > 0) AS referenced, sum(duration_s) AS audio_s,
       sum(reference_words) AS reference_words,
       sum(errors_a) / nullif(sum(reference_words), 0) AS wer_a,
       sum(errors_b) / nullif(sum(reference_words), 0) AS wer_b,
       sum(character_errors_a) / nullif(sum(reference_characters), 0) AS cer_a,
       sum(character_errors_b) / nullif(sum(reference_characters), 0) AS cer_b,
       sum(substitutions_a) AS substitutions_a, sum(deletions_a) AS deletions_a, sum(insertions_a) AS insertions_a,
       sum(substitutions_b) AS substitutions_b, sum(deletions_b) AS deletions_b, sum(insertions_b) AS insertions_b,
       sum(words_a) AS words_a, sum(words_b) AS words_b,
       sum(edits) / nullif(sum(words_a), 0) AS disagreement,
       list_median(list_transform(flatten(list(start_differences_ms)), lambda ms: abs(ms))) AS start_difference_ms,
       list_median(list_transform(flatten(list(start_errors_a_ms)), lambda ms: abs(ms))) AS start_error_a_ms,
       list_median(list_transform(flatten(list(start_errors_b_ms)), lambda ms: abs(ms))) AS start_error_b_ms,
       sum(duration_s) FILTER (seconds_a IS NOT NULL) / nullif(sum(seconds_a), 0) AS rtfx_a,
       sum(duration_s) FILTER (seconds_b IS NOT NULL) / nullif(sum(seconds_b), 0) AS rtfx_b,
       sum(seconds_b) FILTER (same_device) / nullif(sum(seconds_a) FILTER (same_device), 0) AS slower,
       max(peak_mb_a) AS peak_mb_a, max(peak_mb_b) AS peak_mb_b,
       max(peak_gpu_mb_a) AS peak_gpu_mb_a, max(peak_gpu_mb_b) AS peak_gpu_mb_b,
       3600 * sum(cost_a) / nullif(sum(duration_s) FILTER (cost_a IS NOT NULL), 0) AS cost_a,
       3600 * sum(cost_b) / nullif(sum(duration_s) FILTER (cost_b IS NOT NULL), 0) AS cost_b,
       list((errors_a, errors_b, reference_words)) FILTER (reference_words IS NOT NULL) AS counts,
       list(confidence_a) FILTER (reference_words IS NOT NULL) AS confidence_a,
       list(confidence_b) FILTER (reference_words IS NOT NULL) AS confidence_b,
       sum(log2_likelihood_a) AS log2_likelihood_a, sum(log2_likelihood_b) AS log2_likelihood_b
FROM under SEMI JOIN telling USING (condition)
GROUP BY condition, value ORDER BY condition <> 'all', condition, value
